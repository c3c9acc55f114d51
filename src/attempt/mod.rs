//! The wait for a lock: in slices, to the end of its timeout, or until somebody stops it.
//!
//! A session that waits in a statement holds a snapshot all the while: vacuum cannot remove what was
//! deleted since, and CREATE INDEX CONCURRENTLY waits for it. So a wait is sent in slices, between which
//! the session has no snapshot. They are shorter than `deadlock_timeout`, after which the server would
//! look for a deadlock: instead, a question between two slices does.

use std::time::{Duration, Instant};

use crate::ask;
use crate::claim::Claim;
use crate::driver::{Failure, Refusal, Replies, Session, insist};
use crate::error::Error;
use crate::inspect;
use crate::nesting::Note;
use crate::request::{LockInfo, Request, WaitTime, millis};
use crate::sql;
use crate::stop::StopToken;

pub(crate) use self::slice::label;
use self::slice::{Look, slice};

mod slice;

/// Where the lock is acquired, and so what a failure leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    /// For the session: nothing, since the message is its own transaction.
    Session,
    /// In a transaction of the caller's: a savepoint.
    CallersTransaction,
    /// In a transaction that begins with it: nothing, since it is rolled back.
    OwnTransaction,
    /// In a message that has the whole section in it: nothing.
    OneMessage,
}

/// One call for a lock, from its beginning to its end.
pub(crate) struct Attempt<'r> {
    pub(crate) request: &'r Request,
    /// What the timeout counts from.
    start: Instant,
    /// That this thread waits, on a pool.
    pub(crate) note: Option<Note>,
}

impl<'r> Attempt<'r> {
    pub(crate) fn begin(request: &'r Request) -> Self {
        Self {
            request,
            start: Instant::now(),
            note: None,
        }
    }

    /// Sends an acquire, for a slice at a time, until it has an answer.
    pub(crate) fn in_slices<S: Session, R>(
        &mut self,
        session: &mut S,
        within: Within,
        mut send: impl FnMut(&mut S, WaitTime, &str) -> Result<R, Failure>,
    ) -> Result<R, Error> {
        let asked = Instant::now();
        let mut waited = None;
        loop {
            if self
                .request
                .stop
                .as_ref()
                .is_some_and(StopToken::is_stopped)
            {
                let lock = self.request.lock.clone();
                return Err(Error::Stopped { lock });
            }
            let time = self.time();
            let label = label(self.name(), waited) + self.first_at(within);
            let failure = match send(session, time, &label) {
                Ok(acquired) => return Ok(acquired),
                Err(failure) => failure,
            };
            let slice = matches!(time, WaitTime::Slice(_) | WaitTime::OwnSlice(_));
            if !slice || !failure.is_timeout() || self.is_over() {
                return Err(self.failed(session, within, failure));
            }
            self.between(session, within, failure, asked)?;
            waited = Some(asked.elapsed());
        }
    }

