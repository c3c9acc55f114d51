//! Acquiring and releasing locks on keys.
//!
//! All that a statement does stands in its WHERE clause, and a row says that it was not done.
//! PostgreSQL looks for interrupts before it asks a plan for a row, and after the last one: what has
//! no row has no end that could still be cancelled. So a statement that fails has taken no lock for
//! the session, and released none, and can be sent again.
//!
//! These are the statements that a lock costs, and their length counts: parsing and planning takes
//! the server longer than the lock. So they do not say why they refuse, which [`why_not`] asks.

use super::conditions::{Conditions, all_released, is_timed, setting_millis};
use super::{advisory_rows, carry, first, in_savepoint, named, raise};
use crate::failure::Replies;
use crate::process;
use crate::request::{LockInfo, Mode, WaitTime};

/// Only in a message's implicit transaction does the transaction start with the statement: this sees
/// a raw BEGIN, of which no driver knows (simple query protocol only). It needs a clock that moves
/// between two messages of a session: to the microsecond, as on Linux, the BSDs and macOS.
pub(super) const IDLE: &str = "now() = statement_timestamp()";

/// A standby grants the keys that its primary grants to others.
const ON_PRIMARY: &str = "NOT pg_is_in_recovery()";

/// CockroachDB speaks the protocol and grants an advisory lock to everybody who asks.
const ON_POSTGRES: &str = "current_setting('crdb_version', true) IS NULL";

/// Above READ COMMITTED the snapshot of the statement that waits for the lock is the snapshot of
/// all that follow.
const FRESH_SNAPSHOT: &str = "current_setting('transaction_isolation') LIKE 'read %'";

pub(super) const IN_RECOVERY: &str = "WHEN pg_is_in_recovery() THEN 'in recovery'";
pub(super) const OPEN_TRANSACTION: &str =
    "WHEN now() <> statement_timestamp() THEN 'in transaction'";
pub(super) const STALE_SNAPSHOT: &str =
    "WHEN current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale snapshot'";
const NOT_POSTGRES: &str =
    "WHEN current_setting('crdb_version', true) IS NOT NULL THEN 'not postgres'";

/// The answer of a statement that does not say why.
const REFUSED: &str = "'refused'";

/// How a session is known to be this process's alone: see [`acquire_for_session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// It bears this process's number, or none: then it gets it.
    Own,
    /// It bears another: what the session holds must be looked at.
    Other,
}

/// Acquires a session lock, and does nothing in an open transaction or on a standby.
///
/// Waiting happens for the transaction, which here is the message; only then, and only if no timeout
/// fired in the instant of the grant, the lock, held already, is taken for the session. A
/// `lock_timeout` thus leaves nothing behind.
///
/// Behind a pooler two processes can have one server session, to which a lock that it holds is
/// granted again. So each process leaves its number in a setting of the session, and does not lock
/// where it finds another's.
pub(crate) fn acquire_for_session(
    lock: &LockInfo,
    time: WaitTime,
    client: Client,
    replies: Replies,
) -> String {
    let mut allowed = Conditions::new();
    allowed.and(&[IDLE]);
    allowed.and(&[ON_PRIMARY]);
    allowed.and(&[&match client {
        Client::Own => bears_own(),
        Client::Other => may_bear(lock),
    }]);
    let mut for_message = Conditions::new();
    for_message.and(&[&allowed.text]);
    let mut for_session = Conditions::new();
    let why = if time == WaitTime::No {
        for_message.tries("_xact", lock);
        for_session.tries("", lock);
        format!("CASE WHEN {} THEN 'busy' ELSE {REFUSED} END", allowed.text)
    } else {
        for_message.waits(lock, time);
        for_session.for_session(lock);
        REFUSED.to_owned()
    };
    let acquire = match replies {
        Replies::Rows => {
            for_message.and(&[&for_session.text]);
            answer(&for_message, &why, replies)
        }
        // A block looks for interrupts at its end, so it takes nothing for the session.
        Replies::Errors => [carry(&for_message, &why), raise(&for_session, REFUSED)].join("; "),
    };
    [first(time.is_bounded()), &acquire].concat()
}

/// Whether the session bears this process's number, or none and is PostgreSQL's: then it gets it. As
/// one comparison, for a CASE would take the server longer to plan; never NULL, for AND would go on to
/// the locks.
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

/// Whether the session may bear this process's number: it bears none, or another's that holds nothing
/// on it. If the other holds other keys, the session is nobody's from now on, and each acquire looks.
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

/// Why a lock is not to be had here, or, where nothing is in the way, that the session is not known.
pub(crate) fn why_not(for_session: bool) -> String {
    match for_session {
        true => format!(
            "SELECT CASE {IN_RECOVERY} {NOT_POSTGRES} {OPEN_TRANSACTION} \
             WHEN current_setting('pglock.client', true) = '{}' THEN 'refused' ELSE 'shared session' END AS line",
            process::word()
        ),
        false => format!(
            "SELECT CASE {IN_RECOVERY} {NOT_POSTGRES} {STALE_SNAPSHOT} ELSE 'in transaction' END AS line"
        ),
    }
}

