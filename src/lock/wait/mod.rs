//! The wait for a lock: to the end of its timeout, or until somebody stops it.
//!
//! A session that waits in a statement holds a snapshot all the while: vacuum cannot remove what was
//! deleted since, and CREATE INDEX CONCURRENTLY waits for it. So a wait is sent in slices, between which
//! the session has no snapshot. The first is in the server's queue. What comes then is quiet: the end of a
//! slice is no error.
//!
//! - A lock of the session's is waited for in [`line`], whose order the slices do not touch.
//! - In a transaction, a place cannot be kept. In the caller's, nothing is gained by short slices, for the
//!   transaction has its snapshots in any case: they are long, so that the server finds deadlocks.
//!   Transactions that pglock begins do so anew with each short slice.

use std::time::{Duration, Instant};

use super::nesting::Note;
use crate::claim::Claim;
use crate::driver::{Failure, Refusal, Session, insist, while_canceled};
use crate::error::Error;
use crate::request::Request;
use crate::sql::{self, Situation, WaitTime, millis};
use crate::stop::StopToken;
use crate::targets::LockInfo;

mod holders;
pub(crate) mod session;
pub(crate) mod transaction;

/// A slice, in milliseconds: less than `deadlock_timeout`, which is a second by default, so that a
/// CREATE INDEX CONCURRENTLY that the lock's holder runs gets past the waiters before the server looks for
/// a deadlock, and takes it for one.
pub(crate) const SLICE: i32 = 700;

/// A slice in which the server finds deadlocks: some ten times `deadlock_timeout`, or less if it is to be
/// stopped.
const LONG_SLICE: i32 = 10_000;
const STOPPABLE_SLICE: i32 = 2_500;

/// Where the lock is acquired, and so what a failure leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    /// For the session: nothing, since the message is its own transaction.
    Session,
    /// In a transaction of the caller's: nothing any more.
    CallersTransaction,
    /// In a transaction of the caller's: a savepoint.
    CallersSavepoint,
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
    /// When the first message was sent.
    asked: Option<Instant>,
    /// What is known of the session after the first slice.
    pub(crate) situation: Option<Situation>,
    /// That this thread waits, on a pool.
    pub(crate) note: Option<Note>,
}

impl<'r> Attempt<'r> {
    pub(crate) fn begin(request: &'r Request) -> Self {
        Self {
            request,
            start: Instant::now(),
            asked: None,
            situation: None,
            note: None,
        }
    }

    /// Fails if the wait is to be stopped.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        let stop = self.request.stop.as_ref();
        match stop.is_some_and(StopToken::is_stopped) {
            true => Err(Error::Stopped {
                lock: self.request.lock.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Goes in front of everything that is sent outside a transaction.
    pub(crate) fn first(&self) -> &'static str {
        match self.request.timeout {
            Some(_) => sql::FIRST,
            None => "",
        }
    }

    /// Goes in front of everything that waits outside a transaction.
    pub(crate) fn before(&mut self) -> String {
        self.first().to_owned() + &self.label()
    }

    /// Goes in front of a statement that is planned: for how long it has been waited, and for what.
    pub(crate) fn label(&mut self) -> String {
        let waited = self.asked.map(|asked| asked.elapsed());
        self.asked.get_or_insert_with(Instant::now);
        sql::label(self.request.labelled.then_some(&self.request.lock), waited)
    }

    /// Asks what the session holds, and which timeouts it has.
    pub(crate) fn ask<S: Session>(&self, session: &mut S) -> Result<Option<Situation>, Failure> {
        let lines = session.message(self.first(), &Situation::question())?;
        Ok(Situation::read(&lines))
    }

    pub(crate) fn waited(&self) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| asked.elapsed())
    }

    pub(crate) fn is_over(&self) -> bool {
        let timeout = self.request.timeout;
        timeout.is_some_and(|timeout| self.start.elapsed() >= timeout)
    }

    /// The milliseconds that are left of the timeout; `None` inside, if there are none. Less than one that
    /// is spent does not count, or the shortest timeouts would not wait at all.
    fn left(&self) -> Option<Option<i32>> {
        let spent = self.start.elapsed();
        let spent = Duration::new(spent.as_secs(), spent.subsec_millis() * 1_000_000);
        let timeout = self.request.timeout?;
        Some(millis(timeout.saturating_sub(spent)))
    }

    /// How the first message waits, where a slice is so long.
    pub(crate) fn first_wait(&self, slice: i32) -> WaitTime {
        match self.left() {
            Some(None) => WaitTime::No,
            limit if !self.request.in_slices() => WaitTime::InPlace(limit.flatten()),
            Some(Some(limit)) => WaitTime::Slice(limit.min(slice)),
            None => WaitTime::OwnSlice(slice),
        }
    }

    /// How long a later slice is; `None` if the timeout is over.
    pub(crate) fn later_wait(&self, slice: i32) -> Option<i32> {
        match self.left() {
            None => Some(slice),
            Some(left) => left.map(|left| left.min(slice)),
        }
    }

    pub(crate) fn long_slice(&self) -> i32 {
        match self.request.stop {
            Some(_) => STOPPABLE_SLICE,
            None => LONG_SLICE,
        }
    }

    /// Whether a failure is the end of a slice, after which the wait goes on.
    pub(crate) fn goes_on(&self, failure: &Failure, time: WaitTime) -> bool {
        let slice = matches!(time, WaitTime::Slice(_) | WaitTime::OwnSlice(_));
        slice && failure.is_timeout() && !self.is_over()
    }

