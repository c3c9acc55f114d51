//! What the candidates and leaders of an election send. All but [`Fence`] goes over a connection of
//! their own.

use std::time::Duration;

use super::call;
use super::conditions::setting_millis;
use super::keys::{FRESH_SNAPSHOT, IDLE, OPEN_TRANSACTION, STALE_SNAPSHOT};
use super::line::Wait;
use super::statement::{Conditions, Statement};
use super::time::millis;
use super::transactions::Named;
use crate::key::Key;
use crate::targets::{LockInfo, Mode, Target};

/// Asks what a lock function says.
pub(crate) fn asks(function: &str, key: &Key) -> String {
    format!("SELECT {}::text AS line", call(function, key))
}

pub(crate) const YES: &str = "true";

/// Waits for a lock for a slice, and leaves nothing in the server's log if it is not granted. In front of
/// [`HAD`], which says whether it was.
///
/// The wait is for a lock of the message, under a `lock_timeout` that counts for this message alone.
pub(crate) fn wait(key: &Key, slice: Duration) -> String {
    let wait = match slice.is_zero() {
        true => String::new(),
        false => wait_for_end(key, Mode::Exclusive, slice),
    };
    let had = call("pg_try_advisory_lock", key);
    format!("{wait}SELECT pg_catalog.set_config('pglock.had', {had}::text, false); ")
}

pub(crate) const HAD: &str = "SELECT pg_catalog.current_setting('pglock.had', true) AS line";

/// Waits until nobody holds a lock any more that could be in the way of one for the message, in this mode, and
/// gives up without an error.
pub(crate) fn wait_for_end(key: &Key, mode: Mode, slice: Duration) -> String {
    let lock = LockInfo::new(Target::from(key.clone()), mode);
    Wait::new(&lock).in_queue(millis(slice).unwrap_or(1))
}

/// Whether this session holds a lock, exclusively: with the message's hold on it, the session lets it go and
/// takes it again, so that nobody comes between. `pg_locks` would be dear.
fn holds(key: &Key) -> String {
    [
        "pg_try_advisory_xact_lock",
        "pg_advisory_unlock",
        "pg_try_advisory_lock",
    ]
    .map(|function| call(function, key))
    .join(" AND ")
}

/// A message that fails if the session is not the leader's.
fn or_over(calls: impl IntoIterator<Item = String>) -> String {
    let mut conditions = Conditions::new();
    for call in calls {
        conditions.and(&[&call]);
    }
    Statement::new(conditions, OVER).raising().text()
}

/// All that sessions hold of an election, read once: two reads could see two leaders as one. Its rows `marks`
/// count for the sessions in `members`. It stands in front of what is asked. `pg_locks` shows negative numbers
/// as unsigned ones, from 2147483648 on.
pub(crate) fn marks(lock: &Key, member: &Key, class: i32) -> String {
    let row = |key: &Key| {
        let (classid, objid, objsubid) = key.pg_locks();
        format!("(classid, objid, objsubid) = ({classid}, {objid}, {objsubid})")
    };
    format!(
        "WITH l AS MATERIALIZED (SELECT pid, classid::bigint, objid::bigint, objsubid, mode FROM pg_catalog.pg_locks \
         WHERE locktype = 'advisory' AND granted \
         AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())), \
         members AS (SELECT pid FROM l WHERE {}), \
         holders AS (SELECT pid FROM l WHERE {} AND mode = 'ExclusiveLock' AND pid IN (SELECT pid FROM members)), \
         marks AS (SELECT pid, mode, objid AS number FROM l WHERE objsubid = 2 AND classid = {}) ",
        row(member),
        row(lock),
        class as u32,
    )
}

/// The number of the holder's term, or `-`; and the longest and the shortest silence of all members in
/// milliseconds, that of this session among them.
pub(crate) const LOOK: &str = "SELECT pg_catalog.concat_ws(' ', \
    coalesce((SELECT max(number)::text FROM marks WHERE number < 2147483648 AND pid IN (SELECT pid FROM holders) \
    HAVING count(DISTINCT number) = 1), '-'), \
    (SELECT max(4294967296 - number) || ' ' || min(4294967296 - number) FROM marks \
    WHERE number >= 2147483648 AND pid IN (SELECT pid FROM members))) AS line";

/// The session that leads, and the number of its term.
pub(crate) const IN_OFFICE: &str = "SELECT pid || ' ' || number AS line FROM marks \
    WHERE number < 2147483648 AND mode = 'ExclusiveLock' AND pid IN (SELECT pid FROM holders)";

/// The other sessions that still have a term's lock. One that is ending may have nothing else any more.
pub(crate) const OTHERS_IN_OFFICE: &str = "SELECT pid::text AS line FROM marks \
    WHERE number < 2147483648 AND mode = 'ExclusiveLock' AND pid <> pg_catalog.pg_backend_pid() \
    AND (pid IN (SELECT pid FROM members) OR pid NOT IN (SELECT pid FROM l WHERE objsubid = 1))";

