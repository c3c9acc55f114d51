//! What pglock needs of a driver: [`Session`], and of the place that sessions come from:
//! [`LockBackend`].

use std::ops::DerefMut;
use std::time::Duration;

use crate::answer::{Answers, BoxError, Failure};
use crate::error::Error;
use crate::request::{LockInfo, Scope};
use crate::sql;

#[cfg(feature = "diesel")]
mod diesel;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "r2d2")]
pub(crate) mod r2d2;

/// Where a lock finds the session that it is held on: a connection is its own, a pool checks one
/// out for as long as the lock is held.
///
/// Implemented for `postgres::Client` and `postgres::Transaction` (feature `postgres`),
/// `diesel::PgConnection` (feature `diesel`), `r2d2::Pool` and `r2d2::PooledConnection` of either
/// (feature `r2d2`), and a mutable reference to any of them.
///
/// # Implementing it
///
/// For a wrapper around a connection, hand on to what is inside:
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use pglock::{BoxError, LockBackend};
///
/// struct Database { client: postgres::Client }
///
/// impl LockBackend for Database {
///     type Session = postgres::Client;
///     type Handle<'a> = &'a mut postgres::Client;
///
///     fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
///         Ok(&mut self.client)
///     }
/// }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no connection or pool that pglock can take a lock on",
    label = "pglock finds no session here",
    note = "switch on the cargo feature of your driver: `postgres` for postgres::Client and Transaction, `diesel` for diesel::PgConnection, `r2d2` (beside the driver's) for pools and pooled connections",
    note = "to pass a connection that is behind a smart pointer of your own, dereference it: `&mut *conn`"
)]
pub trait LockBackend {
    /// The connection on which the lock is held, and which the body gets.
    type Session: Session;

    /// What keeps the session for as long as the lock is held: a borrow, or a connection checked
    /// out of a pool.
    type Handle<'a>: SessionHandle<Target = Self::Session>
    where
        Self: 'a;

    /// Finds the session.
    ///
    /// # Errors
    ///
    /// When there is none to be had. The lock reports it as
    /// [`Error::Checkout`](crate::Error::Checkout).
    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError>;

    /// Finds the session for a lock. Defaults to [`session`](LockBackend::session); a backend that
    /// can wait for a session, or lets its threads wait for each other before, should have its own.
    ///
    /// The scope is the transaction's for the forms that run in a transaction and where it was
    /// insisted on; else the session's.
    ///
    /// The timeout is the lock's, and bounds both waits together: this one ends with it, and what it
    /// has taken is subtracted from the wait at the server, also with the default. Zero is a single
    /// attempt, which waits for nobody.
    ///
    /// # Errors
    ///
    /// [`Error::Checkout`] when there is no session, also at the end of the timeout: whether the lock
    /// is free is not known then. [`Error::Timeout`] and [`Error::AlreadyHeld`] where threads wait
    /// for each other.
    fn session_for(
        &mut self,
        lock: &LockInfo,
        scope: Scope,
        timeout: Option<Duration>,
    ) -> Result<Self::Handle<'_>, Error> {
        let _ = (scope, timeout);
        let lock = lock.clone();
        self.session()
            .map_err(|source| Error::Checkout { lock, source })
    }
}

impl<B: LockBackend + ?Sized> LockBackend for &mut B {
    type Session = B::Session;
    type Handle<'a>
        = B::Handle<'a>
    where
        Self: 'a;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        (**self).session()
    }

    fn session_for(
        &mut self,
        lock: &LockInfo,
        scope: Scope,
        timeout: Option<Duration>,
    ) -> Result<Self::Handle<'_>, Error> {
        (**self).session_for(lock, scope, timeout)
    }
}

/// What keeps a session for as long as a lock is held on it: a borrow, or a connection checked out
/// of a pool. For one of your own the defaults will do: `impl SessionHandle for MyHandle {}`.
pub trait SessionHandle: DerefMut<Target: Session> {
    /// Takes over the session lock that another thread has handed over together with the session.
    /// `true`: it is held, and the caller releases it from now on. Defaults to `false`.
    fn take_over(&mut self) -> bool {
        false
    }

