//! A session that is kept: the server ends it after a silence, and is asked before.

use std::time::Duration;

use super::clock::{Moment, Silence};
use super::office::{Duty, LOOK, Office};
use crate::driver::{BoxError, Failure, Refusal, Session, insist};
use crate::error::Error;
use crate::failure::answer;
use crate::key::Key;
use crate::sql::{self, Statement};
use crate::targets::LockInfo;

/// How a lock is let go.
pub(crate) type Unlock = (Key, &'static str);

/// Notes the session's settings in the session, and lets the server end it after a silence: no longer than its own
/// limit, where it has one. Returns the silence, of which a lease has so many, and the server process.
pub(crate) fn settle<S: Session>(
    session: &mut S,
    silence: Duration,
    in_lease: u32,
    lock: &LockInfo,
) -> Result<(Silence, Option<i32>), Error> {
    let failed = |failure| Error::acquire(lock.clone(), None, failure);
    let line = session.query(&sql::lease::note()).map_err(failed)?.pop();
    let line = line.unwrap_or_default();
    let mut words = line.split(' ').map(str::parse::<u64>);
    let mut next = || words.next().and_then(Result::ok);
    let pid = next().and_then(|pid| i32::try_from(pid).ok());
    let limit = next().filter(|limit| *limit > 0);
    let silence = silence.min(limit.map_or(Duration::MAX, Duration::from_millis));
    let invalid = || Error::InvalidLease {
        lock: lock.clone(),
        lease: silence * in_lease,
    };
    let silence = Silence::new(silence).ok_or_else(invalid)?;
    let settle = sql::lease::settle(silence.time(), pid.unwrap_or_default());
    let here = session.query(&settle).map_err(failed)?.pop();
    match here.and_then(|line| line.parse().ok()) == pid {
        true => Ok((silence, pid)),
        false => Err(Error::MovedSession { lock: lock.clone() }),
    }
}

/// Leaves the session as it was: it may belong to a pool. If that does not work, or if it is not known what the
/// session holds, ends it.
pub(crate) fn leave<S: Session>(session: &mut S, held: &[Unlock], is_known: bool) {
    let leave = sql::lease::leave(held.iter().rev());
    let left = is_known && insist(|| session.send(&leave)).is_ok();
    if !left && !session.is_broken() {
        session.terminate();
    }
}

/// What the server is asked for, so that it hears from the session, and the session from it.
pub(crate) struct Question<'l, L> {
    /// The lock, if any is held.
    pub(crate) lock: Option<&'l LockInfo>,
    /// The server process.
    pub(crate) pid: Option<i32>,
    /// What stands in front of it.
    pub(crate) label: L,
}

impl<L: Fn() -> String> Question<'_, L> {
    /// Asks. Returns when the question was sent that has been answered, if one was.
    ///
    /// An error is no answer. That somebody cancels a question, or that the lock may not be asked for, says nothing
    /// of the lock; but a pooler that has lost the session may send errors of its own. So who it is is asked then.
    fn ask<S: Session>(
        &self,
        session: &mut S,
        held: Option<&Statement>,
    ) -> Result<Option<Moment>, Failure> {
        let asked = Moment::now();
        let reply = match held {
            Some(held) => answer(session.prepared(&(self.label)(), held)),
            None => session.send("SELECT"),
        };
        match reply {
            Ok(()) => return Ok(Some(asked)),
            Err(Failure::Sql { .. }) => {}
            Err(lost) => return Err(lost),
        }
        let asked = Moment::now();
        match session.query(&((self.label)() + sql::lease::PID)) {
            Ok(lines) => match lines.first().and_then(|line| line.parse().ok()) {
                Some(here) if self.pid == Some(here) => Ok(Some(asked)),
                _ => Err(Failure::Refused(Refusal::NotHeld)),
            },
            Err(Failure::Sql { .. }) => Ok(None),
            Err(lost) => Err(lost),
        }
    }
}

/// Keeps the session until something else is to be done on it. `None`: it is left, or lost, or its time is over.
pub(crate) fn keep<S: Session, J>(
    session: &mut S,
    office: &Office<J>,
    question: &Question<'_, impl Fn() -> String>,
) -> Option<J> {
    let held = question.lock.map(sql::held_by_session);
    loop {
        let lost = match office.next_duty() {
            Duty::Leave => return None,
            Duty::Do(job) => return Some(job),
            Duty::Look => session.hung_up(),
            Duty::Ask => match question.ask(session, held.as_ref()) {
                Ok(Some(asked)) => {
                    office.answered(asked);
                    None
                }
                Ok(None) => {
                    office.rest(LOOK);
                    None
                }
                Err(failure) => Some(reason(failure)),
            },
        };
        if let Some(reason) = lost {
            office.lose(reason);
            return None;
        }
    }
}

pub(crate) fn reason(failure: Failure) -> BoxError {
    let text = "the session no longer holds the lock";
    failure.into_source().unwrap_or_else(|| text.into())
}
