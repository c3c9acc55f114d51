//! The command while it runs: signals are passed on to it, and it does not outlive the lock.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, exit};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use pglock::{Error, LockGuard};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use crate::args::{RunArgs, ScopeArg};
use crate::exit::{Failure, LOST, SIGNAL, one_line};
use crate::output::{say, say_aside};
use crate::signals::{Event, Signals};
use crate::spawn::{Running, spawn};

type Guard<'c> = LockGuard<&'c mut PgConnection>;

/// Between two looks at the socket, which ask nothing of the server.
const LOOK: Duration = Duration::from_millis(250);

/// A server that has been silent for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Runs the command to its end, and gives the status to exit with.
///
/// The guard is kept by a thread of its own, since a question to a server that is gone may hang.
pub(crate) fn supervise<'s>(
    threads: &'s Scope<'s, '_>,
    guard: Guard<'s>,
    signals: &Signals,
    args: &RunArgs,
) -> Result<u8, Failure> {
    let mut command = spawn(&args.command)?;
    let lock = LockGuard::lock(&guard).to_string();
    let (stop, stopped) = mpsc::channel();
    let heard = Arc::new(Mutex::new(Instant::now()));
    let (sender, (check, scope)) = (signals.sender.clone(), (args.check, args.scope));
    threads.spawn({
        let heard = Arc::clone(&heard);
        move || keep(guard, &heard, &stopped, &sender, check, scope)
    });
    let pid = command.pid();
    let sender = signals.sender.clone();
    threads.spawn(move || {
        // Left to be reaped, so that the number cannot go to another process meanwhile.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
        let _ = sender.send(Event::Ended);
    });

    let (status, lost) = attend(&mut command, &signals.events, &heard, args, &lock)?;
    drop(stop);
    let released = loop {
        match signals.events.recv_timeout(SILENCE) {
            Ok(Event::Released(released)) => break released,
            Ok(_) => {}
            Err(_) => {
                if !lost {
                    say(format_args!(
                        "the server does not say whether {lock} was held to the end"
                    ));
                }
                exit(LOST.into());
            }
        }
    };
    if lost {
        return Ok(LOST);
    }
    released.map_err(|error| Failure::new(LOST, error))?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, signal) => SIGNAL + u8::try_from(signal.unwrap_or(0)).unwrap_or(0),
    })
}

/// Until the command has ended: how, and whether the lock was lost meanwhile.
fn attend(
    command: &mut Running,
    events: &Receiver<Event>,
    heard: &Mutex<Instant>,
    args: &RunArgs,
    lock: &str,
) -> Result<(ExitStatus, bool), Failure> {
    let mut kill_at = None;
    loop {
        let mut lost = None;
        match events.recv_timeout(LOOK) {
            Ok(Event::Ended) => return Ok((command.child.wait()?, kill_at.is_some())),
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
            Ok(Event::Released(_)) | Err(_) => {}
        }
        let silence = heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed();
        if lost.is_none() && silence > SILENCE {
            lost = Some(format!(
                "the server has been silent for {} s",
                silence.as_secs()
            ));
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

/// Holds the lock until there is nobody to tell to stop, and says when it is lost.
fn keep(
    mut guard: Guard<'_>,
    heard: &Mutex<Instant>,
    stopped: &Receiver<()>,
    events: &Sender<Event>,
    check: Duration,
    scope: ScopeArg,
) {
    let mut next = Instant::now() + check;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
        let mut lost = broken(&mut guard);
        if lost.is_none() && Instant::now() >= next {
            lost = not_held(&mut guard);
            next = Instant::now() + check;
        }
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if let Some(reason) = lost {
            let _ = events.send(Event::Lost(one_line(&reason)));
            let _ = stopped.recv();
            break;
        }
    }
    // A transaction's lock is not asked after at its release.
    let lost = match scope {
        ScopeArg::Session => None,
        ScopeArg::Transaction => not_held(&mut guard),
    };
    let released = match lost {
        Some(reason) => Err(Error::body(format!("the lock was lost: {reason}"))),
        None => LockGuard::release(guard),
    };
    let _ = events.send(Event::Released(released));
}

/// Whether the connection has been closed from the other side, without a word to it.
fn broken(guard: &mut Guard<'_>) -> Option<String> {
    guard
        .notifications_iter()
        .find_map(Result::err)
        .map(|error| error.to_string())
}

fn not_held(guard: &mut Guard<'_>) -> Option<String> {
    match LockGuard::is_held(guard) {
        Ok(true) => None,
        Ok(false) => Some("the server does not hold it for this session any more".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
