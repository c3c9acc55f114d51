//! Who holds a lock, who waits for it, and since when: what [`pg_locks`] and [`pg_stat_activity`]
//! know, for a key or for the whole database.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(feature = "postgres")] {
//! # use postgres::{Client, NoTls};
//! use pglock::{Key, inspect, with_lock};
//!
//! # let url = std::env::var("DATABASE_URL")?;
//! # let mut client = Client::connect(&url, NoTls)?;
//! let key = Key::from("doc:inspected");
//! with_lock(&mut client, &key, |conn| {
//!     let holders = inspect::holders(conn, &key)?;
//!     assert_eq!(holders.len(), 1);
//!     println!("{} is held by {}", holders[0].key, holders[0]);
//!     Ok::<_, pglock::Error>(())
//! })?;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! Any session may look, at the locks of the current database. Of the sessions of *other* users it
//! sees the process, the user and the application; state and times take the rights of
//! `pg_read_all_stats` or `pg_monitor` ([Predefined Roles]), and are `None` without them.
//!
//! The answer is a moment's. Looking takes a short lock on the server's whole lock table ([`pg_locks`]
//! says so): not for loops that run a thousand times a second. Inside a transaction the columns of
//! `pg_stat_activity` are as they were at its first look ([`stats_fetch_consistency`]), and a look
//! that fails aborts the transaction, as any statement does.
//!
//! [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
//! [`pg_stat_activity`]: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
//! [Predefined Roles]: https://www.postgresql.org/docs/current/predefined-roles.html
//! [`stats_fetch_consistency`]: https://www.postgresql.org/docs/current/runtime-config-statistics.html#GUC-STATS-FETCH-CONSISTENCY

use crate::answer::{Answers, Failure};
use crate::backends::{LockBackend, Session};
use crate::error::Error;
use crate::key::{IntoKey, Key};
use crate::request::LockInfo;
use crate::sql;

pub(crate) mod claim;

pub use claim::Claim;
use claim::{Culprits, FEW};

/// The sessions that hold a key. One round trip, or two with diesel.
///
/// # Errors
///
/// [`Error::Inspect`]: no connection, or no right to read `pg_locks`.
pub fn holders<B>(backend: &mut B, key: impl IntoKey) -> Result<Vec<Claim>, Error>
where
    B: LockBackend + ?Sized,
{
    claims(backend, &[key.into()], "l.granted")
}

/// The sessions that wait for a key, those that came first first. One round trip, or two with
/// diesel.
///
/// # Errors
///
/// As [`holders`].
pub fn waiters<B>(backend: &mut B, key: impl IntoKey) -> Result<Vec<Claim>, Error>
where
    B: LockBackend + ?Sized,
{
    claims(backend, &[key.into()], "NOT l.granted")
}

/// All advisory locks of the current database, those of other programs too: ordered by key, and for
/// each its holders before its waiters. One round trip, or two with diesel.
///
/// # Errors
///
/// As [`holders`].
pub fn locks<B>(backend: &mut B) -> Result<Vec<Claim>, Error>
where
    B: LockBackend + ?Sized,
{
    claims(backend, &[], "true")
}

/// Cancels the statement that a session runs (`pg_cancel_backend`), if it still has this claim. It
/// ends a wait, with [`Error::Canceled`] for who waits; a holder that is idle goes on holding.
///
/// Says whether the signal was sent.
///
/// # Errors
///
/// [`Error::Inspect`]: no connection, or no right to. It takes the same user, `pg_signal_backend`
/// or a superuser ([Server Signaling Functions]).
///
/// [Server Signaling Functions]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
pub fn cancel<B>(backend: &mut B, claim: &Claim) -> Result<bool, Error>
where
    B: LockBackend + ?Sized,
{
    signal(backend, claim, "pg_cancel_backend")
}

/// Ends a session (`pg_terminate_backend`), if it still has this claim: its transaction is rolled
/// back, and all its locks are free.
///
/// Says whether the signal was sent; the session ends soon after.
///
/// # Errors
///
/// As [`cancel`].
pub fn terminate<B>(backend: &mut B, claim: &Claim) -> Result<bool, Error>
where
    B: LockBackend + ?Sized,
{
    signal(backend, claim, "pg_terminate_backend")
}

fn claims<B>(backend: &mut B, keys: &[Key], condition: &str) -> Result<Vec<Claim>, Error>
where
    B: LockBackend + ?Sized,
{
    let lines = query(backend, &claims_sql(keys, condition))?;
    Ok(read(&lines, keys))
}

fn signal<B>(backend: &mut B, claim: &Claim, function: &str) -> Result<bool, Error>
where
    B: LockBackend + ?Sized,
{
    let Some(pid) = claim.pid else {
        return Ok(false);
    };
    let lines = query(backend, &signal_sql(&claim.key, pid, function))?;
    Ok(lines.iter().any(|line| line == "true"))
}

fn query<B>(backend: &mut B, sql: &str) -> Result<Vec<String>, Error>
where
    B: LockBackend + ?Sized,
{
    let mut session = backend
        .session()
        .map_err(|source| Error::Inspect { source })?;
    session.query(sql).map_err(|failure| {
        let source = match failure {
            Failure::Sql { source, .. } | Failure::Lost(source) => source,
            Failure::Refused(answer) => answer.to_string().into(),
        };
        Error::Inspect { source }
    })
}

