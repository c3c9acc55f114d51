//! Taking and releasing a session lock outside a transaction: what a lock costs, and the only
//! statements whose length counts. Where a driver reads rows they have no CASE and no text: no row
//! says that it was not done.

use std::fmt::Write as _;

use super::{IN_RECOVERY, OPEN_TRANSACTION, all_locked, carry, raise, suffix, tried, waited};
use crate::backends::{Answers, Failure, Session, Standing};
use crate::request::{LockInfo, Wait};
use crate::sql::Answer;

/// Takes a session lock, and nothing in an open transaction or on a standby.
///
/// Waiting happens for the transaction, which here is the message; only then the lock, had already,
/// is taken for the session by a statement of its own. A `lock_timeout` that fires in the instant
/// of the grant thus leaves nothing behind. A try does not wait, and does both in one statement.
///
/// A session that holds the lock and is overdue lets go of it before, in the same message: between
/// two, sessions that come later could be first again and again. That it was held needs no look; if
/// it was not, nothing is left to do.
pub(crate) fn lock<S: Session>(
    session: &mut S,
    lock: &LockInfo,
    wait: Wait,
    standing: Standing,
) -> Result<(), Failure> {
    let again = standing == Standing::Overdue;
    if S::ANSWERS == Answers::Errors {
        return session.send(&lock_by_errors(lock, wait, again));
    }
    let lines = session.query(&lock_by_rows(lock, wait, again))?;
    let rows = if wait == Wait::No { 1 } else { 2 } + usize::from(again);
    match lines.last().map(String::as_str) {
        Some("f") => Err(Failure::Refused(Answer::Busy)),
        Some(_) if lines.len() == rows => Ok(()),
        _ => {
            session.send(&format!(
                "SELECT CASE {IN_RECOVERY} ELSE 'in transaction' END"
            ))?;
            Err(Failure::Refused(Answer::InTransaction))
        }
    }
}

/// Releases a session lock, and says whether it was held. In an open transaction it does nothing
/// and says so: the lock would be gone before the COMMIT.
pub(crate) fn unlock<S: Session>(session: &mut S, lock: &LockInfo) -> Result<(), Failure> {
    unlock_after(session, lock, "")
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
        let asked = format!(
            "CASE {OPEN_TRANSACTION} WHEN {} THEN '' ELSE 'not held' END",
            all_unlocked(lock)
        );
        return session.send(&format!("{before}{}", raise(&asked)));
    }
    let lines = session.query(&format!(
        "{before}SELECT {} WHERE {IDLE}",
        all_unlocked(lock)
    ))?;
    match lines.first().map(String::as_str) {
        Some("t") => Ok(()),
        Some(_) => Err(Failure::Refused(Answer::NotHeld)),
        None => Err(Failure::Refused(Answer::InTransaction)),
    }
}

/// The opposite of [`OPEN_TRANSACTION`].
const IDLE: &str = "now() = statement_timestamp()";

/// On a standby the first statement may wait in vain, but the second holds nothing.
pub(super) fn lock_by_rows(lock: &LockInfo, wait: Wait, again: bool) -> String {
    let s = suffix(lock);
    let mut sql = String::with_capacity(256);
    if again {
        let _ = write!(sql, "SELECT {} WHERE {IDLE}; ", all_unlocked(lock));
    }
    let _ = match (wait, lock.keys()) {
        (Wait::No, _) => write!(
            sql,
            "SELECT {} AND {}",
            tried(lock, "_xact"),
            tried(lock, "")
        ),
        (_, [key]) => {
            let key = key.arguments();
            sql += "SELECT ";
            if let Wait::Millis(millis) = wait {
                // A select list is evaluated in order. After the message it is what it was.
                let _ = write!(sql, "set_config('lock_timeout', '{millis}', true), ");
            }
            write!(
                sql,
                "pg_advisory_xact_lock{s}({key}) WHERE {IDLE}; SELECT pg_advisory_lock{s}({key})"
            )
        }
        (_, _) => write!(
            sql,
            "SELECT {} WHERE {IDLE}; SELECT {}",
            waited(lock, wait),
            all_locked(lock, "")
        ),
    };
    let _ = write!(sql, " WHERE {IDLE} AND NOT pg_is_in_recovery()");
    sql
}

pub(super) fn lock_by_errors(lock: &LockInfo, wait: Wait, again: bool) -> String {
    let guarded = |then: &str| format!("CASE {IN_RECOVERY} {OPEN_TRANSACTION} ELSE {then} END");
    let mut steps = match wait {
        Wait::No => vec![guarded(&format!(
            "CASE WHEN {} AND {} THEN '' ELSE 'busy' END",
            tried(lock, "_xact"),
            tried(lock, "")
        ))],
        Wait::Session | Wait::Millis(_) => {
            vec![guarded(&waited(lock, wait)), guarded(&all_locked(lock, ""))]
        }
    };
    if again {
        steps.insert(0, format!("left({}::text, 0)", all_unlocked(lock)));
    }
    carry(&steps, Answers::Errors)
}

/// True if each of them was held. `least`, unlike AND, releases all of them in any case.
pub(super) fn all_unlocked(lock: &LockInfo) -> String {
    let s = suffix(lock);
    let mut sql = String::with_capacity(64);
    for key in lock.keys() {
        sql += if sql.is_empty() { "least(" } else { ", " };
        let _ = write!(sql, "pg_advisory_unlock{s}({})", key.arguments());
    }
    sql + ")"
}
