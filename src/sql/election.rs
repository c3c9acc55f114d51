//! What the candidates and leaders of an election send. All but [`Fence`] goes over a connection of
//! their own.

use std::time::Duration;

use super::conditions::{Conditions, setting_millis};
use super::keys::{IDLE, OPEN_TRANSACTION, unless};
use super::ours::trace_of_key;
use super::{advisory_rows, carry, held, in_savepoint, named, raise};
use crate::failure::Replies;
use crate::key::Key;
use crate::request::LockInfo;

/// Begins every statement that a session sends in a term, so that others see in `pg_stat_activity`
/// whether the session has run anything else since.
macro_rules! in_term {
    () => {
        "/* pglock: in a term */ "
    };
}

/// Asks whether this session still holds the lock.
pub(crate) fn question(lock: &LockInfo, replies: Replies) -> String {
    [in_term!(), &held(lock, replies)].concat()
}

/// The settings that an election changes, as `name=value` with the value in the setting's own unit.
pub(crate) const SETTINGS: &str = "SELECT name || '=' || setting AS line FROM pg_settings \
    WHERE name IN ('idle_session_timeout', 'statement_timeout', 'transaction_timeout', \
    'tcp_keepalives_idle', 'tcp_user_timeout')";

/// Changes settings, and takes or releases locks, in order.
pub(crate) fn calls(calls: &[String]) -> String {
    format!("SELECT {}", calls.join(", "))
}

pub(crate) fn set(name: &str, value: &str) -> String {
    let value = value.replace('\'', "''");
    format!("set_config('{name}', '{value}', false)")
}

/// A call of a lock function.
pub(crate) fn call(function: &str, key: &Key) -> String {
    format!("{function}({})", key.arguments())
}

/// Acquires a lock if it is free, and says so.
pub(crate) fn try_lock(key: &Key) -> String {
    format!("SELECT {}::text AS line", call("pg_try_advisory_lock", key))
}

/// Of `pg_locks c`, the rows of an election's class in the current database.
fn class_rows(class: i32) -> String {
    format!(
        "c.locktype = 'advisory' AND c.granted AND c.objsubid = 2 AND c.classid = {} \
         AND c.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        class as u32
    )
}

/// The processes that have taken a term.
pub(crate) fn in_office(class: i32) -> String {
    format!(
        "SELECT c.pid::text AS line FROM pg_locks c \
         WHERE {} AND c.mode = 'ExclusiveLock' AND c.objid::bigint < {SIGN}",
        class_rows(class)
    )
}

/// The same, but for this session.
pub(crate) fn others_in_office(class: i32) -> String {
    format!("{} AND c.pid <> pg_backend_pid()", in_office(class))
}

/// `pg_locks` shows negative numbers as unsigned ones, from here on.
const SIGN: &str = "2147483648";

/// The lock's holder: its process, when its session began, for how many milliseconds it has been
/// idle, its lease if it has one, whether it is in a term, and [`ENDS`].
pub(crate) fn holder(key: &Key, class: i32) -> String {
    format!(
        "SELECT pg_catalog.array_to_string(ARRAY[l.pid::text, {BEGAN}, \
         CASE WHEN a.state = 'idle' THEN (extract(epoch FROM clock_timestamp() - a.state_change) * 1000)::bigint::text END, \
         marks.lease::text, marks.leads::text, {ENDS}], chr(31), '') AS line \
         FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         LEFT JOIN LATERAL (SELECT max(2 * {SIGN} - c.objid::bigint) FILTER (WHERE c.objid::bigint >= {SIGN}) AS lease, \
         bool_or(c.objid::bigint < {SIGN}) AS leads FROM pg_locks c WHERE {} AND c.pid = l.pid) marks ON true \
         WHERE {} AND l.granted AND l.mode = 'ExclusiveLock'",
        class_rows(class),
        advisory_rows(std::slice::from_ref(key)),
    )
}

const BEGAN: &str = "extract(epoch FROM a.backend_start)::text";

/// How many sessions of the database have ended at somebody's request, with an error, or because their
/// connection broke; since when they are counted; and whether they are before they are gone.
const ENDS: &str = "(SELECT pg_catalog.concat_ws(' ', d.sessions_killed, d.sessions_fatal, d.sessions_abandoned, \
    coalesce(extract(epoch FROM d.stats_reset)::text, '-'), current_setting('server_version_num')::int >= 150000) \
    FROM pg_stat_database d WHERE d.datname = current_database())";