/// Asks who holds a lock. `None`: that cannot be told, which must not replace the error that is
/// asked about. One round trip.
pub(crate) fn culprits<S: Session>(session: &mut S, lock: &LockInfo) -> Option<Culprits> {
    let lines = match S::ANSWERS {
        Answers::Rows => session.query(&culprits_sql(lock)).ok(),
        Answers::Errors => lines_of(session.send(&culprits_answer(lock))),
    };
    Some(Culprits::of(read(&lines?, lock.keys()), lock))
}

/// The same after a failed statement behind a savepoint, which is undone first: with a driver that
/// reads rows in the same message, with another in two more.
pub(crate) fn undo_and_culprits<S: Session>(
    session: &mut S,
    lock: &LockInfo,
) -> (Result<(), Failure>, Option<Culprits>) {
    let (undone, lines) = match S::ANSWERS {
        Answers::Rows => {
            let ask = sql::in_savepoint(&culprits_sql(lock));
            match session.query(&format!("{}; {ask}", sql::UNDO)) {
                Ok(lines) => (Ok(()), Some(lines)),
                Err(_) => (session.send(sql::UNDO), None),
            }
        }
        Answers::Errors => match session.send(sql::UNDO) {
            Ok(()) => match session.send(&sql::in_savepoint(&culprits_answer(lock))) {
                Ok(()) => (Ok(()), Some(Vec::new())),
                told => (session.send(sql::UNDO), lines_of(told)),
            },
            failed => (failed, None),
        },
    };
    (
        undone,
        lines.map(|lines| Culprits::of(read(&lines, lock.keys()), lock)),
    )
}

// The statements. They are views' rows as one text a row, with the control characters that separate
// fields and rows taken out of what users chose.

/// This session's own claims come first, and so are within the limit.
fn culprits_sql(lock: &LockInfo) -> String {
    format!(
        "SELECT line FROM ({}) AS claims ORDER BY own DESC LIMIT {}",
        claims_sql(lock.keys(), "l.granted"),
        FEW + 2 * lock.keys().len()
    )
}

const CULPRITS: &str = "held by";
const ROW: char = '\x1e';

/// For a driver whose `send` reads no rows: they come as the text of an error, and no error is none.
fn culprits_answer(lock: &LockInfo) -> String {
    sql::raise(&format!(
        "(SELECT '{CULPRITS}' || string_agg(line, chr(30)) || chr(30) FROM ({}) AS claims)",
        culprits_sql(lock)
    ))
}

fn lines_of(told: Result<(), Failure>) -> Option<Vec<String>> {
    let source = match told {
        Ok(()) => return Some(Vec::new()),
        Err(Failure::Sql { source, .. }) => source,
        Err(_) => return None,
    };
    let text = source.to_string();
    let (_, lines) = text.split_once(CULPRITS)?;
    let (lines, _) = lines.rsplit_once(ROW)?;
    Some(lines.split(ROW).map(str::to_owned).collect())
}

fn claims_sql(keys: &[Key], condition: &str) -> String {
    let seconds = |since: &str| format!("extract(epoch FROM clock_timestamp() - {since})::text");
    format!(
        "SELECT array_to_string(ARRAY[l.classid::text, l.objid::text, l.objsubid::text, l.mode, l.granted::text, {OWN}::text, l.pid::text, \
         {application}, {user}, host(a.client_addr), a.state, {state}, {transaction}, {connected}, {waiting}, \
         CASE WHEN NOT l.granted THEN array_to_string(pg_blocking_pids(l.pid), ' ') END], chr(31), '') AS line, \
         {OWN} AS own \
         FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE {rows} AND {condition} \
         ORDER BY l.classid, l.objid, l.objsubid, l.granted DESC, {WAIT_START}, l.pid",
        application = clean("a.application_name"),
        user = clean("a.usename::text"),
        state = seconds("a.state_change"),
        transaction = seconds("a.xact_start"),
        connected = seconds("a.backend_start"),
        waiting = seconds(&format!("({WAIT_START})::timestamptz")),
        rows = sql::advisory_rows(keys),
    )
}

const OWN: &str = "(l.pid IS NOT DISTINCT FROM pg_backend_pid())";

/// By way of JSON, since before PostgreSQL 14 there is no such column.
const WAIT_START: &str = "to_jsonb(l) ->> 'waitstart'";

fn clean(text: &str) -> String {
    format!("translate({text}, chr(30) || chr(31), '')")
}

/// Only while the session has the claim: its process number may have gone to another since.
fn signal_sql(key: &Key, pid: i32, function: &str) -> String {
    format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_locks l WHERE l.pid = {pid} AND {}) \
         THEN {function}({pid}) ELSE false END::text AS line",
        sql::advisory_rows(std::slice::from_ref(key))
    )
}

fn read(lines: &[String], keys: &[Key]) -> Vec<Claim> {
    lines
        .iter()
        .filter_map(|line| Claim::read(line, keys))
        .collect()
}
