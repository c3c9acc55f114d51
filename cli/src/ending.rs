//! The end of the command by pglock: TERM, and after a while KILL, until nothing of it is left.

use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitStatus};

use crate::descendants::Told;
use crate::output::say_aside;
use crate::running::Running;

/// How the command ended.
pub(crate) enum Ended {
    ByItself(WaitStatus),
    /// pglock ended it because the lock was lost.
    Lost,
    /// The lock was lost, and pglock may not end it.
    RunsOn,
}

pub(crate) struct Ending {
    pub(crate) lost: bool,
    kill_at: Option<Instant>,
    /// It was said that a process cannot be ended.
    said: bool,
}

impl Ending {
    pub(crate) fn lost(command: &Running, grace: Duration) -> Self {
        Self::begin(true, command, grace)
    }

    /// The lock is held, but nobody watches over the command.
    pub(crate) fn unwatched(command: &Running, grace: Duration) -> Self {
        say_aside("pglock's process beside the command was killed, ending the command".to_owned());
        Self::begin(false, command, grace)
    }

    fn begin(lost: bool, command: &Running, grace: Duration) -> Self {
        let mut ending = Self {
            lost,
            kill_at: Instant::now().checked_add(grace),
            said: false,
        };
        ending.say(&command.end(Signal::TERM));
        ending
    }

    /// Says at once that a process cannot be ended.
    fn say(&mut self, told: &Told) {
        if let (false, [pid, ..]) = (self.said, told.refused.as_slice()) {
            self.said = true;
            say_aside(format!(
                "the command runs as another user (process {}), and pglock may not end it",
                pid.as_raw_nonzero()
            ));
        }
    }

    /// Kills what is left when it is time. Returns how it ended, once it has.
    pub(crate) fn go_on(&mut self, command: &Running) -> Option<Ended> {
        if command.gone {
            return Some(match command.status {
                Some(status) if !self.lost => Ended::ByItself(status),
                _ => Ended::Lost,
            });
        }
        if self.kill_at.is_none_or(|kill_at| Instant::now() < kill_at) {
            return None;
        }
        let told = command.end(Signal::KILL);
        self.say(&told);
        let runs_on = told.count == 0 && !told.refused.is_empty();
        (runs_on && self.lost).then_some(Ended::RunsOn)
    }
}
