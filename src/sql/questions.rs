//! Questions about a lock on keys: why it or its release was refused, whether it is held, and whether it
//! makes sense to wait on.

use super::conditions::{Conditions, setting_millis};
use super::keys::{
    IN_RECOVERY, NOT_POSTGRES, OPEN_TRANSACTION, STALE_SNAPSHOT, answer, why_not_held,
};
use super::{advisory_rows, is_in_the_way};
use crate::failure::Replies;
use crate::request::{LockInfo, Mode};
use crate::targets::Target;

/// Why a lock was refused here. Where no reason shows, another session refused than the one that
/// answers, or this one holds the key for another process: either way a pooler is in between.
pub(crate) fn why_not(for_session: bool) -> String {
    match for_session {
        true => format!(
            "SELECT CASE {IN_RECOVERY} {NOT_POSTGRES} {OPEN_TRANSACTION} ELSE 'shared session' END AS line"
        ),
        false => format!(
            "SELECT CASE {IN_RECOVERY} {NOT_POSTGRES} {STALE_SNAPSHOT} ELSE 'in transaction' END AS line"
        ),
    }
}

/// Why a release was refused.
pub(crate) fn why_not_released() -> String {
    format!("SELECT {} AS line", why_not_held())
}

/// Whether this session holds the lock: it releases each key and takes it again, while the message holds
/// it too. `pg_locks` does not tell a session's lock from a transaction's.
pub(crate) fn held_by_session(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    conditions.tries("_xact", lock);
    conditions.regrips(lock);
    answer(&conditions, "'not held'", replies)
}

/// Whether this session holds the lock, for the session or the transaction, according to `pg_locks`.
pub(crate) fn held(lock: &LockInfo, replies: Replies) -> String {
    let mut conditions = Conditions::new();
    for (mode, name) in [
        (Mode::Exclusive, "ExclusiveLock"),
        (Mode::Shared, "ShareLock"),
    ] {
        let keys = lock.keys_in(mode);
        if !keys.is_empty() {
            conditions.and(&[
                "(SELECT count(*) FROM pg_catalog.pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND l.mode = '",
                name,
                "' AND ",
                &advisory_rows(&keys),
                ") = ",
                &keys.len().to_string(),
            ]);
        }
    }
    answer(&conditions, "'not held'", replies)
}

/// Which database this is, as every session of it says, and none of another.
#[cfg(feature = "r2d2")]
pub(crate) const DATABASE: &str = "SELECT pg_catalog.concat_ws(' ', oid, extract(epoch FROM pg_catalog.pg_postmaster_start_time())) AS line \
     FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

/// Between two slices of a wait: `deadlock_timeout` and the session's own `lock_timeout` and
/// `statement_timeout` in milliseconds, and whether a holder waits for this session in turn, and so
/// for ever.
///
/// A session that waits in slices does not show as a waiter between two of them; then the other side of
/// a deadlock finds it. A session that waits for a transaction by its virtual number, as CREATE INDEX
/// CONCURRENTLY does, may wait for this very question: the server's own check deals with that.
///
/// A semaphore needs just one slot. So it is a deadlock only if the holders of all slots wait for this
/// session, or are this session.
pub(crate) fn between_slices(lock: &LockInfo) -> String {
    const ME: &str = "pg_backend_pid()";
    let one_is_enough = !matches!(lock.target(), Target::Slots(_));
    let (lock_of, others, deadlock) = match one_is_enough {
        true => (
            "0",
            " AND l.pid <> pg_backend_pid()",
            format!("{ME} IN (SELECT pid FROM blocker)"),
        ),
        false => (
            "(l.classid::bigint << 32) | l.objid::bigint",
            "",
            format!(
                "(SELECT count(DISTINCT lock) = {} FROM blocker WHERE pid = {ME})",
                lock.keys().len()
            ),
        ),
    };
    format!(
        "WITH RECURSIVE blocker (lock, pid) AS (SELECT {lock_of}, l.pid FROM pg_catalog.pg_locks l \
         WHERE l.granted{others} AND {in_the_way} AND {rows} \
         UNION SELECT blocker.lock, pg_catalog.unnest(pg_blocking_pids(blocker.pid)) FROM blocker WHERE blocker.pid <> {ME} \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks w WHERE w.pid = blocker.pid AND NOT w.granted AND w.locktype = 'virtualxid')) \
         SELECT pg_catalog.concat_ws(' ', {deadlock_timeout}, {lock_timeout}, {statement_timeout}, {deadlock}) AS line",
        in_the_way = is_in_the_way(lock),
        rows = advisory_rows(lock.keys()),
        deadlock_timeout = setting_millis("deadlock_timeout"),
        lock_timeout = setting_millis("lock_timeout"),
        statement_timeout = setting_millis("statement_timeout"),
    )
}