/// Releases a session lock, unless a transaction is open: the lock would be gone before the COMMIT.
pub(crate) fn release(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    conditions.and(&[IDLE]);
    conditions.and(&[&all_released(lock)]);
    let why = format!("CASE {OPEN_TRANSACTION} ELSE 'not held' END");
    answer(&conditions, &why, replies)
}

/// Rolls back whatever is open, aborted or not, then releases.
pub(crate) fn roll_back_and_release(lock: &LockInfo, replies: Replies) -> String {
    format!("ROLLBACK; {}", release(lock, replies))
}

/// Makes an exclusive session lock shared, or a shared one exclusive, unless a transaction is open.
///
/// A release of what is not held is a warning, at which a cancel can hit. So the message first takes
/// the lock too, lets go of each key and takes it again, which changes nothing: what follows cannot
/// fail. A shared lock is then waited for as `time` says. Last, each key of the session's changes its
/// mode, and waits for nobody, since the message has it exclusively; the server lets a holder past
/// those who wait for it.
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
    let why = format!("CASE {OPEN_TRANSACTION} ELSE 'not held' END");
    // Not in a block, at whose end a cancel can hit: of a timeout, a driver without an SQLSTATE has
    // the server's text.
    answer(&conditions, &why, replies)
}

/// Gives the lock to whoever waits for it at the server, and takes it back if nobody does. Like
/// [`release`] it says whether the lock was held, and does nothing in an open transaction.
///
/// A release grants the lock to the first waiter before it returns. Of several keys none is taken for
/// the session until all are for the message.
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
/// In front of BEGIN, which turns the message's implicit transaction into a real one and keeps its
/// locks and settings, a raw BEGIN of the caller's shows. A refusal there is an error on every driver:
/// after a row, the BEGIN would be executed.
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

/// Whether this session holds the lock: it lets go and takes hold again, key by key, while the message
/// holds it too. `pg_locks` does not tell a session's hold from a transaction's.
pub(crate) fn held_by_session(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    conditions.tries("_xact", lock);
    conditions.regrips(lock);
    answer(&conditions, "'not held'", replies)
}

/// Whether this session holds the lock, for the session or the transaction, as `pg_locks` knows it.
pub(crate) fn held(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    let mode = match lock.mode() {
        Mode::Exclusive => "ExclusiveLock",
        Mode::Shared => "ShareLock",
    };
    conditions.and(&[
        "(SELECT count(*) FROM pg_catalog.pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND l.mode = '",
        mode,
        "' AND ",
        &advisory_rows(lock.keys()),
        ") = ",
        &lock.keys().len().to_string(),
    ]);
    answer(&conditions, "'not held'", replies)
}

/// A row with the reason if the conditions do not hold, or an error that carries it and every
/// other SQLSTATE.
pub(super) fn unless(conditions: &Conditions, why: &str, replies: Replies) -> String {
    match replies {
        Replies::Rows => answer(conditions, why, replies),
        Replies::Errors => carry(conditions, why),
    }
}

/// The same, where an SQLSTATE says nothing that is of use.
fn answer(conditions: &Conditions, why: &str, replies: Replies) -> String {
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

/// Between two slices of a wait: `deadlock_timeout` and the session's own `lock_timeout` and
/// `statement_timeout` in milliseconds, and whether a holder waits for this session in turn, and so
/// for ever.
///
/// Who waits in slices is not seen waiting between two of them; then the other side of a deadlock is.
/// Who waits for a transaction's end by its virtual number, as CREATE INDEX CONCURRENTLY does, may
/// wait for this very question: that is left to the server's own check.
pub(crate) fn between_slices(lock: &LockInfo) -> String {
    let conflicting = match lock.mode() {
        Mode::Exclusive => "",
        Mode::Shared => " AND l.mode = 'ExclusiveLock'",
    };
    format!(
        "WITH RECURSIVE blocker (pid) AS (SELECT l.pid FROM pg_catalog.pg_locks l \
         WHERE l.granted AND l.pid <> pg_backend_pid(){conflicting} AND {rows} \
         UNION SELECT pg_catalog.unnest(pg_blocking_pids(blocker.pid)) FROM blocker WHERE blocker.pid <> pg_backend_pid() \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks w WHERE w.pid = blocker.pid AND NOT w.granted AND w.locktype = 'virtualxid')) \
         SELECT pg_catalog.concat_ws(' ', {deadlock_timeout}, {lock_timeout}, {statement_timeout}, \
         pg_backend_pid() IN (SELECT pid FROM blocker)) AS line",
        rows = advisory_rows(lock.keys()),
        deadlock_timeout = setting_millis("deadlock_timeout"),
        lock_timeout = setting_millis("lock_timeout"),
        statement_timeout = setting_millis("statement_timeout"),
    )
}