    /// Goes in front of everything that is sent outside a transaction.
    fn first(&self) -> &'static str {
        sql::first(self.request.timeout.is_some())
    }

    /// The same in front of the acquire. A transaction's opening brings its own.
    fn first_at(&self, within: Within) -> &'static str {
        match within {
            Within::Session | Within::OneMessage => self.first(),
            Within::CallersTransaction | Within::OwnTransaction => "",
        }
    }

    fn is_over(&self) -> bool {
        let timeout = self.request.timeout;
        timeout.is_some_and(|timeout| self.start.elapsed() >= timeout)
    }

    /// How much of the timeout is gone. Less than a millisecond does not count, or the shortest timeouts
    /// would not wait at all.
    fn spent(&self) -> Duration {
        let spent = self.start.elapsed();
        Duration::new(spent.as_secs(), spent.subsec_millis() * 1_000_000)
    }

    /// How the next message waits.
    fn time(&self) -> WaitTime {
        let limit = match self.request.timeout {
            None => None,
            Some(timeout) => match millis(timeout.saturating_sub(self.spent())) {
                None => return WaitTime::No,
                limit => limit,
            },
        };
        match limit {
            limit if !self.request.in_slices() => WaitTime::InPlace(limit),
            Some(limit) => WaitTime::Slice(limit.min(slice())),
            None => WaitTime::OwnSlice(slice()),
        }
    }

    /// The lock, where its name may be shown.
    fn name(&self) -> Option<&LockInfo> {
        self.request.labelled.then_some(&self.request.lock)
    }

    /// Between two slices: whether it makes sense to wait on.
    fn between<S: Session>(
        &self,
        session: &mut S,
        within: Within,
        failure: Failure,
        asked: Instant,
    ) -> Result<(), Error> {
        let question = sql::between_slices(&self.request.lock);
        let reply = match within {
            Within::CallersTransaction => match ask::lines_after_undo(session, &question) {
                (Ok(()), lines) => Ok(lines),
                (Err(undone), _) => Err(undone),
            },
            Within::Session | Within::OwnTransaction | Within::OneMessage => {
                ask::lines(session, self.first(), &question)
            }
        };
        let lines = match reply {
            Ok(lines) => lines,
            Err(ended) if ended.is_canceled() || matches!(ended, Failure::Lost(_)) => {
                return Err(self.error(ended, Vec::new()));
            }
            Err(_) => Vec::new(), // may not look: it waits on, and the others find deadlocks
        };
        let Some(look) = lines.first().and_then(|line| Look::read(line)) else {
            return Ok(());
        };
        let lock = || self.request.lock.clone();
        let waited = asked.elapsed();
        if look.deadlock {
            let source = "a session that holds the lock waits for this one".into();
            return Err(Error::Deadlock {
                lock: lock(),
                source,
            });
        }
        if look.statement_timeout.is_some_and(|limit| waited >= limit) {
            let source = "the wait took as long as statement_timeout".into();
            return Err(Error::Canceled {
                lock: lock(),
                source,
            });
        }
        if self.request.timeout.is_none() && look.lock_timeout.is_some_and(|limit| waited >= limit)
        {
            let holders = match self
                .request
                .names_holders(within != Within::CallersTransaction)
            {
                true => inspect::holders_of(session, self.first(), &self.request.lock),
                false => Vec::new(),
            };
            return Err(self.error(failure, holders));
        }
        Ok(())
    }

    /// What a failure means, once nothing of it is left behind.
    fn failed<S: Session>(&self, session: &mut S, within: Within, mut failure: Failure) -> Error {
        let lock = &self.request.lock;
        let busy = failure.is_timeout() || matches!(failure, Failure::Refused(Refusal::Busy));
        let mut holders = Vec::new();
        if matches!(failure, Failure::Refused(Refusal::Unexplained)) {
            return self.error(why_not(session, within, self.first()), holders);
        }
        match within {
            _ if matches!(failure, Failure::Lost(_)) => {}
            Within::CallersTransaction => {
                let free = S::REPLIES == Replies::Rows;
                let undone;
                if busy && self.request.names_holders(free) {
                    (undone, holders) = inspect::undo_and_holders(session, lock);
                } else {
                    undone = ask::undo(session);
                }
                if undone.is_err() {
                    // There was no savepoint to roll back to: the transaction was aborted before, or
                    // there is none.
                    failure = failure.without_transaction(session.in_transaction());
                }
            }
            _ if busy && self.request.names_holders(true) => {
                holders = inspect::holders_of(session, self.first(), lock);
            }
            Within::Session | Within::OwnTransaction | Within::OneMessage => {
                // A driver may return before the server has released what the message held: the next
                // answer comes after that. And in a raw transaction that was aborted nothing answers.
                let unknown = failure.may_be_aborted_transaction();
                let must_settle = match within {
                    Within::OwnTransaction => false,
                    // It may hold some of several keys.
                    Within::OneMessage if lock.keys().len() > 1 => true,
                    _ => matches!(failure, Failure::Sql { .. }),
                };
                if unknown || must_settle {
                    let settle = [self.first(), "SELECT 1"].concat();
                    let settled = insist(|| session.send(&settle));
                    if let Err(aborted @ Failure::Sql { .. }) = settled {
                        failure = of_raw_transaction(failure, &aborted);
                    }
                }
            }
        }
        self.error(failure, holders)
    }

    fn error(&self, failure: Failure, holders: Vec<Claim>) -> Error {
        let (lock, timeout) = (self.request.lock.clone(), self.request.timeout);
        Error::acquire(lock, timeout, failure).held_by(holders)
    }
}

/// Asks why the server refused the lock. No answer is one too: the refusal came as an error, which has
/// aborted a raw transaction of the caller's.
fn why_not<S: Session>(session: &mut S, within: Within, first: &str) -> Failure {
    let question = sql::why_not(within == Within::Session);
    let lines = match within {
        Within::CallersTransaction => match ask::lines_after_undo(session, &question) {
            (Ok(()), lines) => Ok(lines),
            (Err(failure), _) => return failure.without_transaction(session.in_transaction()),
        },
        _ => ask::lines(session, first, &question),
    };
    match lines {
        Ok(lines) => Failure::Refused(Refusal::in_reply(&lines).unwrap_or(Refusal::Unexplained)),
        Err(failure) if failure.may_be_aborted_transaction() => {
            Failure::Refused(Refusal::InTransaction)
        }
        Err(failure) => failure,
    }
}

/// What a failure without an SQLSTATE means where the next message finds an aborted transaction that the
/// driver does not know of: it was aborted before, or by the failure.
fn of_raw_transaction(failure: Failure, aborted: &Failure) -> Failure {
    match failure {
        Failure::Sql { sqlstate: None, .. } if !failure.says_the_same(aborted) => {
            Failure::Refused(Refusal::InTransaction)
        }
        failure => failure.without_transaction(true),
    }
}