    /// Fails if the session's own timeouts, in milliseconds, say that the wait is over. `statement_timeout`
    /// counts as if the wait were one statement, and so does `lock_timeout` where the caller has set no
    /// timeout.
    fn within(&self, lock_timeout: u64, statement_timeout: u64) -> Result<(), Failure> {
        let waited = self.waited();
        let is_over = |limit| limit > 0 && waited >= Duration::from_millis(limit);
        if is_over(statement_timeout) {
            return Err(Failure::canceled(
                "the wait took as long as statement_timeout",
            ));
        }
        match self.request.timeout.is_none() && is_over(lock_timeout) {
            true => Err(Failure::timed_out("the wait took as long as lock_timeout")),
            false => Ok(()),
        }
    }

    /// The same, and the milliseconds that are left of the session's own `lock_timeout`.
    pub(crate) fn own_limit(&self) -> Result<i32, Failure> {
        let Some(own) = self.situation else {
            return Ok(i32::MAX);
        };
        self.within(own.lock_timeout, own.statement_timeout)?;
        let left = Duration::from_millis(own.lock_timeout).saturating_sub(self.waited());
        Ok(
            match own.lock_timeout == 0 || self.request.timeout.is_some() {
                true => i32::MAX,
                false => millis(left).unwrap_or(1),
            },
        )
    }

    /// The same as [`within`](Self::within), and how long slices are from then on: where the session holds locks, long enough for the
    /// server to look for a deadlock.
    pub(crate) fn slice_in(&self) -> Result<i32, Failure> {
        let Some(situation) = self.situation else {
            return Ok(SLICE);
        };
        self.within(situation.lock_timeout, situation.statement_timeout)?;
        match situation.holds {
            true => Ok(i32::try_from(2 * situation.deadlock_timeout).unwrap_or(LONG_SLICE)),
            false => Ok(SLICE),
        }
    }

    /// What a failure means, once nothing of it is left behind.
    pub(crate) fn failed<S: Session>(
        &self,
        session: &mut S,
        within: Within,
        mut failure: Failure,
    ) -> Error {
        let lock = &self.request.lock;
        let busy = failure.is_timeout() || matches!(failure, Failure::Refused(Refusal::Busy));
        let mut holders = Vec::new();
        match within {
            _ if matches!(failure, Failure::Lost(_)) => {}
            Within::CallersTransaction => {
                if busy && self.request.names_holders(S::HAS_SQLSTATE) {
                    (_, holders) = holders::after(session, "", lock);
                }
                failure = match session.in_transaction() {
                    true => failure.without_transaction(true),
                    false => failure,
                };
            }
            Within::CallersSavepoint => {
                let undone;
                if busy && self.request.names_holders(S::HAS_SQLSTATE) {
                    (undone, holders) = holders::after(session, sql::UNDO, lock);
                } else {
                    undone = while_canceled(|| session.send(sql::UNDO));
                }
                if undone.is_err() {
                    // There was no savepoint to roll back to: the transaction was aborted before, or
                    // there is none.
                    failure = failure.without_transaction(session.in_transaction());
                }
            }
            _ if busy && self.request.names_holders(true) => {
                (_, holders) = holders::after(session, self.first(), lock);
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

    pub(crate) fn error(&self, failure: Failure, holders: Vec<Claim>) -> Error {
        let (lock, timeout) = (self.request.lock.clone(), self.request.timeout);
        let mut error = Error::acquire(lock, timeout, failure);
        if let Error::Timeout { holders: of, .. } = &mut error {
            *of = holders;
        }
        error
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

/// Of a driver that tells no SQLSTATE, finds out what ended a wait. A time that is over ended it: the
/// server ends no wait before. Of the rest, what lasts is found by a try; what does not was a cancel, the
/// session's own timeout, or a deadlock.
pub(crate) fn explained<S: Session>(
    session: &mut S,
    lock: &LockInfo,
    time: WaitTime,
    waited: Duration,
    failure: Failure,
) -> Failure {
    if S::HAS_SQLSTATE || !failure.is_unknown() {
        return failure;
    }
    let over = |millis: u64| millis > 0 && waited >= Duration::from_millis(millis);
    let limit = time
        .limit()
        .map_or(0, |millis| u64::from(millis.unsigned_abs()));
    if over(limit) {
        return failure.with_state(crate::failure::TIMEOUT);
    }
    match session.send(&sql::Wait::new(lock).exactly(WaitTime::No, true)) {
        Ok(()) | Err(Failure::Refused(Refusal::Busy)) => {}
        // By the failure: why it failed is not said.
        Err(aborted) if aborted.is_aborted_transaction() => return failure,
        Err(Failure::Sql {
            sqlstate: Some(state),
            ..
        }) => return failure.with_state(&state),
        Err(_) => return failure,
    }
    let situation = session.query(&Situation::question()).ok();
    let situation = situation.and_then(|lines| Situation::read(&lines));
    let state = match situation {
        Some(own) if over(own.lock_timeout) => crate::failure::TIMEOUT,
        // Before that the server looks for no deadlock, and a slice is shorter by default.
        Some(own) if own.holds && over(own.deadlock_timeout) => crate::failure::DEADLOCK,
        _ => crate::failure::CANCELED,
    };
    failure.with_state(state)
}
