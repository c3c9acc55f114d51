//! The command while it runs: signals are passed on to it, and it does not outlive the lock.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{Builder, Scope};
use std::time::Instant;

use pglock::{Error, LockGuard};
use rustix::process::Signal;

use crate::args::RunArgs;
use crate::exit::{Failure, LOST, SIGNAL};
use crate::keeper::{Guard, Keeper};
use crate::output::{say, say_aside};
use crate::signals::{Event, Signals};
use crate::silence::{LOOK, Silence};
use crate::spawn::{Running, spawn};

/// Runs the command to its end, and gives the status to exit with.
pub(crate) fn supervise<'s>(
    threads: &'s Scope<'s, '_>,
    guard: Guard<'s>,
    signals: &Signals,
    args: &RunArgs,
) -> Result<u8, Failure> {
    let lock = LockGuard::lock_info(&guard).to_string();
    let (stop, stopped) = mpsc::channel();
    let heard = Arc::new(AtomicBool::new(true));
    let keeper = Keeper {
        guard,
        heard: Arc::clone(&heard),
        events: signals.sender.clone(),
        check: args.check,
        scope: args.scope,
    };
    Builder::new().spawn_scoped(threads, move || keeper.keep(&stopped))?;
    let mut command = spawn(&args.command)?;

    let (status, lost) = attend(&mut command, &signals.events, &heard, args, &lock)?;
    drop(stop);
    let released = released(&signals.events, args);
    match released {
        None if !lost => say(format_args!(
            "the server does not say whether {lock} was held to the end"
        )),
        _ => {}
    }
    match released {
        // The keeper's question may hang for long.
        None => exit(LOST.into()),
        Some(_) if lost => Ok(LOST),
        Some(Err(error)) => Err(Failure::of(LOST, &error)),
        Some(Ok(())) => Ok(code(status)),
    }
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, signal) => SIGNAL + u8::try_from(signal.unwrap_or(0)).unwrap_or(0),
    }
}

/// Until the command has ended: how, and whether the lock was lost meanwhile.
fn attend(
    command: &mut Running,
    events: &Receiver<Event>,
    heard: &AtomicBool,
    args: &RunArgs,
    lock: &str,
) -> io::Result<(ExitStatus, bool)> {
    let mut silence = Silence::new(args.silence);
    let mut kill_at = None;
    loop {
        let mut lost = None;
        match events.recv_timeout(LOOK) {
            Ok(Event::Signal {
                number,
                by_terminal,
            }) => {
                let has_it = by_terminal && !command.own_group;
                if let (false, Some(signal)) = (has_it, Signal::from_named_raw(number)) {
                    command.tell(signal);
                }
            }
            Ok(Event::Lost(reason)) => lost = Some(reason),
            Ok(Event::Child | Event::Released(_)) | Err(_) => {}
        }
        // Only here is it reaped: before, its number cannot go to another process.
        if let Some(status) = command.child.try_wait()? {
            return Ok((status, kill_at.is_some()));
        }
        if silence.is_too_long(heard.swap(false, Ordering::Relaxed)) {
            let seconds = args.silence.as_secs();
            lost.get_or_insert_with(|| format!("the server has been silent for {seconds} s"));
        }
        if let (Some(reason), None) = (lost, kill_at) {
            command.tell(Signal::TERM);
            say_aside(format!(
                "the lock {lock} was lost, ending the command: {reason}"
            ));
            kill_at = Some(Instant::now() + args.grace);
        }
        if kill_at.is_some_and(|kill_at| Instant::now() >= kill_at) {
            command.tell(Signal::KILL);
        }
    }
}

/// Whether the lock was released in good order; `None`: the server does not say.
fn released(events: &Receiver<Event>, args: &RunArgs) -> Option<Result<(), Error>> {
    let mut silence = Silence::new(args.silence);
    loop {
        match events.recv_timeout(LOOK) {
            Ok(Event::Released(released)) => return Some(released),
            _ if silence.is_too_long(false) => return None,
            _ => {}
        }
    }
}
