//! Who holds the lock while the command runs: a thread of its own, since a question to a server that
//! is gone may hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use pglock::{Error, LockGuard};

use crate::args::ScopeArg;
use crate::exit::chain;
use crate::output::say_aside;
use crate::signals::Event;
use crate::silence::LOOK;

pub(crate) type Guard<'c> = LockGuard<&'c mut PgConnection>;

/// Between two looks, pglock itself was stopped: nothing is known of the lock.
const STOPPED: Duration = Duration::from_secs(1);

/// How often a lock of a transaction is asked after at its end, if the question fails.
const ATTEMPTS: usize = 3;

pub(crate) struct Keeper<'c> {
    pub(crate) guard: Guard<'c>,
    /// Set again and again, unless the server leaves a question unanswered.
    pub(crate) heard: Arc<AtomicBool>,
    pub(crate) events: Sender<Event>,
    /// Between two questions whether the lock is held.
    pub(crate) check: Duration,
    pub(crate) scope: ScopeArg,
}

enum Found {
    Held,
    Lost(String),
    /// The question failed, which says nothing of the lock.
    Unknown(String),
}

impl Keeper<'_> {
    /// Holds the lock until there is nobody to tell to stop, and says when it is lost.
    pub(crate) fn keep(mut self, stopped: &Receiver<()>) {
        if let Some(reason) = self.watch(stopped) {
            let _ = self.events.send(Event::Lost(reason));
            let _ = stopped.recv();
        }
        // A transaction's lock is not asked after at its release.
        let lost = match self.scope {
            ScopeArg::Session => None,
            ScopeArg::Transaction => self.lost_at_the_end(),
        };
        let released = match lost {
            Some(reason) => Err(Error::body(format!("the lock was lost: {reason}"))),
            None => LockGuard::release(self.guard),
        };
        let _ = self.events.send(Event::Released(released));
    }

    /// Until it is told to stop, or the lock is lost: why.
    fn watch(&mut self, stopped: &Receiver<()>) -> Option<String> {
        let mut next = Instant::now() + self.check;
        let mut warned = false;
        loop {
            let look = Instant::now();
            let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) else {
                return None;
            };
            if let Some(reason) = self.closed() {
                return Some(reason);
            }
            if Instant::now() >= next || look.elapsed() > STOPPED {
                match self.ask() {
                    Found::Held => {}
                    Found::Lost(reason) => return Some(reason),
                    Found::Unknown(_) if warned => {}
                    Found::Unknown(reason) => {
                        warned = true;
                        let lock = LockGuard::lock_info(&self.guard);
                        say_aside(format!("cannot ask whether {lock} is held: {reason}"));
                    }
                }
                next = Instant::now() + self.check;
            }
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the connection has been closed from the other side: asks nothing of it.
    fn closed(&mut self) -> Option<String> {
        let mut notifications = self.guard.notifications_iter();
        let error = notifications.find_map(Result::err)?;
        Some(chain(&error))
    }

    fn ask(&mut self) -> Found {
        match LockGuard::is_held(&mut self.guard) {
            Ok(true) => Found::Held,
            Ok(false) => {
                Found::Lost("the server does not hold it for this session any more".to_owned())
            }
            // Its locks are gone with it.
            Err(error @ Error::TransactionAborted { .. }) => Found::Lost(chain(&error)),
            Err(error) => Found::Unknown(chain(&error)),
        }
    }

    fn lost_at_the_end(&mut self) -> Option<String> {
        let mut reason = None;
        for _ in 0..ATTEMPTS {
            match self.ask() {
                Found::Held => return None,
                Found::Lost(lost) => return Some(lost),
                Found::Unknown(unknown) => reason = Some(unknown),
            }
        }
        reason
    }
}
