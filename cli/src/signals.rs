//! Signals: while pglock waits for a lock they end it, while the command runs it passes them on.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pglock::StopToken;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::emulate_default_handler;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::descendants;
use crate::exit::{Failure, OS, SIGNAL, UNAVAILABLE};
use crate::output::say;

/// From one look at what has happened to the next. It sends nothing to the server.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// How long a wait may take to end after a signal; normally it takes a slice.
const STOPPED: Duration = Duration::from_secs(2);

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
}

#[derive(Clone, Copy)]
enum Phase {
    /// A signal could not leave anything behind yet.
    Connecting,
    Waiting,
    /// A signal arrived during the wait.
    Ending(i32),
    /// The server has been silent for too long.
    GivenUp,
    Running,
}

pub(crate) struct Signals {
    phase: Arc<Mutex<Phase>>,
    /// Stopped by a signal that arrives while pglock waits for the lock.
    pub(crate) stop: StopToken,
    pub(crate) events: Receiver<Event>,
    pub(crate) sender: Sender<Event>,
}

struct Listener {
    phase: Arc<Mutex<Phase>>,
    stop: StopToken,
    events: Sender<Event>,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let mut origins = origins(&[])?;
        let (sender, events) = mpsc::channel();
        let phase = Arc::new(Mutex::new(Phase::Connecting));
        let stop = StopToken::new();
        let listener = Listener {
            phase: Arc::clone(&phase),
            stop: stop.clone(),
            events: sender.clone(),
        };
        thread::Builder::new()
            .spawn(move || {
                for origin in origins.forever() {
                    listener.hear(&origin);
                }
            })
            .map_err(|error| deaf(&error))?;
        Ok(Self {
            phase,
            stop,
            events,
            sender,
        })
    }

    pub(crate) fn waiting(&self) {
        *lock(&self.phase) = Phase::Waiting;
    }

    /// From now on, signals are events. Returns one that arrived before, which ends pglock.
    pub(crate) fn running(&self) -> Option<i32> {
        let mut phase = lock(&self.phase);
        match *phase {
            Phase::Ending(signal) => Some(signal),
            Phase::GivenUp => {
                drop(phase);
                loop {
                    thread::park(); // pglock is about to end
                }
            }
            _ => {
                *phase = Phase::Running;
                None
            }
        }
    }

    /// Ends pglock after that time, unless the command runs by then: on a silent network a driver waits
    /// for ever, and heeds neither a timeout nor a token.
    pub(crate) fn give_up_after(&self, time: Duration, reason: String) -> Result<Limit, Failure> {
        let phase = Arc::clone(&self.phase);
        let (limit, lifted) = mpsc::channel();
        let watch = thread::Builder::new().spawn(move || {
            if lifted.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            {
                let mut phase = lock(&phase);
                match *phase {
                    Phase::Connecting | Phase::Waiting => *phase = Phase::GivenUp,
                    Phase::Ending(_) | Phase::GivenUp | Phase::Running => return,
                }
            }
            say(reason);
            std::process::exit(i32::from(UNAVAILABLE));
        });
        watch
            .map(|_| Limit { _held: limit })
            .map_err(|error| deaf(&error))
    }
}

/// A time after which pglock gives up. Dropped, it is lifted.
#[must_use]
pub(crate) struct Limit {
    _held: Sender<()>,
}

/// The signals that pglock heeds: those that are passed on unless it was started to ignore them, and
/// always those of its children, and others.
pub(crate) fn origins(others: &[i32]) -> Result<SignalsInfo<WithOrigin>, Failure> {
    let ignored = ignored();
    let heeded = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH]
        .into_iter()
        .filter(|signal| ignored >> (signal - 1) & 1 == 0)
        // Always: while CHLD is ignored, the kernel does not keep a child's status.
        .chain([SIGCHLD])
        .chain(others.iter().copied());
    SignalsInfo::<WithOrigin>::new(heeded).map_err(|error| deaf(&error))
}

/// A terminal's driver sends a signal to the command as well.
pub(crate) fn is_by_terminal(origin: &Origin) -> bool {
    matches!(origin.cause, Cause::Kernel)
}

impl Listener {
    fn hear(&self, origin: &Origin) {
        let signal = origin.signal;
        let mut phase = lock(&self.phase);
        match *phase {
            Phase::Running if signal == SIGCHLD => {
                let _ = self.events.send(Event::Child);
            }
            // Before there is a command, only PID 1 has children, which others have left to it.
            _ if signal == SIGCHLD => {
                descendants::reap(None);
            }
            Phase::Connecting | Phase::Waiting | Phase::Ending(_) if signal == SIGWINCH => {}
            Phase::Connecting | Phase::Ending(_) | Phase::GivenUp => end_by(signal),
            Phase::Waiting => {
                *phase = Phase::Ending(signal);
                self.stop.stop();
                // If the server is silent, the wait does not heed the token.
                let _ = thread::Builder::new().spawn(move || {
                    thread::sleep(STOPPED);
                    end_by(signal);
                });
            }
            Phase::Running => {
                let _ = self.events.send(Event::Signal {
                    number: signal,
                    by_terminal: is_by_terminal(origin),
                });
            }
        }
    }
}

/// Ends pglock as the signal would, or at least with its status: the kernel keeps PID 1 from dying by
/// a signal of its own.
pub(crate) fn end_by(signal: i32) -> ! {
    if std::process::id() != 1 {
        let _ = emulate_default_handler(signal);
    }
    std::process::exit(i32::from(SIGNAL) + signal)
}

fn lock(phase: &Mutex<Phase>) -> std::sync::MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deaf(error: &io::Error) -> Failure {
    Failure::new(OS, format_args!("cannot listen to signals: {error}"))
}

/// The signals that pglock was started to ignore, as by nohup(1) and shells, one bit each. None where
/// there is no procfs.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