/// What has become of the session that began then: a word, and [`ENDS`].
pub(crate) fn fate(pid: i32, began: Option<&str>) -> String {
    let began = began.map_or(String::new(), |began| {
        let number: String = began
            .chars()
            .filter(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        format!(" AND {BEGAN} = '{number}'")
    });
    format!(
        "SELECT CASE WHEN a.pid IS NULL THEN 'gone' \
         WHEN a.state IS NULL OR a.state = 'disabled' OR a.query = '' THEN 'hidden' \
         WHEN a.query LIKE '{}%' THEN 'ending' \
         WHEN a.query ILIKE 'DISCARD%' THEN 'cleared' ELSE 'goes on' END || chr(31) || {ENDS} AS line \
         FROM (SELECT) one LEFT JOIN pg_stat_activity a ON a.pid = {pid}{began}",
        in_term!()
    )
}

/// How many milliseconds ago the server started, or restarted its processes after one of them crashed,
/// unless that was its first start: the database's identifier has the time of its creation.
pub(crate) const RESTARTED: &str = "SELECT (extract(epoch FROM clock_timestamp() - started) * 1000)::bigint::text AS line \
    FROM (SELECT greatest(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_wal)) AS started) starts, \
    pg_control_system() WHERE extract(epoch FROM started) - (system_identifier >> 32) > 60";

/// A transaction's number and the name of the current WAL file, in a transaction that is on disk
/// afterwards whatever the server's settings: without a message in the WAL it would write nothing, and
/// after a crash another could get its number. It does not wait for a standby.
pub(crate) const TOKEN: &str = concat!(
    in_term!(),
    "SELECT pg_current_xact_id()::text || ' ' || pg_walfile_name(pg_current_wal_lsn()) \
     || left(set_config('synchronous_commit', 'local', true), 0) \
     || left(pg_logical_emit_message(true, 'pglock', 'term')::text, 0) AS line"
);

/// Lets a transaction commit only within a term: while it is open, no successor's term can begin, and it
/// fails if one is about to begin or the leader's lock is gone.
#[derive(Debug)]
pub(crate) struct Fence {
    /// Held shared by the fenced transactions.
    pub(crate) lock: Key,
    /// Held by the leader's session.
    pub(crate) term: Key,
    /// For how long a session that forgets its transaction, or whose client is gone, may keep the
    /// successor out.
    pub(crate) idle: Duration,
}

impl Fence {
    /// For a transaction that pglock opens, as in [`super::acquire_at_begin`].
    pub(crate) fn at_begin(&self, name: &str, before_begin: bool, replies: Replies) -> String {
        let mut conditions = Conditions::new();
        let mut why = OVER.to_owned();
        if before_begin {
            conditions.and(&[IDLE]);
            why = format!("CASE {OPEN_TRANSACTION} ELSE {OVER} END");
        }
        self.stands(&mut conditions);
        conditions.and(&[&named(name), " IS NOT NULL"]);
        match replies {
            Replies::Rows if before_begin => raise(&conditions, &why),
            _ => unless(&conditions, &why, replies),
        }
    }

    /// In the caller's transaction, behind a savepoint: [`super::undo`] must follow a failure.
    pub(crate) fn in_transaction(&self, replies: Replies) -> String {
        let mut conditions = Conditions::new();
        self.stands(&mut conditions);
        in_savepoint(&match replies {
            Replies::Rows => raise(&conditions, OVER),
            Replies::Errors => carry(&conditions, OVER),
        })
    }

    /// See [`super::commit`].
    pub(crate) fn trace(&self) -> String {
        trace_of_key(&self.lock)
    }

    fn stands(&self, conditions: &mut Conditions) {
        const TRY_SHARED: &str = "pg_try_advisory_xact_lock_shared";
        const LIMIT: &str = "idle_in_transaction_session_timeout";
        let limit = self.idle.as_millis();
        conditions.and(&[&call(TRY_SHARED, &self.lock)]);
        conditions.and(&["NOT ", &call(TRY_SHARED, &self.term)]);
        conditions.and(&[&format!(
            "({} BETWEEN 1 AND {limit} OR set_config('{LIMIT}', '{limit}', true) IS NOT NULL)",
            setting_millis(LIMIT)
        )]);
    }
}

/// Why a transaction is not fenced.
const OVER: &str = "'not held'";
