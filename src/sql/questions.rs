//! Questions about a lock on keys: whether it is held, and what a wait must know of its session.

use super::advisory_rows;
use super::conditions::setting_millis;
use crate::targets::{LockInfo, Mode};

/// Whether this session holds the lock, for the session or the transaction, according to `pg_locks`:
/// `true` or `false`.
pub(crate) fn held(lock: &LockInfo) -> String {
    let mut conditions = Vec::new();
    for (mode, name) in [
        (Mode::Exclusive, "ExclusiveLock"),
        (Mode::Shared, "ShareLock"),
    ] {
        let keys = lock.keys_in(mode);
        if !keys.is_empty() {
            conditions.push(format!(
                "(SELECT count(*) FROM pg_catalog.pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() \
                 AND l.mode = '{name}' AND {}) = {}",
                advisory_rows(&keys),
                keys.len()
            ));
        }
    }
    format!("SELECT ({})::text AS line", conditions.join(" AND "))
}

/// Which database this is, as every session of it says, and none of another.
#[cfg(feature = "r2d2")]
pub(crate) const DATABASE: &str = "SELECT pg_catalog.concat_ws(' ', oid, extract(epoch FROM pg_catalog.pg_postmaster_start_time())) AS line \
     FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

/// Whether this session holds one of the keys, in whatever mode: `true` or `false`.
pub(crate) fn held_in_any_mode(lock: &LockInfo) -> String {
    let held = super::keys::on_this_session(&advisory_rows(lock.keys()));
    format!("SELECT ({held})::text AS line")
}

/// What a wait in a transaction must know: whether the session holds locks, so that somebody may wait for
/// it in turn; `deadlock_timeout`; and its own `lock_timeout` and `statement_timeout`, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) holds: bool,
    pub(crate) deadlock_timeout: u64,
    pub(crate) lock_timeout: u64,
    pub(crate) statement_timeout: u64,
}

impl Situation {
    pub(crate) fn question() -> String {
        format!(
            "SELECT pg_catalog.concat_ws(' ', EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.granted \
             AND l.pid = pg_backend_pid() AND {}), {}, {}, {}) AS line",
            advisory_rows(&[]),
            setting_millis("deadlock_timeout"),
            setting_millis("lock_timeout"),
            setting_millis("statement_timeout"),
        )
    }

    pub(crate) fn read(lines: &[String]) -> Option<Self> {
        let mut words = lines.last()?.split(' ');
        let holds = words.next()? == "t";
        let mut millis = || words.next()?.parse().ok();
        Some(Self {
            holds,
            deadlock_timeout: millis()?,
            lock_timeout: millis()?,
            statement_timeout: millis()?,
        })
    }
}

/// Whether the holders of all slots of a semaphore wait for this session, or are this session, so that none
/// will ever be free: `true` or `false`. The server cannot see this wait.
pub(crate) fn all_slots_wait_for_us(lock: &LockInfo) -> String {
    format!(
        "WITH RECURSIVE blocker (lock, pid) AS (SELECT (l.classid::bigint << 32) | l.objid::bigint, l.pid \
         FROM pg_catalog.pg_locks l WHERE l.granted AND {rows} \
         UNION SELECT blocker.lock, pg_catalog.unnest(pg_blocking_pids(blocker.pid)) FROM blocker WHERE blocker.pid <> pg_backend_pid() \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks w WHERE w.pid = blocker.pid AND NOT w.granted AND w.locktype = 'virtualxid')) \
         SELECT (count(DISTINCT lock) = {})::text AS line FROM blocker WHERE pid = pg_backend_pid()",
        lock.keys().len(),
        rows = advisory_rows(lock.keys()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_situation_is_read() {
        let situation = Situation::read(&["t 1000 300 0".to_owned()]).unwrap();
        assert!(situation.holds);
        assert_eq!(
            (situation.lock_timeout, situation.statement_timeout),
            (300, 0)
        );
        assert!(Situation::read(&[]).is_none());
    }
}