    /// Hands the session lock over to another thread, if one waits, at the end of a section that went
    /// well. `true`: the caller must not release it any more. Defaults to `false`.
    fn hand_over(&mut self, lock: &LockInfo) -> bool {
        let _ = lock;
        false
    }
}

impl<S: Session> SessionHandle for &mut S {}

/// A backend that can stand in a transaction which the caller opened, so that
/// [`transaction_lock`](crate::transaction_lock) makes sense on it.
///
/// `postgres::Client` is none: while its transaction is open, only the `postgres::Transaction` can
/// be reached. A pool is none: it would lock on another connection.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be inside a transaction that its caller opened",
    note = "pass the transaction itself (`client.transaction()?`), or use with_transaction_lock, which opens one"
)]
pub trait TransactionBackend: LockBackend {}

impl<B: TransactionBackend + ?Sized> TransactionBackend for &mut B {}

/// One connection to PostgreSQL, as a driver offers it, and a backend of its own: what a body gets
/// can be locked on again, also in code that is generic over it.
///
/// To implement it for another driver, send each text as one message of the [simple query
/// protocol]: pglock relies on several statements being one implicit transaction, and on `now() =
/// statement_timestamp()` in it.
///
/// [simple query protocol]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
pub trait Session: LockBackend<Session = Self> + Sized {
    /// What the body of a transaction is handed: the driver's own type for it.
    type Transaction<'t>: Session;

    /// How this driver lets a statement answer.
    const ANSWERS: Answers;

    /// Whether a transaction is open, as far as the driver knows.
    fn in_transaction(&mut self) -> bool;

    /// Whether the driver knows already that the session cannot be used any more. It does not ask
    /// the server. Defaults to `false`.
    fn is_broken(&mut self) -> bool {
        false
    }

    /// Sends a text as one message and waits for the end of its reply.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`] when a statement gave an answer, [`Failure::Lost`] when the connection
    /// is gone, [`Failure::Sql`] for any other error.
    fn send(&mut self, sql: &str) -> Result<(), Failure>;

    /// Runs one query whose only column is a text called `line`, and gives its rows. Rows with NULL
    /// are left out. With [`Answers::Rows`] statements that give no rows may stand around it.
    ///
    /// # Errors
    ///
    /// As [`send`](Session::send).
    fn query(&mut self, sql: &str) -> Result<Vec<String>, Failure>;

    /// Opens a transaction, or a savepoint inside one, sends `lock` directly after the BEGIN or in
    /// one message before it, runs `body`, and ends the transaction as `body` says: by `commit`,
    /// with RELEASE of a savepoint, or by rolling back, also when `body` panics. `lock` is empty
    /// for a savepoint.
    ///
    /// # Errors
    ///
    /// What kept `body` from running; the transaction is then rolled back. What becomes of the
    /// COMMIT is told beside the body's own result.
    fn transact<R>(
        &mut self,
        lock: &str,
        commit: &str,
        body: impl FnOnce(&mut Self::Transaction<'_>) -> (R, End),
    ) -> Result<(R, Result<(), Failure>), Failure>;

    /// Ends the session on the server, such that a pool does not take the connection back.
    ///
    /// The second message lets a driver see the end of the connection, on which its pool decides.
    fn end(&mut self) {
        end_session(self);
        let _ = self.send("");
    }
}

/// How often a request is sent that has to come through.
const ATTEMPTS: usize = 8;

fn end_session<S: Session>(session: &mut S) {
    for _ in 0..ATTEMPTS {
        if matches!(session.send(sql::END_SESSION), Err(Failure::Lost(_))) {
            break;
        }
    }
}

/// Sends what has to come through again if it failed, and again and again if it was cancelled:
/// cancels can come in a row.
pub(crate) fn insist(mut send: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    let mut done = send();
    for attempt in 1..ATTEMPTS {
        match &done {
            Err(failure) if failure.is_canceled() || attempt == 1 && failure.may_pass() => {
                done = send();
            }
            _ => break,
        }
    }
    done
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By COMMIT.
    Commit,
    /// By ROLLBACK.
    Rollback,
}
