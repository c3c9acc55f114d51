//! Every statement that pglock sends, and why it has its form. All of them go through the simple
//! query protocol: one message is one round trip, however many statements it has, and outside a
//! transaction one implicit transaction.
//!
//! A statement asks for something and its *answer* is a text: empty for yes, else one of the words
//! of [`Answer`]. The functions that lock never stand in a query with a FROM clause (the planner
//! may call them more than once, or for rows that a filter drops). Nothing but numbers comes into SQL
//! from a key; the names and values of rows and tables are quoted in `targets`.

use std::fmt::Write as _;

use crate::answer::{Answers, MARK};
use crate::key::Key;
use crate::request::{LockInfo, Mode, Wait};

mod session;
mod steps;
mod targets;
mod versions;

use self::steps::{Steps, in_order};
pub(crate) use session::{REFUSAL, lock_by_errors, lock_by_rows, unlock_by_errors, unlock_by_rows};
pub(crate) use targets::PICKED;
pub(crate) use versions::trigger;
#[cfg(feature = "postgres")]
pub(crate) use versions::{delete, update, version};

/// A transaction lock inside the caller's transaction, which stays usable whatever happens: behind
/// a savepoint.
///
/// An answer comes as an error here, so that nothing of several keys stays held; [`UNDO`] must
/// follow a failure.
pub(crate) fn acquire_in_transaction(lock: &LockInfo, wait: Wait, answers: Answers) -> String {
    if let Some(statement) = targets::acquire(lock, wait, answers, "") {
        return in_savepoint(&statement);
    }
    let asked = format!(
        "CASE {IN_RECOVERY} {STALE_SNAPSHOT} ELSE {} END",
        transaction_lock(lock, wait)
    );
    let statement = match answers {
        Answers::Rows => raise(&asked),
        Answers::Errors => carry(&asked, answers),
    };
    in_savepoint(&statement)
}

/// A transaction lock in a transaction that pglock opens: directly after its BEGIN, or before it in
/// the same message.
///
/// BEGIN turns the message's implicit transaction into a real one and keeps its locks. A
/// transaction that has written already is the caller's own, by a raw BEGIN of which the driver
/// does not know: it would be committed with ours.
pub(crate) fn acquire_at_begin(lock: &LockInfo, wait: Wait, answers: Answers) -> String {
    if let Some(statement) = targets::acquire(lock, wait, answers, HAS_WRITTEN) {
        return statement;
    }
    let asked = format!(
        "CASE {IN_RECOVERY} {HAS_WRITTEN} {STALE_SNAPSHOT} ELSE {} END",
        transaction_lock(lock, wait)
    );
    carry(&asked, answers)
}

/// Leaves the caller's transaction as it was before a failed statement behind a savepoint, its
/// settings included.
pub(crate) const UNDO: &str = "ROLLBACK TO SAVEPOINT pglock; RELEASE SAVEPOINT pglock";

/// The savepoint around a body, where a driver lets it be named.
#[cfg(feature = "postgres")]
pub(crate) const BODY: &str = "pglock_body";

/// Leaves the caller's transaction as it was before a body behind that savepoint.
#[cfg(feature = "postgres")]
pub(crate) const UNDO_BODY: &str =
    "ROLLBACK TO SAVEPOINT pglock_body; RELEASE SAVEPOINT pglock_body";

/// Gives the lock to whoever waits for it at the server, and takes it back if nobody does. Like
/// [`unlock`] it says whether the lock was held, and does nothing in an open transaction.
///
/// A release grants the lock to the first waiter before it returns. Of several keys, as in
/// [`lock_by_rows`], none is had for the session until all are had for the message.
#[cfg(feature = "r2d2")]
pub(crate) fn give_way(lock: &LockInfo, answers: Answers) -> String {
    ask(
        &format!(
            "CASE {OPEN_TRANSACTION} WHEN NOT {} THEN 'not held' WHEN {} AND {} THEN '' ELSE 'busy' END",
            session::all_unlocked(lock),
            tried(lock, "_xact"),
            tried(lock, "")
        ),
        answers,
    )
}

/// Whether this session holds the lock, for the session or the transaction, as `pg_locks` knows it.
pub(crate) fn held(lock: &LockInfo, answers: Answers) -> String {
    ask(&held_expression(lock), answers)
}

/// The same inside a transaction, which "no" must not abort.
pub(crate) fn held_in_transaction(lock: &LockInfo) -> String {
    in_savepoint(&raise(&held_expression(lock)))
}

/// COMMIT, preceded by a statement that fails where COMMIT would silently roll back (the
/// transaction is aborted), and that tells when the transaction, and the lock with it, has been
/// ended already.
pub(crate) fn commit(answers: Answers) -> String {
    let ended = ask(
        "CASE WHEN now() = statement_timestamp() THEN 'not held' ELSE '' END",
        answers,
    );
    format!("{ended}; COMMIT")
}

/// Ends the session from inside, and with it all that it holds.
pub(crate) const END_SESSION: &str = "ROLLBACK; SELECT pg_terminate_backend(pg_backend_pid())";

