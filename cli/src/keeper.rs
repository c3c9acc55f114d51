//! Holds the lock while the command runs, in a thread of its own, since a question to a server that
//! is gone may hang.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::{RunQueryDsl, sql_query};
use pglock::{Error, Scope};

use crate::exit::chain;
use crate::guard::Guard;
use crate::lease::{LOOK, Lease, Moment};
use crate::output::say_aside;
use crate::signals::Event;
use crate::wire::Wire;

/// How often it asks at the end whether a transaction's lock is held, if the question fails.
const ATTEMPTS: usize = 3;

pub(crate) struct Keeper {
    pub(crate) guard: Guard,
    pub(crate) lease: Lease,
    pub(crate) events: Sender<Event>,
}

enum Found {
    Held,
    Lost(String),
    /// The question failed, which says nothing about the lock.
    Unknown(String),
}

impl Keeper {
    /// Holds the lock until the sender of `stopped` is dropped, and reports if the lock is lost.
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

    /// Watches until it is to stop, or the lock is lost; returns why it was lost.
    fn watch(&mut self, stopped: &Receiver<()>) -> Option<String> {
        // At once, since the question shows the lock's name. A transaction does not ask yet: to its
        // end it would keep its lock on `pg_locks`, which the question reads.
        let mut asked = match self.guard.scope() {
            Scope::Session => None,
            Scope::Transaction => Some(Moment::now()),
        };
        let mut warned = false;
        let mut wire = Wire::listen();
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
                wire.has_news(); // the answer
                // Whatever the answer, the server has heard from this session.
                let _ = self.events.send(Event::Answered(now));
                asked = Some(now);
            }
            let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) else {
                return None;
            };
            match self.news(&mut wire) {
                Err(reason) => return Some(reason),
                // The lock's name is to be shown again.
                Ok(true) if self.guard.scope() == Scope::Session => asked = None,
                Ok(_) => {}
            }
            if let Some(reason) = self.closed() {
                return Some(reason);
            }
        }
    }

    /// Whether the server has said something unasked; the error is why it has ended the session.
    fn news(&mut self, wire: &mut Wire) -> Result<bool, String> {
        if !wire.has_news() {
            return Ok(false);
        }
        // Only the extended protocol shows the first of two errors: the second is that of the closed
        // connection. The simple one closes its portal, which would keep a snapshot in a transaction.
        let connection = self.guard.connection();
        let answered = sql_query("SELECT").execute(connection);
        let answered = answered.and_then(|_| connection.batch_execute("SELECT"));
        wire.has_news(); // the answer
        match answered {
            Err(error) if self.closed().is_some() => Err(chain(&error)),
            _ => Ok(true),
        }
    }

    /// Whether the other side has closed the connection, and why. Sends nothing.
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
            // The transaction's locks are gone with it.
            Err(error @ Error::TransactionAborted { .. }) => Found::Lost(chain(&error)),
            Err(error) => Found::Unknown(chain(&error)),
        }
    }

    /// The release of a transaction's lock does not check whether it was held.
    fn end_transaction(mut self) -> Result<(), Error> {
        let lost = self.lost_at_the_end();
        // Waits until the server has released the lock; on a lost connection it has done so.
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
