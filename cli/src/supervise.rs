//! The command while it runs: pglock passes signals on to it, and does not let it outlive the lock.

use std::time::{Duration, Instant};

use pglock::held::Moment;
use rustix::process::Signal;

use crate::args::RunArgs;
use crate::descendants::{self, code};
use crate::ending::{Ended, Ending};
use crate::exit::{CANNOT_RUN, Failure, LOST, NOT_FOUND, RUNS_ON};
use crate::hold::Hold;
use crate::output::{say, say_aside};
use crate::running::Running;
use crate::signals::{Event, LOOK, Signals};
use crate::spawn::spawn;

/// If pglock has not looked for so long, it was itself stopped: the answer to its last question may have
/// arrived meanwhile.
const STOPPED: Duration = Duration::from_secs(1);

/// How long the server then has to answer a new one.
const ANSWER: Duration = Duration::from_secs(1);

/// What holds the lock, and ends the command before it is lost.
pub(crate) struct Supervisor<'a> {
    hold: Hold,
    lock: String,
    signals: &'a Signals,
    args: &'a RunArgs,
    last_look: Moment,
    /// The end of the last time that pglock was stopped.
    resumed: Option<Instant>,
    silence: Option<Silence>,
    /// A signal has asked for the end.
    interrupted: bool,
    /// Why the lock was lost, until somebody has heard it.
    lost: Option<String>,
}

/// The server has been silent for so long that the command must be ended.
#[derive(Clone, Copy)]
struct Silence {
    /// Not before, since pglock itself was stopped. There is one excuse until the next answer: a holder that is
    /// stopped again and again must not keep its command for ever.
    excused_until: Instant,
    /// The end of the lease, unless it was over when pglock found that it had been stopped.
    kill_at: Option<Instant>,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(hold: Hold, signals: &'a Signals, args: &'a RunArgs) -> Self {
        hold.tell(signals.sender.clone());
        Self {
            lock: hold.lock_info().to_string(),
            hold,
            signals,
            args,
            last_look: Moment::now(),
            resumed: None,
            silence: None,
            interrupted: false,
            lost: None,
        }
    }

    /// Runs the command to its end, and returns the status to exit with.
    pub(crate) fn run(mut self) -> Result<u8, Failure> {
        let started = Instant::now();
        let mut command = match spawn(self.args, self.hold.slot()) {
            Ok(command) => command,
            Err(failure) => {
                let _ = self.hold.release();
                return Err(failure);
            }
        };
        let status = match self.attend(&mut command) {
            Ended::ByItself(status) => status,
            Ended::Lost => return Ok(LOST),
            Ended::RunsOn => return Ok(RUNS_ON),
        };
        let code = code(status);
        if let Some(at_least) = self.args.at_least
            // There was no command, whether pglock or a shell says so.
            && ![CANNOT_RUN, NOT_FOUND].contains(&code)
            && let Err(reason) = self.stay(started, at_least)
        {
            say(format_args!(
                "the lock {} was lost after the command: {reason}",
                self.lock
            ));
            return Ok(code);
        }
        self.hold.release().map(|()| code)
    }

    /// Waits for the end of the command, and ends it if the lock is lost.
    fn attend(&mut self, command: &mut Running) -> Ended {
        let mut ending: Option<Ending> = None;
        loop {
            let event = self.next();
            // It is reaped only below, so until then no other process can get its number.
            if let Some(Event::Signal {
                number,
                by_terminal,
            }) = event
            {
                let has_it = by_terminal && !command.own_group;
                if let (false, Some(signal)) = (has_it, Signal::from_named_raw(number)) {
                    command.tell(signal);
                }
            }
            command.reap();
            match &mut ending {
                None if command.has_lost_its_warden() => {
                    ending = Some(Ending::unwatched(command, self.args.grace));
                }
                Some(ending) => {
                    if let Some(ended) = ending.go_on(command) {
                        return ended;
                    }
                }
                None => {
                    if let Some(status) = command.status {
                        return Ended::ByItself(status);
                    }
                }
            }
            if ending.as_ref().is_none_or(|ending| !ending.lost)
                && let Some((reason, grace)) = self.loss()
            {
                say_aside(format!(
                    "the lock {} was lost, ending the command: {reason}",
                    self.lock
                ));
                ending = Some(Ending::lost(command, grace));
            }
        }
    }

    fn next(&mut self) -> Option<Event> {
        let event = self.signals.events.recv_timeout(LOOK).ok()?;
        match &event {
            Event::Signal { number, .. } => self.interrupted |= asks_for_the_end(*number),
            Event::Lost(reason) => self.lost = Some(reason.clone()),
            _ => {}
        }
        Some(event)
    }

    /// Why the lock is lost or about to be, and how long the command may still run.
    fn loss(&mut self) -> Option<(String, Duration)> {
        let (now, look) = (Instant::now(), Moment::now());
        if look.since(self.last_look) > STOPPED {
            self.resumed = Some(now);
        }
        self.last_look = look;
        let left = self.hold.left();
        // Both TERM and KILL come within the lease: the answer to a question takes time, too.
        let grace = self.args.grace.min(self.hold.lease() * 4 / 10);
        match left {
            Some(left) if left > grace => self.silence = None,
            Some(left) => {
                self.silence.get_or_insert(Silence {
                    excused_until: self.resumed.map_or(now, |resumed| resumed + ANSWER),
                    kill_at: Some(now + left).filter(|_| !left.is_zero()),
                });
            }
            None => {}
        }
        if let Some(reason) = self.lost.take() {
            let kill_at = self.silence.and_then(|silence| silence.kill_at);
            let grace = kill_at.map(|at| at.saturating_duration_since(now));
            return Some((reason, grace.unwrap_or(self.args.grace)));
        }
        let over = self
            .silence
            .is_some_and(|silence| now >= silence.excused_until);
        left.filter(|_| over)
            .map(|left| (silent(left), left.min(grace)))
    }

    /// Keeps the lock for that long, unless a signal asks for the end. The error says how it was lost.
    fn stay(&mut self, started: Instant, at_least: Duration) -> Result<(), String> {
        // It may be lost already, since the command's last moment.
        while started.elapsed() < at_least && !self.interrupted {
            if let Some(reason) = self.lost.take() {
                return Err(reason);
            }
            match self.next() {
                Some(Event::Child) => {
                    descendants::reap(None);
                }
                _ if self.hold.left() == Some(Duration::ZERO) => {
                    return Err(silent(Duration::ZERO));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn silent(left: Duration) -> String {
    let left = left.as_secs_f32();
    format!("the server is silent, and the lease ends in {left:.1} s")
}

fn asks_for_the_end(signal: i32) -> bool {
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT]
        .iter()
        .any(|end| end.as_raw() == signal)
}
