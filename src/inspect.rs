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

use std::fmt;
use std::time::Duration;

use crate::backends::{Failure, LockBackend, Session};
use crate::error::Error;
use crate::key::Key;
use crate::request::Mode;
use crate::sql;

/// A session's claim on a lock: it holds it, or waits for it.
///
/// The server keeps no record of when a lock was granted. A lock is held for no longer than its
/// session ([`connected_for`](Claim::connected_for)), and one of a transaction for no longer than
/// that ([`transaction_for`](Claim::transaction_for)).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Claim {
    /// The key: under the caller's name where the caller asked for it, otherwise as the number or
    /// pair that the server knows.
    pub key: Key,
    /// Exclusive or shared.
    pub mode: Mode,
    /// Whether it is held; otherwise it is waited for.
    pub granted: bool,
    /// The server process of the session. `None`: a prepared transaction, which has none.
    pub pid: Option<i32>,
    /// Its `application_name`, where one is set.
    pub application: Option<String>,
    /// The user who is logged in.
    pub user: Option<String>,
    /// The client's IP address. `None` on a Unix socket too.
    pub client: Option<String>,
    /// What the session does: `active`, `idle`, `idle in transaction`, ….
    pub state: Option<String>,
    /// For how long it has been in that state.
    pub state_for: Option<Duration>,
    /// For how long its transaction has been open, if one is.
    pub transaction_for: Option<Duration>,
    /// For how long it has been connected.
    pub connected_for: Option<Duration>,
    /// For how long it has been waiting, if it does (since PostgreSQL 14).
    pub waiting_for: Option<Duration>,
    /// The processes it waits for, holders and earlier waiters (`pg_blocking_pids`); 0 stands for a
    /// prepared transaction. Empty for a holder.
    pub blocked_by: Vec<i32>,
}

/// The sessions that hold a key. One round trip, or two with diesel.
///
/// # Errors
///
/// [`Error::Inspect`]: no connection, or no right to read `pg_locks`.
pub fn holders<B>(backend: &mut B, key: impl Into<Key>) -> Result<Vec<Claim>, Error>
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
pub fn waiters<B>(backend: &mut B, key: impl Into<Key>) -> Result<Vec<Claim>, Error>
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

// The statements. They are views' rows as one text a row, with the control characters that separate
// fields and rows taken out of what users chose.

const FIELD: char = '\x1f';

fn claims_sql(keys: &[Key], condition: &str) -> String {
    let seconds = |since: &str| format!("extract(epoch FROM clock_timestamp() - {since})::text");
    format!(
        "SELECT array_to_string(ARRAY[l.classid::text, l.objid::text, l.objsubid::text, l.mode, l.granted::text, l.pid::text, \
         {application}, {user}, host(a.client_addr), a.state, {state}, {transaction}, {connected}, {waiting}, \
         CASE WHEN NOT l.granted THEN array_to_string(pg_blocking_pids(l.pid), ' ') END], chr(31), '') AS line \
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

impl Claim {
    fn read(line: &str, keys: &[Key]) -> Option<Self> {
        fn seconds(text: &str) -> Option<Duration> {
            Duration::try_from_secs_f64(text.parse::<f64>().ok()?.max(0.0)).ok()
        }
        let fields: Vec<_> = line.split(FIELD).collect();
        let &[
            classid,
            objid,
            objsubid,
            mode,
            granted,
            pid,
            application,
            user,
            client,
            state,
            state_for,
            transaction_for,
            connected_for,
            waiting_for,
            blocked_by,
        ] = fields.as_slice()
        else {
            return None;
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let key = Key::from_pg_locks(
            classid.parse().ok()?,
            objid.parse().ok()?,
            objsubid.parse().ok()?,
        );
        Some(Self {
            key: keys
                .iter()
                .find(|known| **known == key)
                .cloned()
                .unwrap_or(key),
            mode: match mode {
                "ShareLock" => Mode::Shared,
                _ => Mode::Exclusive,
            },
            granted: granted == "true",
            pid: pid.parse().ok(),
            application: text(application),
            user: text(user),
            client: text(client),
            state: text(state),
            state_for: seconds(state_for),
            transaction_for: seconds(transaction_for),
            connected_for: seconds(connected_for),
            waiting_for: seconds(waiting_for),
            blocked_by: blocked_by
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect(),
        })
    }
}

/// `pid 4711 "mailer", idle in transaction for 00:03:12`: who it is, without the key.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("a prepared transaction")?,
        }
        if let Some(application) = &self.application {
            write!(f, " {application:?}")?;
        }
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        if let (Some(_), Some(duration)) = (&self.state, self.state_for) {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            write!(f, " for {hours:02}:{minutes:02}:{:02}", seconds % 60)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: [&str; 15]) -> String {
        fields.join("\x1f")
    }

    #[test]
    fn a_line_is_read_and_shown() {
        let line = line([
            "4294967295",
            "4294967295",
            "1",
            "ShareLock",
            "true",
            "4711",
            "mailer",
            "app",
            "::1",
            "idle in transaction",
            "192.7",
            "200",
            "3600.5",
            "",
            "",
        ]);
        let claim = Claim::read(&line, &[]).unwrap();
        assert_eq!(claim.key, Key::from(-1));
        assert_eq!((claim.mode, claim.granted), (Mode::Shared, true));
        assert_eq!(claim.connected_for, Some(Duration::from_millis(3_600_500)));
        assert_eq!((claim.waiting_for, &*claim.blocked_by), (None, &[][..]));
        assert_eq!(
            claim.to_string(),
            "pid 4711 \"mailer\", idle in transaction for 00:03:12"
        );
    }

    #[test]
    fn what_may_not_be_seen_is_left_out() {
        let line = line([
            "1",
            "2",
            "2",
            "ExclusiveLock",
            "false",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "-0.5",
            "3 0",
        ]);
        let claim = Claim::read(&line, &[]).unwrap();
        assert_eq!(claim.key, Key::from((1, 2)));
        assert_eq!((claim.pid, &claim.user, &claim.state), (None, &None, &None));
        assert_eq!(
            claim.waiting_for,
            Some(Duration::ZERO),
            "clocks may step back"
        );
        assert_eq!(claim.blocked_by, [3, 0]);
        assert_eq!(claim.to_string(), "a prepared transaction");
    }
}
