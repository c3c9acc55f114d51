//! Acquiring and releasing locks on keys.
//!
//! A statement does all its work in its WHERE clause, and returns a row only if it did not do it.
//! PostgreSQL looks for interrupts before it asks a plan for a row, and after each row: once the work
//! is done, a statement without rows can no longer be cancelled. So a statement that fails has taken
//! no lock for the session, and released none, and can be sent again.
//!
//! Every section pays for these statements, and their length counts: the server takes longer to parse
//! and plan them than to lock. So they do not say why they refuse; [`why_not`] and
//! [`why_not_released`] ask.

use super::conditions::{Conditions, all_released, is_timed};
use super::{advisory_rows, carry, in_savepoint, named, raise};
use crate::failure::Replies;
use crate::process;
use crate::request::{LockInfo, Mode, WaitTime};

/// Only in a message's implicit transaction does the transaction start with the statement: so this
/// detects a raw BEGIN, which no driver knows of (simple query protocol only). It needs a clock that
/// moves between two messages of a session: by a microsecond, as on Linux, the BSDs and macOS.
pub(super) const IDLE: &str = "now() = statement_timestamp()";

/// A standby grants keys that its primary has granted to others.
const ON_PRIMARY: &str = "NOT pg_is_in_recovery()";

/// CockroachDB speaks the protocol and grants an advisory lock to everybody who asks.
const ON_POSTGRES: &str = "current_setting('crdb_version', true) IS NULL";

/// Above READ COMMITTED all later statements keep the snapshot of the statement that waits for the
/// lock.
pub(super) const FRESH_SNAPSHOT: &str = "current_setting('transaction_isolation') LIKE 'read %'";

pub(super) const IN_RECOVERY: &str = "WHEN pg_is_in_recovery() THEN 'in recovery'";
pub(super) const OPEN_TRANSACTION: &str =
    "WHEN now() <> statement_timestamp() THEN 'in transaction'";
pub(super) const STALE_SNAPSHOT: &str =
    "WHEN current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale snapshot'";
pub(super) const NOT_POSTGRES: &str =
    "WHEN current_setting('crdb_version', true) IS NOT NULL THEN 'not postgres'";

/// The answer of a statement that does not say why.
pub(super) const REFUSED: &str = "'refused'";

/// How a session is known to be this process's alone: see [`acquire_for_session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// It bears this process's number, or none and then gets it.
    Own,
    /// It bears another's: the statement looks at what the session holds.
    Other,
}

/// Acquires a session lock, and does nothing in an open transaction or on a standby.
///
/// It waits for a lock of the transaction, which here is the message. Only when that is granted, and no
/// timeout fired in the same instant, it takes the lock for the session too. So a `lock_timeout` leaves
/// nothing behind.
///
/// Behind a pooler two processes can share one server session, and the server grants a session again
/// what it holds. So each process leaves its number in a setting of the session, and does not lock
/// where it finds another's.
pub(crate) fn acquire_for_session(
    lock: &LockInfo,
    time: WaitTime,
    client: Client,
    replies: Replies,
) -> String {
    let allowed = allowed_for_session(lock, client);
    let mut for_message = Conditions::new();
    for_message.and(&[&allowed]);
    let mut for_session = Conditions::new();
    let why = if time == WaitTime::No {
        for_message.tries("_xact", lock);
        for_session.tries("", lock);
        format!("CASE WHEN {allowed} THEN 'busy' ELSE {REFUSED} END")
    } else {
        for_message.waits(lock, time);
        for_session.for_session(lock);
        REFUSED.to_owned()
    };
    match replies {
        Replies::Rows => {
            for_message.and(&[&for_session.text]);
            answer(&for_message, &why, replies)
        }
        // A block looks for interrupts at its end, so it takes nothing for the session.
        Replies::Errors => [carry(&for_message, &why), raise(&for_session, REFUSED)].join("; "),
    }
}

/// Whether a lock may be taken for the session.
pub(super) fn allowed_for_session(lock: &LockInfo, client: Client) -> String {
    let mut allowed = Conditions::new();
    allowed.and(&[IDLE]);
    allowed.and(&[ON_PRIMARY]);
    allowed.and(&[&match client {
        Client::Own => bears_own(),
        Client::Other => may_bear(lock),
    }]);
    allowed.text
}

/// Whether the session bears this process's number, or none and is PostgreSQL's: then it gets the
/// number. One comparison, since a CASE takes the server longer to plan; never NULL, at which AND would
/// go on to the locks.
fn bears_own() -> String {
    let me = process::word();
    format!(
        "coalesce(nullif(current_setting('pglock.client', true), ''), \
         current_setting('crdb_version', true), '{me}') = '{me}' AND {}",
        bear(me)
    )
}

fn bear(number: &str) -> String {
    format!("set_config('pglock.client', '{number}', false) IS NOT NULL")
}

/// Whether the session may bear this process's number: it bears none, or that of a process which holds
/// nothing on it. If that one holds other keys, the session is nobody's from now on, and each acquire
/// looks.
fn may_bear(lock: &LockInfo) -> String {
    let held = |keys| {
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND {})",
            advisory_rows(keys)
        )
    };
    format!(
        "CASE WHEN NOT ({ON_POSTGRES}) THEN false \
         WHEN coalesce(current_setting('pglock.client', true), '') IN ('', '{me}') THEN {mine} \
         WHEN {key} THEN false WHEN {any} THEN {nobodys} ELSE {mine} END",
        me = process::word(),
        mine = bear(process::word()),
        key = held(lock.keys()),
        any = held(&[]),
        nobodys = bear("several"),
    )
}

/// Releases a session lock, unless a transaction is open: others would get the lock before its COMMIT.
pub(crate) fn release(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    conditions.and(&[IDLE]);
    conditions.and(&[&all_released(lock)]);
    answer(&conditions, REFUSED, replies)
}

