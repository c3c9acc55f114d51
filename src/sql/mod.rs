//! Every statement that pglock sends, and why it has its form. All of them go through the simple
//! query protocol: one message is one round trip, however many statements it holds, and outside a
//! transaction it is one implicit transaction.
//!
//! A statement does its work, or says why not, in one of the words of [`Refusal`]. Functions that lock
//! never stand in a query with a FROM clause: the planner may call them more than once, or for rows that
//! are filtered out. A key puts nothing but numbers into SQL; the names and values of rows and tables
//! are quoted.
//!
//! Functions are called by their plain names where the arguments have exactly their types: then no schema
//! behind `pg_catalog` in the `search_path` can replace them. Elsewhere `pg_catalog.` stands in front.
//! In front of all of them it would cost the server 5 % of an acquire and a release.
//!
//! [`Refusal`]: crate::failure::Refusal

use std::fmt::Write as _;

use crate::failure::mark;
use crate::key::Key;
use crate::targets::{LockInfo, Mode};

mod conditions;
pub(crate) mod election;
mod inspect;
mod keys;
mod label;
pub(crate) mod lease;
mod line;
mod literal;
mod one_message;
mod ours;
mod questions;
pub(crate) mod semaphore;
mod statement;
mod targets;
mod time;
mod transactions;
mod versions;

use self::keys::IDLE;
#[cfg(feature = "r2d2")]
pub(crate) use self::questions::DATABASE;
pub(crate) use inspect::{claims_in_the_way, claims_of, signal};
#[cfg(feature = "r2d2")]
pub(crate) use keys::give_way;
pub(crate) use keys::{Client, Line, acquire_for_session, change_mode, held_by_session, release};
#[cfg(feature = "diesel")]
pub(crate) use label::LABEL;
pub(crate) use label::{label, label_of_holder};
pub(crate) use line::{KEEP, OUTCOME, PLACE, Wait};
pub use literal::quote_literal;
pub(crate) use one_message::{Message, idle, may_copy, may_end_transaction};
pub(crate) use ours::was_committed;
pub(crate) use questions::{Situation, all_slots_wait_for_us, held, held_in_any_mode};
#[cfg(feature = "diesel")]
pub(crate) use statement::ANOTHER;
pub(crate) use statement::{PREPARE_ONCE, name, prepare_once};
pub use statement::{Parameter, Statement};
pub(crate) use targets::PICKED;
pub(crate) use targets::acquire as acquire_target;
pub(crate) use time::{WaitTime, millis};
pub(crate) use transactions::{Inside, Named, acquire_in_transaction};
pub(crate) use versions::trigger;
#[cfg(feature = "postgres")]
pub(crate) use versions::{delete, update, version};

/// Keeps a `default_transaction_deferrable` from waiting for a safe snapshot, which no `lock_timeout`
/// bounds. It goes in front of all that a bounded wait sends outside a transaction.
///
/// In a transaction that has run a query it fails, with SQLSTATE 25001: that one is the caller's, by a
/// raw BEGIN, and would be committed with one of ours. (It does not see a raw BEGIN alone.)
pub(crate) const FIRST: &str = "SET TRANSACTION NOT DEFERRABLE; ";

/// COMMIT, preceded by a statement that fails where COMMIT would silently roll back (the
/// transaction is aborted), and where the transaction is not ours: the body has ended ours, and the
/// lock with it, and perhaps begun another.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    /// Looks for the name alone, and is [`prepared`](crate::prepared).
    pub(crate) check: Statement,
    /// The same as text, with the COMMIT. Without a name it looks for the lock on its hash.
    pub(crate) text: String,
}

/// Of the transaction with this name.
pub(crate) fn commit(name: &str) -> Commit {
    let ours = ours::still_ours(ours::TRANSACTION, name);
    Commit {
        check: ours::bears(name).raising(),
        text: format!("{ours}; COMMIT"),
    }
}

/// Stands in front of a check that the session may not have any more, so that the transaction outlives that.
/// Nothing is written behind it, so the server gives it no transaction number of its own.
pub(crate) const BEFORE_COMMIT: &str = "SAVEPOINT pglock_before_commit; ";

/// Goes back to [`BEFORE_COMMIT`].
pub(crate) const NOT_YET: &str = "ROLLBACK TO SAVEPOINT pglock_before_commit; ";

/// Stands in front of an acquire in the caller's transaction. The name is the same everywhere, for
/// `pg_stat_statements` would have each of them. None of the caller's may have it: in a transaction that was
/// aborted before, [`UNDO`] would go back to that.
pub(crate) const SAVEPOINT: &str = "SAVEPOINT pglock_before_lock; ";

