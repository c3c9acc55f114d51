//! Who holds the lock while the command runs: a thread of its own, since a question to a server that
//! is gone may hang.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use pglock::{Error, Scope};

use crate::exit::chain;
use crate::guard::Guard;
use crate::lease::{LOOK, Lease, Moment};
use crate::output::say_aside;
use crate::signals::Event;

/// How often a lock of a transaction is asked after at its end, if the question fails.
const ATTEMPTS: usize = 3;

pub(crate) struct Keeper {
    pub(crate) guard: Guard,
    pub(crate) lease: Lease,
    pub(crate) events: Sender<Event>,
}

enum Found {
    Held,
    Lost(String),
    /// The question failed, which says nothing of the lock.
    Unknown(String),
}

impl Keeper {
    /// Holds the lock until there is nobody to tell to stop, and says when it is lost.
    pub(crate) fn keep(mut self, stopped: &Receiver<()>) {
        if let Some(reason) = self.watch(stopped) {
            let _ = self.events.send(Event::Lost(reason));
            let _ = stopped.recv();
        }
        let events = self.events.clone();
        let released = match self.guard.scope() {
            Scope::Session => self.guard.release(),
            Scope::Transaction => self.end_transaction(),
        };
        let _ = events.send(Event::Released(released));
    }

    /// Until it is told to stop, or the lock is lost: why.
    fn watch(&mut self, stopped: &Receiver<()>) -> Option<String> {
        // At once, which shows the lock's name. A transaction would keep its lock on `pg_locks`, where
        // its own is looked up, to its end.
        let mut asked = match self.guard.scope() {
            Scope::Session => None,
            Scope::Transaction => Some(Moment::now()),
        };
        let mut warned = false;
        loop {
            if asked.is_none_or(|asked| asked.elapsed() >= self.lease.between_questions()) {
                let now = Moment::now();
                match self.ask() {
                    Found::Held => {}
                    Found::Lost(reason) => return Some(reason),
                    Found::Unknown(_) if warned => {}
                    Found::Unknown(reason) => {
                        warned = true;
                        let lock = self.guard.lock_info();
                        say_aside(format!("cannot ask whether {lock} is held: {reason}"));
                    }
                }
                // Whatever the answer, the server has heard this session.
                let _ = self.events.send(Event::Answered(now));
                asked = Some(now);
            }
            let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) else {
                return None;
            };
            if let Some(reason) = self.closed() {
                return Some(reason);
            }
        }
    }

    /// Whether the connection has been closed from the other side: asks nothing of it.
    fn closed(&mut self) -> Option<String> {
        let mut notifications = self.guard.connection().notifications_iter();
        let error = notifications.find_map(Result::err)?;
        Some(chain(&error))
    }

    fn ask(&mut self) -> Found {
        match self.guard.is_held() {
            Ok(true) => Found::Held,
            Ok(false) => {
                Found::Lost("the server does not hold it for this session any more".to_owned())
            }
            // Its locks are gone with it.
            Err(error @ Error::TransactionAborted { .. }) => Found::Lost(chain(&error)),
            Err(error) => Found::Unknown(chain(&error)),
        }
    }

    /// A transaction's lock is not asked after at its release.
    fn end_transaction(mut self) -> Result<(), Error> {
        let lost = self.lost_at_the_end();
        // Waits for the server to have let go; a lost connection has done so.
        let _ = AnsiTransactionManager::rollback_transaction(self.guard.connection());
        match lost {
            Some(reason) => Err(Error::body(format!("the lock was lost: {reason}"))),
            None => self.guard.release(),
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