/// For a head that has the key: whether the sign is there, and whether it has the number of its own term, whose
/// sign must not be there. Then it makes room for the next head. `seen` is the sign, and the ear for it.
pub(crate) fn enter(seen: Option<&(Key, Key)>, head: &Key, term: &Key, sign: &Key) -> String {
    const SHARED: &str = "pg_try_advisory_xact_lock_shared";
    let (signed, deaf) = match seen {
        Some((sign, ear)) => (
            format!("NOT {}", call(SHARED, sign)),
            call("pg_advisory_unlock_shared", ear),
        ),
        None => ("false".to_owned(), "NULL".to_owned()),
    };
    let taken = [
        call("pg_try_advisory_xact_lock", term),
        call(SHARED, sign),
        call("pg_try_advisory_lock_shared", term),
    ]
    .join(" AND ");
    let room = call("pg_advisory_unlock", head);
    format!(
        "SELECT pg_catalog.concat_ws(' ', {signed}, {taken}) || left(pg_catalog.concat({deaf}, {room}), 0) AS line"
    )
}

/// Whether there is a head, and nobody listens for the sign of a term.
pub(crate) fn is_deaf(head: &Key, ear: &Key) -> String {
    format!(
        "SELECT (NOT ({} AND {}) AND {} AND {})::text AS line",
        call("pg_try_advisory_lock_shared", head),
        call("pg_advisory_unlock_shared", head),
        call("pg_try_advisory_lock", ear),
        call("pg_advisory_unlock", ear),
    )
}

/// Makes the number of a term, which is held shared, that of a term that is on.
pub(crate) fn take_office(lock: &Key, term: &Key) -> String {
    or_over([holds(lock), call("pg_try_advisory_lock", term)])
}

/// A transaction's number and the name of the current WAL file, or nothing while a fenced transaction
/// of an earlier term is open. No row if the lock is not held. The transaction is on disk afterwards, whatever the
/// server's settings: without a message in the WAL it would write nothing, and after a crash another could get its
/// number. It does not wait for a standby.
pub(crate) fn token(lock: &Key, fence: &Key) -> String {
    format!(
        "SELECT CASE WHEN {} THEN pg_catalog.pg_current_xact_id()::text || ' ' \
         || pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) \
         || left(pg_catalog.set_config('synchronous_commit', 'local', true), 0) \
         || left(pg_catalog.pg_logical_emit_message(true, 'pglock', 'term')::text, 0) ELSE '' END AS line WHERE {}",
        call("pg_try_advisory_xact_lock", fence),
        holds(lock),
    )
}

/// Resigns, all or nothing: the sign, if one may be given, comes before the key is free, and so does the
/// end of the term's own lock.
pub(crate) fn resign(sign: Option<&Key>, term: &Key, lock: &Key) -> String {
    let sign = sign.map(|sign| call("pg_try_advisory_lock", sign));
    let ends = [
        call("pg_advisory_unlock", term),
        call("pg_advisory_unlock_shared", term),
        call("pg_advisory_unlock", lock),
    ];
    or_over(sign.into_iter().chain(ends))
}

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
    /// For a transaction that pglock opens, in front of its BEGIN or behind it.
    pub(crate) fn at_begin(&self, name: &str, in_front: bool) -> Statement {
        let mut conditions = Conditions::new();
        let mut why = OVER.to_owned();
        if in_front {
            conditions.and(&[IDLE]);
            why = format!("CASE {OPEN_TRANSACTION} ELSE {OVER} END");
        }
        self.stands(&mut conditions);
        let named = Named::Transaction(name).in_conditions(&mut conditions);
        conditions.and(&[&named]);
        Statement::new(conditions, why)
    }

    /// In the caller's transaction, behind a savepoint. Its snapshot must not be older than the term.
    pub(crate) fn in_transaction(&self) -> Statement {
        let mut conditions = Conditions::new();
        conditions.and(&[FRESH_SNAPSHOT]);
        self.stands(&mut conditions);
        Statement::new(conditions, format!("CASE {STALE_SNAPSHOT} ELSE {OVER} END"))
    }

    fn stands(&self, conditions: &mut Conditions) {
        const TRY_SHARED: &str = "pg_catalog.pg_try_advisory_xact_lock_shared";
        const LIMIT: &str = "idle_in_transaction_session_timeout";
        let (lock, term) = (conditions.key(&self.lock), conditions.key(&self.term));
        conditions.and(&[TRY_SHARED, "(", &lock, ")"]);
        conditions.and(&["NOT ", TRY_SHARED, "(", &term, ")"]);
        let limit = conditions.text_parameter(self.idle.as_millis().to_string());
        conditions.and(&[&format!(
            "({} BETWEEN 1 AND {limit}::bigint OR pg_catalog.set_config('{LIMIT}', {limit}, true) IS NOT NULL)",
            setting_millis(LIMIT)
        )]);
    }
}

/// Why a transaction is not fenced, and a session not a leader's.
const OVER: &str = "'not held'";
