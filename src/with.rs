//! The short forms: one function per use, with the defaults of [`Lock`].

use crate::driver::{LockBackend, Session, TransactionBackend};
use crate::error::Error;
use crate::lock::sections::free;
use crate::lock::{Lock, transactions};
use crate::request::Request;
use crate::targets::{IntoTarget, SessionTarget};

/// Acquires the lock, runs the body with the connection, and releases the lock.
///
/// It waits until the lock is free; [`Lock::timeout`] sets a limit. Outside a transaction it is a
/// session lock and takes two round trips. Inside one (a diesel connection in `transaction`, a
/// `postgres::Transaction`) it is a transaction lock, which is held until that transaction ends.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// use pglock::{key, with_lock};
/// use postgres::{Client, NoTls};
///
/// fn withdraw(client: &mut Client, user_id: i64) -> anyhow::Result<i64> {
///     with_lock(client, key!("doc:withdraw:{user_id}"), |conn| {
///         let balance: i64 = conn.query_one("SELECT 100::bigint", &[])?.get(0);
///         Ok(balance - 10)
///     })
/// }
///
/// # let url = std::env::var("DATABASE_URL")?;
/// let mut client = Client::connect(&url, NoTls)?;
/// assert_eq!(withdraw(&mut client, 42)?, 90);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// The body returns `Result<T, E>` for any `E: From<pglock::Error>`. Above, the function's return
/// type says which. If `?` follows the call, nothing does, and the compiler reports E0283, "type
/// annotations needed". Name the type in the closure's last line: `anyhow::Ok(())`, `Ok::<_, MyError>(())`, or for
/// boxed errors
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use pglock::with_lock;
/// use postgres::{Client, NoTls};
///
/// type BoxError = Box<dyn std::error::Error>;
///
/// fn main() -> Result<(), BoxError> {
///     let mut client = Client::connect(&std::env::var("DATABASE_URL")?, NoTls)?;
///     with_lock(&mut client, "doc:boxed", |conn| {
///         conn.batch_execute("SELECT 'the work'")?;
///         Ok::<_, BoxError>(())
///     })?;
///     Ok(())
/// }
/// # main().unwrap();
/// # }
/// ```
///
/// A reference to a pool is a backend, too: pass `&mut &pool`.
///
/// # Errors
///
/// Those of [`Lock::run`].
pub fn with_lock<B: LockBackend + ?Sized, T, E: From<Error>>(
    backend: &mut B,
    target: impl IntoTarget<Target = impl SessionTarget>,
    body: impl FnOnce(&mut B::Session) -> Result<T, E>,
) -> Result<T, E> {
    Lock::new(backend, target).run(body)
}

/// Runs the body if the lock is free, and returns `None` if another session holds it.
///
/// It never waits.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let done = pglock::try_with_lock(&mut client, "doc:nightly-report", |conn| {
///     conn.batch_execute("SELECT 'the report'")
///         .map_err(pglock::Error::from)
/// })?;
/// if done.is_none() {
///     println!("already running");
/// }
/// # assert!(done.is_some());
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Lock::try_run`].
pub fn try_with_lock<B: LockBackend + ?Sized, T, E: From<Error>>(
    backend: &mut B,
    target: impl IntoTarget<Target = impl SessionTarget>,
    body: impl FnOnce(&mut B::Session) -> Result<T, E>,
) -> Result<Option<T>, E> {
    Lock::new(backend, target).try_run(body)
}

/// Runs the body in a transaction under the lock: BEGIN, lock, body, COMMIT.
///
/// An error or a panic of the body rolls the transaction back. The body gets the driver's own
/// transaction type. Rows and tables can be locked as well as keys.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE seat (name text, buyer text); INSERT INTO seat VALUES ('12A')")?;
/// let sold = pglock::with_transaction_lock(&mut client, "doc:seat:12A", |tx| {
///     tx.execute("UPDATE seat SET buyer = $1 WHERE name = '12A' AND buyer IS NULL", &[&"ada"])
///         .map_err(pglock::Error::from)
/// })?;
/// assert_eq!(sold, 1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Lock::run_in_transaction`].
pub fn with_transaction_lock<B: LockBackend + ?Sized, T, E: From<Error>>(
    backend: &mut B,
    target: impl IntoTarget,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    Lock::new(backend, target).run_in_transaction(body)
}

/// Runs [`with_transaction_lock`] if the lock is free, and returns `None` if another session holds it.
///
/// It never waits.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let sold = pglock::try_with_transaction_lock(&mut client, "doc:seat:12C", |tx| {
///     tx.batch_execute("SELECT 'sell the seat'")
///         .map_err(pglock::Error::from)
/// })?;
/// if sold.is_none() {
///     println!("somebody else is at this seat");
/// }
/// # assert!(sold.is_some());
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Lock::try_run_in_transaction`].
pub fn try_with_transaction_lock<B: LockBackend + ?Sized, T, E: From<Error>>(
    backend: &mut B,
    target: impl IntoTarget,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
) -> Result<Option<T>, E> {
    Lock::new(backend, target).try_run_in_transaction(body)
}

/// Acquires the lock for the transaction that the caller opened.
///
/// It is held until that transaction ends, and released by its COMMIT or ROLLBACK. One round trip.
///
/// Taken behind a savepoint, it ends with that savepoint if that is rolled back: where a nested
/// `transaction` of a driver fails, the lock is gone, and the outer transaction goes on without it.
/// Take it before the savepoint if the whole transaction needs it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let mut tx = client.transaction()?;
/// pglock::transaction_lock(&mut tx, "doc:seat:12B")?;
/// tx.batch_execute("SELECT 'sell the seat'")?;
/// tx.commit()?; // releases the lock
/// # }
/// # Ok(())
/// # }
/// ```
///
/// A bare `postgres::Client` has no transaction open, and does not compile:
///
/// ```compile_fail,E0277
/// # fn sell(client: &mut postgres::Client) -> Result<(), pglock::Error> {
/// pglock::transaction_lock(client, "seat:12A")
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Lock::acquire`], and for rows and tables [`Error::NoSuchRow`], [`Error::Changed`] and
/// [`Error::NulByte`]. After any of them, the transaction goes on as it was.
pub fn transaction_lock<B: TransactionBackend + ?Sized>(
    backend: &mut B,
    target: impl IntoTarget,
) -> Result<(), Error> {
    transactions::for_transaction(backend, &Request::new(target.into_target().into()))
}

/// Acquires a [`transaction_lock`] if it is free, and returns `false` if another session holds it.
///
/// It never waits.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let mut tx = client.transaction()?;
/// if pglock::try_transaction_lock(&mut tx, "doc:seat:12D")? {
///     tx.batch_execute("SELECT 'sell the seat'")?;
/// }
/// tx.commit()?; // releases the lock
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`transaction_lock`], except the timeout. After any of them, the transaction goes on as
/// it was.
pub fn try_transaction_lock<B: TransactionBackend + ?Sized>(
    backend: &mut B,
    target: impl IntoTarget,
) -> Result<bool, Error> {
    let request = Request::new(target.into_target().into()).or_no_wait();
    Ok(free(transactions::for_transaction(backend, &request))?.is_some())
}
