//! The command while it runs: pglock passes signals on to it, and does not let it outlive the lock.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread::Builder;
use std::time::{Duration, Instant};

use pglock::Error;
use rustix::process::Signal;

use crate::args::RunArgs;
use crate::descendants::{self, code};
use crate::ending::{Ended, Ending};
use crate::exit::{CANNOT_RUN, Failure, LOST, NOT_FOUND, RUNS_ON};
use crate::guard::Guard;
use crate::keeper::Keeper;
use crate::lease::{LOOK, Lease, Moment, Silence};
use crate::output::{say, say_aside};
use crate::running::Running;
use crate::signals::{Event, Signals};
use crate::spawn::spawn;

/// A lock that is held for a command.
pub(crate) struct Held<'a> {
    lock: String,
    slot: Option<u32>,
    lease: Lease,
    silence: Silence,
    signals: &'a Signals,
    args: &'a RunArgs,
    /// When dropped, the keeper releases the lock.
    keeps: Sender<()>,
    /// A signal has asked for the end.
    interrupted: bool,
}

impl<'a> Held<'a> {
    /// Starts the keeper. A question that was sent at `asked` has been answered.
    pub(crate) fn keep(
        guard: Guard,
        lease: Lease,
        asked: Moment,
        signals: &'a Signals,
        args: &'a RunArgs,
    ) -> io::Result<Self> {
        let (keeps, stopped) = mpsc::channel();
        let lock = guard.lock_info().to_string();
        let slot = guard.slot();
        let keeper = Keeper {
            guard,
            lease,
            events: signals.sender.clone(),
        };
        Builder::new().spawn(move || keeper.keep(&stopped))?;
        Ok(Self {
            lock,
            slot,
            lease,
            silence: Silence::since(asked),
            signals,
            args,
            keeps,
            interrupted: false,
        })
    }

    /// Runs the command to its end, and returns the status to exit with.
    pub(crate) fn run(mut self) -> Result<u8, Failure> {
        let started = Instant::now();
        let mut command = match spawn(self.args, self.slot) {
            Ok(command) => command,
            Err(failure) => {
                let _ = self.release();
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
        let lock = self.lock.clone();
        match self.release() {
            Some(Ok(())) => Ok(code),
            Some(Err(error)) => Err(Failure::of(LOST, &error)),
            None => Err(Failure::new(
                LOST,
                format_args!("the server does not say whether {lock} was held to the end"),
            )),
        }
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
                && let Some((reason, grace)) = self.loss(event)
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
            Event::Answered(asked) => self.silence.answered(*asked),
            Event::Signal { number, .. } => self.interrupted |= asks_for_the_end(*number),
            _ => {}
        }
        Some(event)
    }

    /// Why the lock is lost or about to be, and how long the command may still run.
    fn loss(&mut self, event: Option<Event>) -> Option<(String, Duration)> {
        let grace = self.lease.grace();
        let too_long = self.silence.is_too_long(self.lease.term() - grace);
        match event {
            Some(Event::Lost(reason)) => Some((reason, self.args.grace)),
            _ if too_long => Some((self.silent(), grace)),
            _ => None,
        }
    }

    fn silent(&self) -> String {
        let seconds = self.silence.seconds();
        format!("the server has been silent for {seconds} s")
    }

    /// Keeps the lock for that long, unless a signal asks for the end. The error says how it was lost.
    fn stay(&mut self, started: Instant, at_least: Duration) -> Result<(), String> {
        while started.elapsed() < at_least && !self.interrupted {
            match self.next() {
                Some(Event::Lost(reason)) => return Err(reason),
                Some(Event::Child) => {
                    descendants::reap(None);
                }
                _ if self.silence.is_too_long(self.lease.term()) => return Err(self.silent()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the lock was held until its release; `None`: the server does not say.
    fn release(self) -> Option<Result<(), Error>> {
        let Self {
            keeps,
            signals,
            lease,
            mut silence,
            ..
        } = self;
        drop(keeps);
        loop {
            match signals.events.recv_timeout(LOOK) {
                Ok(Event::Released(released)) => return Some(released),
                Ok(Event::Answered(asked)) => silence.answered(asked),
                _ if silence.is_too_long(lease.term()) => return None,
                _ => {}
            }
        }
    }
}

fn asks_for_the_end(signal: i32) -> bool {
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT]
        .iter()
        .any(|end| end.as_raw() == signal)
}
