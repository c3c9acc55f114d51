//! Acquiring and releasing locks on keys.
//!
//! A statement does all its work in its WHERE clause, and returns a row only if it did not do it.
//! PostgreSQL looks for interrupts before it asks a plan for a row, and after each row: once the work
//! is done, a statement without rows can no longer be cancelled. So a statement that fails has taken
//! no lock for the session, and released none, and can be sent again.

use super::advisory_rows;
use super::conditions::{Locks, Slots};
use super::statement::{Conditions, Parameter, Statement};
use super::time::WaitTime;
use crate::failure::Refusal;
use crate::process;
use crate::targets::{LockInfo, Mode};

/// Only in a message's implicit transaction does the transaction start with the statement: so this
/// detects a raw BEGIN, which no driver knows of. It needs a clock that moves between two messages of a
/// session: by a microsecond, as on Linux, the BSDs and macOS.
pub(super) const IDLE: &str = "pg_catalog.now() = pg_catalog.statement_timestamp()";

/// A standby grants keys that its primary has granted to others.
pub(super) const ON_PRIMARY: &str = "NOT pg_catalog.pg_is_in_recovery()";

/// CockroachDB speaks the protocol and grants an advisory lock to everybody who asks.
pub(super) const ON_POSTGRES: &str = "pg_catalog.current_setting('crdb_version', true) IS NULL";

/// Above READ COMMITTED all later statements keep the snapshot of the statement that waits for the
/// lock.
pub(super) const FRESH_SNAPSHOT: &str =
    "pg_catalog.current_setting('transaction_isolation') LIKE 'read %'";

/// What this process has left in the session: see [`acquire_for_session`].
pub(super) const CLIENT: &str = "pg_catalog.current_setting('pglock.client', true)";

pub(super) const IN_RECOVERY: &str = "WHEN pg_catalog.pg_is_in_recovery() THEN 'in recovery'";
pub(super) const STALE_SNAPSHOT: &str = "WHEN pg_catalog.current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale snapshot'";
pub(super) const NOT_POSTGRES: &str =
    "WHEN pg_catalog.current_setting('crdb_version', true) IS NOT NULL THEN 'not postgres'";
/// [`IDLE`] in its very words, which the extended protocol replaces.
pub(super) const OPEN_TRANSACTION: &str =
    "WHEN (pg_catalog.now() = pg_catalog.statement_timestamp()) IS NOT TRUE THEN 'in transaction'";

/// How a session is known to be this process's alone: see [`acquire_for_session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// It bears this process's number, or has never borne any.
    Own,
    /// It bears another's, or has lost one: the statement looks at what the session holds.
    Other,
}

/// What a newcomer does where others stand in line for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// It finds out, and does not wait here.
    Respect,
    /// It waits, or tries, all the same: it holds the key already, or keeps a place at the server.
    Pass,
}

/// What the text of a statement on keys depends on: the kind of statement and what is special to it, and
/// how it has its keys. `None` if that is seldom the same.
pub(super) fn form(lock: &LockInfo, special: &[u8]) -> Option<Vec<u8>> {
    let keys = match (Slots::of(lock), lock.keys()) {
        (Some(slots), _) => u8::try_from(slots.number).ok()? + u8::from(slots.exclusive),
        (None, [_]) => u8::from(lock.mode() == Mode::Shared),
        (None, _) => return None,
    };
    Some([special, &[keys]].concat())
}

impl WaitTime {
    pub(super) fn form(self) -> u8 {
        match self {
            Self::No => 0,
            Self::InPlace(None) => 1,
            Self::InPlace(Some(_)) => 2,
            Self::Slice(_) => 3,
            Self::OwnSlice(_) => 4,
        }
    }
}

/// The parameters in the order in which a statement on keys has them.
pub(super) fn parameters(
    lock: &LockInfo,
    me: bool,
    heads: bool,
    time: WaitTime,
    name: Option<&str>,
) -> Vec<Parameter> {
    let text = |text: &str| Parameter::Text(text.to_owned());
    let mut parameters = Vec::with_capacity(8);
    parameters.extend(me.then(|| text(process::word())));
    match Slots::of(lock) {
        Some(slots) => parameters.push(slots.numbers(lock)),
        None => {
            let key = &lock.keys()[0];
            parameters.extend(key.as_i64().map(Parameter::BigInt));
            parameters.extend(heads.then(|| Parameter::BigInt(key.head())));
        }
    }
    parameters.extend(time.limit().map(|millis| text(&millis.to_string())));
    parameters.extend(name.map(text));
    parameters
}