/// Why a lock of the session's is not given up: a transaction is open, or the lock is not held.
pub(super) fn why_not_held() -> String {
    format!("CASE {OPEN_TRANSACTION} ELSE 'not held' END")
}

/// Rolls back whatever is open, aborted or not, then releases.
pub(crate) fn roll_back_and_release(lock: &LockInfo, replies: Replies) -> String {
    format!("ROLLBACK; {}", release(lock, replies))
}

/// Makes an exclusive session lock shared, or a shared one exclusive, unless a transaction is open.
///
/// Releasing what is not held is a warning, and a cancel can hit there. So the message first takes the
/// lock for itself, then releases each key of the session's and takes it again, which changes nothing:
/// after that nothing can fail. To make a shared lock exclusive, the message then waits as `time` says.
/// Last, each key of the session's changes its mode, without a wait, since the message holds it: the
/// server lets a holder past the waiters.
pub(crate) fn change_mode(lock: &LockInfo, time: WaitTime, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    conditions.and(&[IDLE]);
    conditions.tries("_xact", lock);
    conditions.regrips(lock);
    let changed = match lock.mode() {
        Mode::Exclusive => lock.clone().with_mode(Mode::Shared),
        Mode::Shared => {
            let exclusive = lock.clone().with_mode(Mode::Exclusive);
            conditions.waits(&exclusive, time);
            exclusive
        }
    };
    conditions.exchanges(lock, &changed);
    let why = why_not_held();
    // Not in a block, at whose end a cancel can hit: a driver without an SQLSTATE knows a timeout by
    // the server's text.
    answer(&conditions, &why, replies)
}

/// Gives the lock to whoever waits for it at the server, and takes it back if nobody does. It says
/// whether the lock was held, and does nothing in an open transaction.
///
/// A release grants the lock to the first waiter before it returns. Of several keys, the session takes
/// none until the message has all.
#[cfg(feature = "r2d2")]
pub(crate) fn give_way(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    conditions.and(&[IDLE]);
    conditions.and(&[
        "CASE WHEN ",
        &all_released(lock),
        " THEN set_config('pglock.gave_way', 'yes', true) IS NOT NULL ELSE false END",
    ]);
    conditions.tries("_xact", lock);
    conditions.tries("", lock);
    let why = format!(
        "CASE {OPEN_TRANSACTION} \
         WHEN current_setting('pglock.gave_way', true) = 'yes' THEN 'busy' ELSE 'not held' END"
    );
    answer(&conditions, &why, replies)
}

/// Acquires a lock for the caller's transaction, which stays usable whatever happens: behind a
/// savepoint, which [`super::undo`] must leave after a failure.
///
/// A refusal comes as an error, so that nothing of several keys stays held.
pub(crate) fn acquire_in_transaction(lock: &LockInfo, time: WaitTime, replies: Replies) -> String {
    let (conditions, why) = for_transaction(lock, time, false);
    in_savepoint(&match replies {
        Replies::Rows => raise(&conditions, &why),
        Replies::Errors => carry(&conditions, &why),
    })
}

/// Acquires a lock for a transaction that pglock opens, in the message of its BEGIN or directly after
/// it, and gives the transaction a name: see [`super::commit`].
///
/// In front of BEGIN it can detect a raw BEGIN of the caller's; the BEGIN then turns the message's
/// implicit transaction into a real one, which keeps its locks and settings. A refusal there is an
/// error on every driver: after a row, the server would execute the BEGIN.
pub(crate) fn acquire_at_begin(
    lock: &LockInfo,
    time: WaitTime,
    name: &str,
    before_begin: bool,
    replies: Replies,
) -> String {
    let (mut conditions, why) = for_transaction(lock, time, before_begin);
    conditions.and(&[&named(name), " IS NOT NULL"]);
    match replies {
        Replies::Rows if before_begin => raise(&conditions, &why),
        _ => unless(&conditions, &why, replies),
    }
}

/// What acquires a lock for the transaction, and the reason if it does not.
pub(super) fn for_transaction(lock: &LockInfo, time: WaitTime, idle: bool) -> (Conditions, String) {
    let mut allowed = Conditions::new();
    if idle {
        allowed.and(&[IDLE]);
    }
    for condition in [ON_PRIMARY, ON_POSTGRES, FRESH_SNAPSHOT] {
        allowed.and(&[condition]);
    }
    let mut conditions = Conditions::new();
    conditions.and(&[&allowed.text]);
    if time == WaitTime::No {
        conditions.tries("_xact", lock);
        let busy = format!("CASE WHEN {} THEN 'busy' ELSE {REFUSED} END", allowed.text);
        return (conditions, busy);
    }
    let mut waits = Conditions::new();
    waits.waits(lock, time);
    match is_timed(time) {
        true => conditions.puts_timeout_back(&waits),
        false => conditions.and(&[&waits.text]),
    }
    (conditions, REFUSED.to_owned())
}

/// A row with the reason if the conditions do not hold, or an error that carries the reason, or the
/// SQLSTATE of any other error.
pub(super) fn unless(conditions: &Conditions, why: &str, replies: Replies) -> String {
    match replies {
        Replies::Rows => answer(conditions, why, replies),
        Replies::Errors => carry(conditions, why),
    }
}

/// The same, where an SQLSTATE is of no use.
pub(super) fn answer(conditions: &Conditions, why: &str, replies: Replies) -> String {
    match replies {
        Replies::Rows => [
            "SELECT ",
            why,
            " WHERE (",
            &conditions.text,
            ") IS NOT TRUE",
        ]
        .concat(),
        Replies::Errors => raise(conditions, why),
    }
}