/// A standby grants the keys that its primary grants to others.
const IN_RECOVERY: &str = "WHEN pg_is_in_recovery() THEN 'in recovery'";

/// Only in a message's implicit transaction does the transaction start with the statement. This
/// sees a raw BEGIN, of which no driver knows. (Simple query protocol only.)
const OPEN_TRANSACTION: &str = "WHEN now() <> statement_timestamp() THEN 'in transaction'";

const HAS_WRITTEN: &str = "WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN 'in transaction'";

/// Above READ COMMITTED the snapshot of the statement that waits for the lock is the snapshot of
/// all that follow.
const STALE_SNAPSHOT: &str =
    "WHEN current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale snapshot'";

fn transaction_lock(lock: &LockInfo, wait: Wait) -> String {
    match wait {
        Wait::No => format!("CASE WHEN {} THEN '' ELSE 'busy' END", tried(lock, "_xact")),
        Wait::Session | Wait::Millis(_) => waited(lock, wait),
    }
}

/// Waits for the transaction-level locks, and puts `lock_timeout` back as the text that it was:
/// RESET would destroy a value that the caller had set. `left` of a text's beginning is the answer
/// "yes".
fn waited(lock: &LockInfo, wait: Wait) -> String {
    let timed = matches!(wait, Wait::Millis(_));
    let mut steps = Steps::in_array();
    if timed {
        steps.push(&["current_setting('lock_timeout')"]);
    }
    steps.wait(lock, wait);
    let first = in_order(&steps);
    match timed {
        true => format!("left(set_config('lock_timeout', {first}, true), 0)"),
        false => first,
    }
}

fn tried(lock: &LockInfo, level: &str) -> String {
    let mut tries = Steps::new(" AND ");
    tries.calls(&format!("pg_try_advisory{level}_lock"), lock);
    tries.text
}

fn held_expression(lock: &LockInfo) -> String {
    let mode = match lock.mode() {
        Mode::Exclusive => "ExclusiveLock",
        Mode::Shared => "ShareLock",
    };
    format!(
        "CASE WHEN (SELECT count(*) FROM pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND l.mode = '{mode}' \
         AND {}) = {} THEN '' ELSE 'not held' END",
        advisory_rows(lock.keys()),
        lock.keys().len()
    )
}

/// Of `pg_locks l`, the rows of these keys in the current database; of no keys, of all. VALUES,
/// unlike a plain list, takes any number.
pub(crate) fn advisory_rows(keys: &[Key]) -> String {
    let mut rows = "l.locktype = 'advisory' \
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        .to_owned();
    for (i, (classid, objid, objsubid)) in keys.iter().map(Key::pg_locks).enumerate() {
        rows += match i {
            0 => " AND (l.classid, l.objid, l.objsubid) IN (VALUES ",
            _ => ", ",
        };
        let _ = write!(rows, "({classid}, {objid}, {objsubid})");
    }
    if !keys.is_empty() {
        rows.push(')');
    }
    rows
}

pub(crate) fn in_savepoint(statement: &str) -> String {
    format!("SAVEPOINT pglock; {statement}; RELEASE SAVEPOINT pglock")
}

/// A statement that gives its answer in a row where the driver reads rows, as an error where it
/// does not.
fn ask(expression: &str, answers: Answers) -> String {
    match answers {
        Answers::Rows => format!("SELECT {expression}"),
        Answers::Errors => raise(expression),
    }
}

/// Fails with the answer in the error's text, under any `lc_messages`: a number cannot be read from
/// it.
pub(crate) fn raise(expression: &str) -> String {
    format!("SELECT ('{MARK}' || nullif({expression}, ''))::int")
}

/// A statement that answers with an expression's value. A driver without rows has no SQLSTATE
/// either, so there it stands in a block that tells it.
fn carry(expression: &str, answers: Answers) -> String {
    match answers {
        Answers::Rows => format!("SELECT {expression}"),
        Answers::Errors => block("", &unless_yes(expression), CARRIED),
    }
}

/// In a block: answers with an expression's value.
fn unless_yes(expression: &str) -> String {
    format!("answer := {expression}; IF answer <> '' THEN {ANSWER}END IF; ")
}

/// A block, whose `answer` is a variable.
fn block(declarations: &str, body: &str, handler: &str) -> String {
    format!("DO $pglock$ DECLARE answer text; {declarations}BEGIN {body}{handler}END $pglock$")
}

/// Fails with the answer as the error's text.
const ANSWER: &str = "RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = 'pglock:' || answer; ";

/// Catches every error in a block but our own, and puts its SQLSTATE into the text. OTHERS alone
/// would not catch a cancel.
///
/// PL/pgSQL looks for interrupts at the beginning of a statement: a block has one after whatever
/// can wait, so that a timeout in the instant of the grant is seen while the handler is in force.
const CARRIED: &str = "EXCEPTION WHEN SQLSTATE 'PL000' THEN RAISE; \
    WHEN OTHERS OR query_canceled THEN RAISE EXCEPTION 'pglock:% %', SQLSTATE, SQLERRM; ";

#[cfg(test)]
mod tests;