/// Acquires a session lock, and does nothing in an open transaction or on a standby.
///
/// It tries first. To wait, it waits for a lock of the transaction, which here is the message. Only when
/// that is granted, and no timeout fired in the same instant, it takes the lock for the session too. So a
/// `lock_timeout` leaves nothing behind.
///
/// Behind a pooler two processes can share one server session, and the server grants a session again
/// what it holds. So each process leaves its number in a setting of the session, and does not lock
/// where it finds another's. The setting is NULL in a session that has never had one, and empty once it
/// was reset: then a process may be there that cannot be seen.
pub(crate) fn acquire_for_session(
    lock: &LockInfo,
    time: WaitTime,
    client: Client,
    line: Line,
) -> Statement {
    let write = || write_acquire_for_session(lock, time, client, line);
    match form(lock, &[b's', time.form(), line as u8]) {
        Some(form) if client == Client::Own => {
            Statement::known(form, parameters(lock, true, true, time, None), write)
        }
        _ => write(),
    }
}

fn write_acquire_for_session(
    lock: &LockInfo,
    time: WaitTime,
    client: Client,
    line: Line,
) -> Statement {
    let mut conditions = Conditions::new();
    let why = allowed_for_session(&mut conditions, lock, client);
    let locks = Locks::of_any(&mut conditions, lock, true);
    let acquired = locks.acquire_for_session(&mut conditions, time, line);
    conditions.and(&["(", &acquired, ")"]);
    let line = match line {
        Line::Respect => locks.waited_for(),
        Line::Pass => String::new(),
    };
    let why = format!("CASE {why}{line} ELSE 'busy' END");
    Statement::new(conditions, why)
}

/// Adds whether a lock may be taken for the session, and returns why not, as WHEN clauses.
pub(super) fn allowed_for_session(
    conditions: &mut Conditions,
    lock: &LockInfo,
    client: Client,
) -> String {
    let me = conditions.text_parameter(process::word());
    let bears = match client {
        Client::Own => format!(
            "({CLIENT} IS NOT DISTINCT FROM {me} OR {CLIENT} IS NULL AND {})",
            bear(&me)
        ),
        Client::Other => {
            let key = held_here(conditions, lock);
            may_bear(&key, &me)
        }
    };
    for condition in [IDLE, ON_PRIMARY, ON_POSTGRES, &bears] {
        conditions.and(&[condition]);
    }
    let stranger = match client {
        Client::Own => format!(
            "{CLIENT} IS DISTINCT FROM {me} THEN '{}'",
            Refusal::Stranger
        ),
        Client::Other => held_by_another(),
    };
    format!("{IN_RECOVERY} {NOT_POSTGRES} {OPEN_TRANSACTION} WHEN {stranger}")
}

fn bear(number: &str) -> String {
    format!("pg_catalog.set_config('pglock.client', {number}, false) IS NOT NULL")
}

/// Whether the session may bear this process's number: it bears this one, or nothing is held on it. If
/// other keys are held, the session is nobody's from now on, and each acquire looks. Where another process
/// stands in line on the session, it may be about to get any key.
fn may_bear(held_here: &str, me: &str) -> String {
    format!(
        "CASE WHEN {CLIENT} IS NOT DISTINCT FROM {me} THEN true \
         WHEN {held_here} OR {waits} THEN NOT {found} WHEN {any} THEN {nobodys} ELSE {mine} END",
        waits = "coalesce(pg_catalog.current_setting('pglock.idle', true), '') <> ''",
        found = found(),
        any = on_this_session(&advisory_rows(&[])),
        nobodys = bear("'several'"),
        mine = bear(me),
    )
}

/// Notes for the message that another's lock was found: later it could not be told from those that the
/// message itself has taken.
pub(super) fn found() -> String {
    "(pg_catalog.set_config('pglock.client', 'held', true) IS NOT NULL)".to_owned()
}

/// [`found`], as the reason of a refusal.
pub(super) fn held_by_another() -> String {
    format!("{CLIENT} = 'held' THEN '{}'", Refusal::SharedSession)
}

/// Whether this session holds one of the lock's keys. They are a parameter, so that the statement is the same
/// for all.
pub(super) fn held_here(conditions: &mut Conditions, lock: &LockInfo) -> String {
    let rows = lock.keys().iter().map(|key| {
        let (classid, objid, objsubid) = key.pg_locks();
        format!("{classid}.{objid}.{objsubid}")
    });
    let rows = conditions.text_parameter(rows.collect::<Vec<_>>().join(" "));
    on_this_session(&format!(
        "{} AND pg_catalog.concat_ws('.', l.classid, l.objid, l.objsubid) = ANY (pg_catalog.string_to_array({rows}, ' '))",
        advisory_rows(&[]),
    ))
}

