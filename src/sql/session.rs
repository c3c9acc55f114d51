//! Taking and releasing a session lock outside a transaction: what a lock costs, and the only
//! statements whose length counts. Where a driver reads rows they have no CASE and no text: no row
//! says that it was not done.

use super::steps::{Steps, in_order};
use super::{ANSWER, CARRIED, IN_RECOVERY, OPEN_TRANSACTION, block, raise, tried, unless_yes};
use crate::request::{LockInfo, Wait};

/// The opposite of [`OPEN_TRANSACTION`].
const IDLE: &str = "now() = statement_timestamp()";

/// When a lock can be taken, and why it was not.
const ALLOWED: &str = "now() = statement_timestamp() AND NOT pg_is_in_recovery()";
const WHY_NOT: &str = "CASE WHEN pg_is_in_recovery() THEN 'in recovery' ELSE 'in transaction' END";

/// What says why a lock was not taken.
pub(crate) const REFUSAL: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN 'in recovery' ELSE 'in transaction' END";

/// Takes a session lock, and nothing in an open transaction or on a standby: one row says that it
/// was taken.
///
/// Waiting happens for the transaction, which here is the message; only then, and only if no
/// timeout fired in the instant of the grant, the lock, had already, is taken for the session. A
/// `lock_timeout` thus leaves nothing behind.
pub(crate) fn lock_by_rows(lock: &LockInfo, wait: Wait) -> String {
    let taken = match wait {
        Wait::No => tried_at_once(lock),
        Wait::Session | Wait::Millis(_) => waited_and_locked(lock, wait),
    };
    ["SELECT ", &taken, " WHERE ", ALLOWED].concat()
}

/// The same for a driver without rows.
pub(crate) fn lock_by_errors(lock: &LockInfo, wait: Wait) -> String {
    let taken = match wait {
        Wait::No => unless_yes(&format!(
            "CASE {IN_RECOVERY} {OPEN_TRANSACTION} WHEN {} THEN '' ELSE 'busy' END",
            tried_at_once(lock)
        )),
        Wait::Session | Wait::Millis(_) => format!(
            "PERFORM {} WHERE {ALLOWED}; IF NOT FOUND THEN answer := {WHY_NOT}; {ANSWER}END IF; ",
            waited_and_locked(lock, wait)
        ),
    };
    block("", &taken, CARRIED)
}

/// For the message and for the session: if one of several keys is not had, none is.
fn tried_at_once(lock: &LockInfo) -> String {
    format!("{} AND {}", tried(lock, "_xact"), tried(lock, ""))
}

fn waited_and_locked(lock: &LockInfo, wait: Wait) -> String {
    let fill = |mut steps: Steps| {
        steps.wait(lock, wait);
        steps.calls("pg_advisory_lock", lock);
        steps
    };
    match lock.keys() {
        [_] => fill(Steps::new(", ")).text, // a select list is evaluated in order, too, and is cheaper
        _ => in_order(&fill(Steps::in_array())),
    }
}

/// Releases a session lock, and says whether it was held. In an open transaction it does nothing,
/// and gives no row: the lock would be gone before the COMMIT.
pub(crate) fn unlock_by_rows(lock: &LockInfo) -> String {
    ["SELECT ", &all_unlocked(lock), " WHERE ", IDLE].concat()
}

/// The same for a driver without rows.
pub(crate) fn unlock_by_errors(lock: &LockInfo) -> String {
    raise(&format!(
        "CASE {OPEN_TRANSACTION} WHEN {} THEN '' ELSE 'not held' END",
        all_unlocked(lock)
    ))
}

/// True if each of them was held. `least`, unlike AND, releases all of them in any case.
pub(super) fn all_unlocked(lock: &LockInfo) -> String {
    let mut calls = Steps::new(", ");
    calls.calls("pg_advisory_unlock", lock);
    ["least(", &calls.text, ")"].concat()
}
