//! Signals: while pglock waits for a lock they end it, while the command runs they are passed on.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::emulate_default_handler;
use signal_hook::low_level::siginfo::Cause;

use crate::connection::cancel;
use crate::exit::{Failure, OS};

/// What happens while a command runs.
pub(crate) enum Event {
    Signal {
        number: i32,
        /// A terminal sends Ctrl-C to the command as well.
        by_terminal: bool,
    },
    /// Something has happened to the command: it may have ended.
    Child,
    /// The lock is not held any more.
    Lost(String),
    /// The keeper has let go of the lock.
    Released(Result<(), pglock::Error>),
}

enum Phase {
    /// Waiting for the lock, in this process of the server once there is one.
    Waiting(Option<i32>),
    Running,
}

pub(crate) struct Signals {
    phase: Arc<Mutex<Phase>>,
    pub(crate) events: Receiver<Event>,
    pub(crate) sender: Sender<Event>,
}

impl Signals {
    pub(crate) fn listen(url: &str) -> Result<Self, Failure> {
        let ignored = ignored();
        let heeded = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]
            .into_iter()
            .filter(|signal| ignored >> (signal - 1) & 1 == 0)
            // Always: while it is ignored, the status of a child is not kept.
            .chain([SIGCHLD]);
        let mut signals = SignalsInfo::<WithOrigin>::new(heeded).map_err(|error| deaf(&error))?;
        let (sender, events) = mpsc::channel();
        let phase = Arc::new(Mutex::new(Phase::Waiting(None)));
        let listener = {
            let (url, phase, sender) = (url.to_owned(), Arc::clone(&phase), sender.clone());
            move || {
                for origin in signals.forever() {
                    let phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
                    match *phase {
                        _ if origin.signal == SIGCHLD => {
                            let _ = sender.send(Event::Child);
                        }
                        Phase::Waiting(pid) => give_up(&url, pid, origin.signal),
                        Phase::Running => {
                            let _ = sender.send(Event::Signal {
                                number: origin.signal,
                                by_terminal: matches!(origin.cause, Cause::Kernel),
                            });
                        }
                    }
                }
            }
        };
        thread::Builder::new()
            .spawn(listener)
            .map_err(|error| deaf(&error))?;
        Ok(Self {
            phase,
            events,
            sender,
        })
    }

    pub(crate) fn waiting_in(&self, pid: i32) {
        self.enter(Phase::Waiting(Some(pid)));
    }

    pub(crate) fn running(&self) {
        self.enter(Phase::Running);
    }

    fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

fn deaf(error: &io::Error) -> Failure {
    Failure::new(OS, format_args!("cannot listen to signals: {error}"))
}

/// Ends as the signal does, but first cancels the wait: the server would notice only when it grants
/// the lock that nobody is there to have it.
fn give_up(url: &str, pid: Option<i32>, signal: i32) {
    if let Some(pid) = pid {
        let (done, canceled) = mpsc::channel();
        let url = url.to_owned();
        let _ = thread::Builder::new().spawn(move || {
            cancel(&url, pid);
            let _ = done.send(());
        });
        let _ = canceled.recv_timeout(Duration::from_secs(1));
    }
    let _ = emulate_default_handler(signal);
}

/// The signals that are to be ignored, as nohup(1) and shells arrange it, as a bit each. Where there
/// is no procfs, none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