pub(super) fn on_this_session(rows: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.granted AND l.pid = pg_catalog.pg_backend_pid() AND {rows})"
    )
}

/// Releases a session lock, unless a transaction is open: others would get the lock before its COMMIT.
pub(crate) fn release(lock: &LockInfo) -> Statement {
    let release = on_keys(lock, b"r", WaitTime::No, |conditions, locks| {
        conditions.and(&[IDLE]);
        conditions.and(&[&locks.all_released()]);
        why_not_held()
    });
    release.never_refuses()
}

/// Why a lock of the session's is not given up: a transaction is open, or the lock is not held.
fn why_not_held() -> String {
    format!("CASE {OPEN_TRANSACTION} ELSE 'not held' END")
}

/// Makes an exclusive session lock shared, or a shared one exclusive, unless a transaction is open.
///
/// Releasing what is not held is a warning, and a cancel can hit there. So the message first takes the
/// lock for itself, then releases each key of the session's and takes it again, which changes nothing:
/// after that nothing can fail. To make a shared lock exclusive, the message then waits as `time` says.
/// Last, each key of the session's changes its mode, without a wait, since the message holds it: the
/// server lets a holder past the waiters.
pub(crate) fn change_mode(lock: &LockInfo, time: WaitTime) -> Statement {
    let mode = lock.mode();
    let time = match mode {
        Mode::Exclusive => WaitTime::No,
        Mode::Shared => time,
    };
    let special = [b'c', time.form(), u8::from(mode == Mode::Shared)];
    on_keys(lock, &special, time, |conditions, locks| {
        conditions.and(&[IDLE]);
        conditions.and(&[&locks.tries("_xact")]);
        conditions.and(&[&locks.exchanged_for(locks)]);
        let changed = match mode {
            Mode::Exclusive => locks.in_mode(mode, Mode::Shared),
            Mode::Shared => {
                let exclusive = locks.in_mode(mode, Mode::Exclusive);
                let waits = exclusive.waits(conditions, time);
                conditions.and(&[&waits]);
                exclusive
            }
        };
        conditions.and(&[&locks.exchanged_for(&changed)]);
        why_not_held()
    })
}

/// Gives the lock to whoever waits for it at the server, and takes it back if nobody does. It says
/// whether the lock was held, and does nothing in an open transaction.
///
/// A release grants the lock to the first waiter before it returns. Of several keys, the session takes
/// none until the message has all. Who stands in line is a waiter too.
#[cfg(feature = "r2d2")]
pub(crate) fn give_way(lock: &LockInfo) -> Statement {
    let mut conditions = Conditions::new();
    conditions.and(&[IDLE]);
    let locks = Locks::with_lines(&mut conditions, lock);
    conditions.and(&[
        "CASE WHEN ",
        &locks.all_released(),
        " THEN pg_catalog.set_config('pglock.gave_way', 'yes', true) IS NOT NULL ELSE false END",
    ]);
    conditions.and(&[&locks.nobody_waits()]);
    conditions.and(&[&locks.tries("_xact")]);
    conditions.and(&[&locks.tries("")]);
    let why = format!(
        "CASE {OPEN_TRANSACTION} \
         WHEN pg_catalog.current_setting('pglock.gave_way', true) = 'yes' THEN 'busy' ELSE 'not held' END"
    );
    Statement::new(conditions, why)
}

/// Whether this session holds the lock: it releases each key and takes it again, while the message holds
/// it too. `pg_locks` does not tell a session's lock from a transaction's.
pub(crate) fn held_by_session(lock: &LockInfo) -> Statement {
    on_keys(lock, b"h", WaitTime::No, |conditions, locks| {
        conditions.and(&[&locks.held_by_session()]);
        "'not held'".to_owned()
    })
}

/// A statement that has the keys as parameters, and the milliseconds of a wait. What is written returns why it
/// was not done.
fn on_keys(
    lock: &LockInfo,
    special: &[u8],
    time: WaitTime,
    write: impl Fn(&mut Conditions, &Locks) -> String,
) -> Statement {
    let write = || {
        let mut conditions = Conditions::new();
        let locks = Locks::of_any(&mut conditions, lock, false);
        let why = write(&mut conditions, &locks);
        Statement::new(conditions, why)
    };
    match form(lock, special) {
        Some(form) => {
            let parameters = parameters(lock, false, false, time, None);
            Statement::known(form, parameters, write)
        }
        None => write(),
    }
}