/// Ends [`SAVEPOINT`].
pub(crate) const RELEASE: &str = "RELEASE SAVEPOINT pglock_before_lock";

/// Leaves the caller's transaction as it was before a failed statement behind a savepoint, its
/// settings included.
pub(crate) const UNDO: &str =
    "ROLLBACK TO SAVEPOINT pglock_before_lock; RELEASE SAVEPOINT pglock_before_lock; ";

/// The savepoint around a body, where a driver allows a name: one for each depth. After a rollback to it a
/// driver leaves it open, and the next of that name must not hide those around it.
#[cfg(feature = "postgres")]
pub(crate) fn body_savepoint(depth: u32) -> String {
    format!("pglock_body_{depth}")
}

/// Leaves the caller's transaction as it was before a body behind that savepoint.
#[cfg(feature = "postgres")]
pub(crate) fn undo_body(depth: u32) -> String {
    let savepoint = body_savepoint(depth);
    format!("ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}")
}

/// Ends the session from inside, and with it all that it holds. The locks go first, in case the session
/// may not end itself: only its own role may, not one that it has changed to.
pub(crate) const END_SESSION: &str = "ROLLBACK; SELECT pg_advisory_unlock_all(); \
    RESET SESSION AUTHORIZATION; SET ROLE NONE; SELECT pg_catalog.pg_terminate_backend(pg_backend_pid())";

/// Makes the server end the session, which needs no privilege.
pub(crate) const LET_SESSION_END: &str =
    "ROLLBACK; SET idle_in_transaction_session_timeout = 1; BEGIN";

/// Of `pg_locks l`, the rows of these keys in the current database; of no keys, of all.
pub(crate) fn advisory_rows(keys: &[Key]) -> String {
    let mut rows = "l.locktype = 'advisory' \
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
        .to_owned();
    if !keys.is_empty() {
        rows += " AND ";
        rows += &is_among(keys);
    }
    rows
}

/// A call of a lock function.
pub(crate) fn call(function: &str, key: &Key) -> String {
    format!("pg_catalog.{function}({})", key.arguments())
}

/// Whether a row of `pg_locks l` is of one of these keys: in arrays, whose number does not change the text.
fn is_among(keys: &[Key]) -> String {
    let (mut classes, mut objects, mut kinds) = (String::new(), String::new(), String::new());
    for (i, (class, object, kind)) in keys.iter().map(Key::pg_locks).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(classes, "{comma}{class}");
        let _ = write!(objects, "{comma}{object}");
        let _ = write!(kinds, "{comma}{kind}");
    }
    let array = |numbers: &str, of: &str| format!("pg_catalog.unnest('{{{numbers}}}'::{of}[])");
    format!(
        "(l.classid, l.objid, l.objsubid) IN (SELECT * FROM ROWS FROM ({}, {}, {}))",
        array(&classes, "oid"),
        array(&objects, "oid"),
        array(&kinds, "smallint"),
    )
}

/// Whether a row of `pg_locks l`, of a key of the lock's, is in its way.
fn is_in_the_way(lock: &LockInfo) -> String {
    let exclusive = lock.keys_in(Mode::Exclusive);
    if exclusive.len() == lock.keys().len() {
        return "true".to_owned();
    }
    match exclusive.as_slice() {
        [] => "l.mode = 'ExclusiveLock'".to_owned(),
        keys => format!("(l.mode = 'ExclusiveLock' OR {})", is_among(keys)),
    }
}

/// Fails with the reason in the error's text, under any `lc_messages`, if the condition does not hold:
/// a number cannot be read from it. `concat` is not folded when the statement is planned.
fn raise(condition: &str, why: &str) -> String {
    [
        "SELECT pg_catalog.concat('",
        &mark(),
        "', ",
        why,
        ")::int WHERE (",
        condition,
        ") IS NOT TRUE",
    ]
    .concat()
}

fn block(declarations: &str, body: &str, handler: &str) -> String {
    format!("DO $pglock$ {declarations}BEGIN {body}{handler}END $pglock$")
}

/// Catches every error in a block but our own, and puts its SQLSTATE into the text. OTHERS alone
/// would not catch a cancel.
fn carried() -> String {
    let mark = mark();
    format!(
        "EXCEPTION WHEN SQLSTATE 'PL000' THEN RAISE; \
         WHEN OTHERS OR query_canceled THEN RAISE EXCEPTION '{mark}% %', SQLSTATE, SQLERRM; "
    )
}

#[cfg(test)]
mod tests;
