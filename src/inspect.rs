//! Who holds a lock, who waits for it, and for how long: what [`pg_locks`] and [`pg_stat_activity`]
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
//! Any session may look at the locks of the current database. For sessions of *other* users it sees
//! the process, the user and the application; state and times need the rights of
//! `pg_read_all_stats` or `pg_monitor` ([Predefined Roles]), and are `None` without them.
//!
//! The answer holds only for the moment. Looking takes a short lock on the server's whole lock
//! table (as [`pg_locks`] says), so do not look a thousand times a second. Inside a transaction the
//! columns of `pg_stat_activity` are as they were at the first look ([`stats_fetch_consistency`]),
//! and a look that fails aborts the transaction, as any statement does.
//!
//! [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
//! [`pg_stat_activity`]: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
//! [Predefined Roles]: https://www.postgresql.org/docs/current/predefined-roles.html
//! [`stats_fetch_consistency`]: https://www.postgresql.org/docs/current/runtime-config-statistics.html#GUC-STATS-FETCH-CONSISTENCY

pub use crate::claim::Claim;
use crate::driver::{Failure, LockBackend, Session};
use crate::error::Error;
pub use crate::escape::escaped;
use crate::key::{IntoKey, Key};
use crate::sql;

/// The sessions that hold a key. One round trip, or two with diesel.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{inspect, with_lock};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let holders = with_lock(&mut client, "doc:holders", |conn| {
///     inspect::holders(conn, "doc:holders")
/// })?;
/// println!("held by {}", holders[0]);
/// # assert_eq!(holders.len(), 1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Inspect`]: no connection, or no right to read `pg_locks`.
pub fn holders<B: LockBackend + ?Sized>(
    backend: &mut B,
    key: impl IntoKey,
) -> Result<Vec<Claim>, Error> {
    claims(backend, &[key.into()], "l.granted")
}

/// The sessions that wait for a key, the longest wait first. One round trip, or two with diesel.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::inspect;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// for waiter in inspect::waiters(&mut client, "doc:waiters")? {
///     println!("{waiter} has waited for {:?}, behind {:?}", waiter.waiting_for, waiter.blocked_by);
/// }
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`holders`].
pub fn waiters<B: LockBackend + ?Sized>(
    backend: &mut B,
    key: impl IntoKey,
) -> Result<Vec<Claim>, Error> {
    claims(backend, &[key.into()], "NOT l.granted")
}

/// All advisory locks of the current database, including those of other programs: ordered by key,
/// and for each key its holders before its waiters. One round trip, or two with diesel.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::inspect;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// for claim in inspect::locks(&mut client)? {
///     let verb = if claim.granted { "holds" } else { "waits for" };
///     println!("{claim} {verb} {}", claim.key);
/// }
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`holders`].
pub fn locks<B: LockBackend + ?Sized>(backend: &mut B) -> Result<Vec<Claim>, Error> {
    claims(backend, &[], "true")
}

/// Cancels the statement that a session runs (`pg_cancel_backend`), if it still has this claim. A
/// waiter gets [`Error::Canceled`]; an idle holder goes on holding.
///
/// Returns whether the signal was sent.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use std::time::Duration;
/// use pglock::inspect;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// for waiter in inspect::waiters(&mut client, "doc:cancel")? {
///     if waiter.waiting_for > Some(Duration::from_secs(60)) {
///         inspect::cancel(&mut client, &waiter)?;
///     }
/// }
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Inspect`]: no connection, or no right to cancel. That needs the same user,
/// `pg_signal_backend` or a superuser ([Server Signaling Functions]).
///
/// [Server Signaling Functions]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
pub fn cancel<B: LockBackend + ?Sized>(backend: &mut B, claim: &Claim) -> Result<bool, Error> {
    signal(backend, claim, "pg_cancel_backend")
}

/// Ends a session (`pg_terminate_backend`), if it still has this claim: its transaction is rolled
/// back, and all its locks are free.
///
/// Returns whether the signal was sent; the session ends soon after.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Lock, inspect};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let mut stuck = Client::connect(&url, NoTls)?;
/// let mut lock = Lock::new(&mut stuck, "doc:terminate");
/// let guard = lock.acquire()?;
/// for holder in inspect::holders(&mut client, "doc:terminate")? {
///     assert!(inspect::terminate(&mut client, &holder)?);
/// }
/// // The lock is free as soon as the session has ended.
/// Lock::new(&mut client, "doc:terminate").run(|_| Ok::<_, pglock::Error>(()))?;
/// # drop(guard);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`cancel`].
pub fn terminate<B: LockBackend + ?Sized>(backend: &mut B, claim: &Claim) -> Result<bool, Error> {
    signal(backend, claim, "pg_terminate_backend")
}

fn claims<B: LockBackend + ?Sized>(
    backend: &mut B,
    keys: &[Key],
    condition: &str,
) -> Result<Vec<Claim>, Error> {
    let lines = query(backend, &sql::claims_of(keys, condition))?;
    Ok(Claim::read_all(&lines, keys))
}

fn signal<B: LockBackend + ?Sized>(
    backend: &mut B,
    claim: &Claim,
    function: &str,
) -> Result<bool, Error> {
    let Some(pid) = claim.pid else {
        return Ok(false);
    };
    let lines = query(backend, &sql::signal(&claim.key, pid, function))?;
    Ok(lines.iter().any(|line| line == "true"))
}

fn query<B: LockBackend + ?Sized>(backend: &mut B, sql: &str) -> Result<Vec<String>, Error> {
    ask(backend, |session| session.query(sql))
}

pub(crate) fn ask<B: LockBackend + ?Sized, T>(
    backend: &mut B,
    ask: impl FnOnce(&mut B::Session) -> Result<T, Failure>,
) -> Result<T, Error> {
    let failed = |source| Error::Inspect { source };
    let mut session = backend.session().map_err(failed)?;
    ask(&mut session).map_err(|failure| failed(failure.into_error()))
}
