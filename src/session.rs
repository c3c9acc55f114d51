//! Taking and releasing a session lock: what is sent, and what the answers mean.

use crate::failure::{Answer, Answers, Failure};
use crate::backends::{Session, insist};
use crate::request::{LockInfo, Wait};
use crate::sql;

/// Takes a session lock.
pub(crate) fn lock<S: Session>(
    session: &mut S,
    lock: &LockInfo,
    wait: Wait,
) -> Result<(), Failure> {
    if S::ANSWERS == Answers::Errors {
        return session.send(&sql::lock_by_errors(lock, wait));
    }
    let lines = session.query(&sql::lock_by_rows(lock, wait))?;
    match lines.first().map(String::as_str) {
        Some("f") => Err(Failure::Refused(Answer::Busy)),
        Some(_) => Ok(()),
        None => {
            session.send(sql::REFUSAL)?;
            Err(Failure::Refused(Answer::InTransaction))
        }
    }
}

/// Releases a session lock, unless a transaction is open.
pub(crate) fn unlock<S: Session>(session: &mut S, lock: &LockInfo) -> Result<(), Failure> {
    insist(|| unlock_after(session, lock, ""))
}

/// Rolls back whatever is open, aborted or not, then releases.
pub(crate) fn rollback_and_unlock<S: Session>(
    session: &mut S,
    lock: &LockInfo,
) -> Result<(), Failure> {
    unlock_after(session, lock, "ROLLBACK; ")
}

fn unlock_after<S: Session>(session: &mut S, lock: &LockInfo, before: &str) -> Result<(), Failure> {
    if S::ANSWERS == Answers::Errors {
        return session.send(&format!("{before}{}", sql::unlock_by_errors(lock)));
    }
    let lines = session.query(&[before, &sql::unlock_by_rows(lock)].concat())?;
    match lines.first().map(String::as_str) {
        Some("t") => Ok(()),
        Some(_) => Err(Failure::Refused(Answer::NotHeld)),
        None => Err(Failure::Refused(Answer::InTransaction)),
    }
}
