//! What pglock needs from a driver, for those who add one: [`Session`] is one connection, and
//! [`LockBackend`] is where a lock finds it.
//!
//! A driver is one type that implements both, as `postgres::Client` does. `tests/third_driver` in the
//! repository is one over `tokio-postgres`, written from this page alone.
//!
//! # What a session must do
//!
//! - Send each text as **one message of the [simple query protocol]**. Several statements in it are
//!   one implicit transaction, and `now() = statement_timestamp()` holds in it; pglock relies on both.
//! - Wait for the end of the reply, and report an error by [`Failure::from_error`], with the server's
//!   SQLSTATE and its primary message. An error that ends the session is [`Failure::Lost`]: the server's
//!   with the severity FATAL or PANIC, or one without a severity, such as a socket's. When the server ends a session, its last error says why. If the driver then only says that the
//!   connection is closed, but has kept that error, report the error: it becomes the source of pglock's.
//! - Open transactions as [`Session::transact`] says.
//!
//! The session and its transaction can be one type, as with diesel, or two. With two, the transaction
//! is a [`Session`] and a [`LockBackend`] too, and its own `transact` makes a savepoint. What can be in
//! a transaction is also a [`TransactionBackend`].
//!
#![doc = include_str!("example.md")]
//! # How to check it
//!
//! The conformance suite in the repository, `tests/conformance`, runs on any driver: implement the
//! trait `Harness` in its `harness.rs`, and for the transaction `InTransaction`, and add a line for
//! each to its `main.rs`.
//!
//! [simple query protocol]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT

use std::ops::{Deref, DerefMut};
use std::time::Duration;

pub use self::pooled::Pooled;
pub use self::transaction::{Finish, Opening, Transacted};
pub use crate::failure::{BoxError, Failure, Refusal};
pub use crate::sql::{Parameter, Statement};

pub(crate) use self::known::{keep, recall};
pub(crate) use self::persist::{end_session, insist, until_answered, while_canceled};
#[cfg(feature = "r2d2")]
pub(crate) use self::pooled::Kept;
pub(crate) use self::pooled::{Place, QueuePlace};
pub(crate) use self::release::release;
use crate::error::Error;
use crate::failure::answer;
use crate::prepared;
use crate::request::Scope;
use crate::stop::StopToken;
use crate::targets::LockInfo;

mod known;
mod persist;
mod pooled;
mod release;
mod transaction;

/// Where a lock finds the session that holds it. A connection is its own session; a pool checks one
/// out for as long as the lock is held.
///
/// Implemented for `postgres::Client` and `postgres::Transaction` (feature `postgres`),
/// `diesel::PgConnection` (feature `diesel`), `r2d2::Pool` and `r2d2::PooledConnection` of either
/// (feature `r2d2`), and a mutable reference to any of them.
///
/// # Implementing it
///
/// A wrapper around a connection passes on the connection inside:
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use pglock::LockBackend;
/// use pglock::driver::BoxError;
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
    message = "`{Self}` is not a connection or pool that pglock can acquire a lock on",
    label = "pglock finds no session here",
    note = "switch on the cargo feature of your driver: `postgres` for postgres::Client and Transaction, `diesel` for diesel::PgConnection, `r2d2` (beside the driver's) for pools and pooled connections",
    note = "to pass a connection that is behind a smart pointer of your own, dereference it: `&mut *conn`",
    note = "for another type of your own, pass the connection inside, or implement `pglock::LockBackend`: its documentation shows how"
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
    /// If there is none. The lock reports it as [`Error::Checkout`].
    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError>;

    /// Finds the session for an acquire. Defaults to [`session`](LockBackend::session). A pool limits
    /// its checkout by the lock's timeout here, and a `QueuedPool` lets threads wait for each other
    /// before they take a session.
    ///
    /// # Errors
    ///
    /// [`Acquire::no_session`] if there is none. Where threads wait, also [`Error::Timeout`], [`Error::Stopped`] and
    /// [`Error::AlreadyHeld`].
    fn session_for(&mut self, acquire: &Acquire<'_>) -> Result<Self::Handle<'_>, Error> {
        self.session()
            .map_err(|source| acquire.no_session(false, source))
    }
}

/// A backend that a guard can own, by [`Lock::acquire_owned`](crate::Lock::acquire_owned): a connection, a
/// pooled one, or a pool. Every [`Session`] is one.
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use pglock::driver::{Acquire, BoxError, Owned, OwnedBackend};
/// use pglock::{Error, LockBackend};
/// use postgres::Client;
///
/// struct Database { client: Client }
///
/// # impl LockBackend for Database {
/// #     type Session = Client;
/// #     type Handle<'a> = &'a mut Client;
/// #
/// #     fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
/// #         Ok(&mut self.client)
/// #     }
/// # }
/// #
/// impl OwnedBackend for Database {
///     type Owned = Owned<Client>;
///
///     fn into_session_for(self, acquire: &Acquire<'_>) -> Result<Owned<Client>, Error> {
///         self.client.into_session_for(acquire)
///     }
/// }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a guard cannot own `{Self}`",
    note = "a guard owns a connection, a pooled connection, or one from a pool; for a borrowed connection use `acquire`"
)]
pub trait OwnedBackend: LockBackend + Sized {
    /// What keeps the session for as long as the guard lives.
    type Owned: SessionHandle<Target = Self::Session>;

    /// Finds the session for an acquire, as [`session_for`](LockBackend::session_for) does, and keeps
    /// it.
    ///
    /// # Errors
    ///
    /// As [`session_for`](LockBackend::session_for).
    fn into_session_for(self, acquire: &Acquire<'_>) -> Result<Self::Owned, Error>;
}

impl<S: Session> OwnedBackend for S {
    type Owned = Owned<S>;

    fn into_session_for(self, _: &Acquire<'_>) -> Result<Self::Owned, Error> {
        Ok(Owned(Some(self)))
    }
}

/// A connection that its guard owns.
#[derive(Debug)]
pub struct Owned<S>(Option<S>);

const GIVEN_BACK: &str = "only a guard that is being consumed gives its connection back";

impl<S> Owned<S> {
    /// Takes the connection out, of a guard that is over.
    pub(crate) fn take(&mut self) -> S {
        self.0.take().expect(GIVEN_BACK)
    }
}

impl<S> Deref for Owned<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.0.as_ref().expect(GIVEN_BACK)
    }
}

impl<S> DerefMut for Owned<S> {
    fn deref_mut(&mut self) -> &mut S {
        self.0.as_mut().expect(GIVEN_BACK)
    }
}

impl<S: Session> SessionHandle for Owned<S> {}

/// The acquire that a session is for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Acquire<'a> {
    /// The lock.
    pub lock: &'a LockInfo,
    /// The transaction's in the forms that run in a transaction, and where the caller has set it;
    /// else the session's.
    pub scope: Scope,
    /// The lock's timeout, which limits the wait for a session too; zero for a single attempt.
    pub timeout: Option<Duration>,
    /// What ends the wait.
    pub stop: Option<&'a StopToken>,
    /// Whether the lock lasts for one message only: threads then wait better in the server's queue
    /// than in one of this process.
    pub one_message: bool,
}

impl Acquire<'_> {
    /// [`Error::Checkout`]: there is no session. `in_use` says that all connections of the pool are in use, so that
    /// another moment may do better.
    pub fn no_session(&self, in_use: bool, source: impl Into<BoxError>) -> Error {
        Error::no_session(self.lock, in_use, source)
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

    fn session_for(&mut self, acquire: &Acquire<'_>) -> Result<Self::Handle<'_>, Error> {
        (**self).session_for(acquire)
    }
}

/// What keeps a session for as long as a lock is held on it: a borrow, or a connection checked out
/// of a pool. For one of your own: `impl SessionHandle for MyHandle {}`.
pub trait SessionHandle: DerefMut<Target: Session> {
    /// What pglock keeps beside a session from a pool. A handle around another passes on the other's, so that the
    /// session stays as fast, and a lock on a second connection is still refused before it waits for itself. Defaults
    /// to `None`.
    ///
    /// ```
    /// # #[cfg(all(feature = "postgres", feature = "r2d2"))] {
    /// use std::ops::{Deref, DerefMut};
    ///
    /// use pglock::driver::{Pooled, SessionHandle};
    /// use r2d2::{ManageConnection, PooledConnection};
    ///
    /// struct Traced<M: ManageConnection<Connection = postgres::Client>>(PooledConnection<M>);
    ///
    /// impl<M: ManageConnection<Connection = postgres::Client>> SessionHandle for Traced<M> {
    ///     fn pooled(&mut self) -> Option<&mut dyn Pooled> {
    ///         self.0.pooled()
    ///     }
    /// }
    /// #
    /// # impl<M: ManageConnection<Connection = postgres::Client>> Deref for Traced<M> {
    /// #     type Target = postgres::Client;
    /// #     fn deref(&self) -> &postgres::Client { &self.0 }
    /// # }
    /// # impl<M: ManageConnection<Connection = postgres::Client>> DerefMut for Traced<M> {
    /// #     fn deref_mut(&mut self) -> &mut postgres::Client { &mut self.0 }
    /// # }
    /// # }
    /// ```
    fn pooled(&mut self) -> Option<&mut dyn Pooled> {
        None
    }
}

impl<S: Session> SessionHandle for &mut S {}

/// A backend that can be in a transaction which the caller opened, so that
/// [`transaction_lock`](crate::transaction_lock) works on it.
///
/// `postgres::Client` is not one: while its transaction is open, only the `postgres::Transaction` can
/// be used. A pool is not one either: it would lock on another connection.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be inside a transaction that its caller opened",
    note = "pass the transaction itself (`client.transaction()?`), or use with_transaction_lock, which opens one"
)]
pub trait TransactionBackend: LockBackend {}

impl<B: TransactionBackend + ?Sized> TransactionBackend for &mut B {}

/// One connection to PostgreSQL, as a driver offers it. It is a backend too: a body can lock again on
/// the connection that it gets, also in generic code.
///
/// The [module](crate::driver) says what an implementation must do, and has an example.
pub trait Session: LockBackend<Session = Self> + Sized {
    /// What the body of a transaction gets: the driver's own type for it.
    type Transaction<'t>: Session + TransactionBackend;

    /// Whether the driver tells the SQLSTATE of an error. Defaults to `true`. Without it, pglock has the
    /// server write it into the error's text, where it matters.
    const HAS_SQLSTATE: bool = true;

    /// Whether a transaction is open, as far as the driver knows.
    fn in_transaction(&mut self) -> bool;

    /// Whether the driver knows already that the session cannot be used any more. It does not ask
    /// the server. Defaults to `false`.
    fn is_broken(&mut self) -> bool {
        false
    }

    /// Looks whether the server has closed the connection, and returns why. It sends nothing, and may
    /// drop notifications that have come. Defaults to [`is_broken`](Session::is_broken).
    ///
    /// The keeper of an [election](crate::election)'s term looks some fifty times a second, so that a
    /// term ends as soon as its connection does.
    fn hung_up(&mut self) -> Option<BoxError> {
        self.is_broken().then(|| "the connection is broken".into())
    }

    /// Sends statements as one message of the simple query protocol, and then a question, which is a
    /// single query with one column of text called `line`. Returns that column of its rows, without those
    /// that are NULL. Either may be empty.
    ///
    /// A driver whose simple query protocol returns rows sends both as one message, the question behind
    /// the statements, and may return rows of the statements in front of the question's. Another one sends
    /// the question as a message of its own, unless there is none. In a transaction, it must
    /// leave no portal behind: that keeps a snapshot.
    ///
    /// # Errors
    ///
    /// [`Failure::Lost`] when the connection is gone. Any other error from the server is [`Failure::Sql`]
    /// or [`Failure::Refused`]: [`Failure::from_error`] decides.
    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure>;

    /// Sends statements as one message. A row in which one of pglock's says why it is refused is a failure.
    ///
    /// # Errors
    ///
    /// As [`message`](Session::message), and [`Failure::Refused`].
    fn send(&mut self, statements: &str) -> Result<(), Failure> {
        answer(self.message(statements, ""))
    }

    /// Asks a question: a single query with one column of text called `line`.
    ///
    /// # Errors
    ///
    /// As [`message`](Session::message).
    fn query(&mut self, question: &str) -> Result<Vec<String>, Failure> {
        self.message("", question)
    }

    /// Runs a statement of pglock's, and returns its rows. `before` is text that goes in front of it in the
    /// same message, if that may have any. Defaults to SQL's own PREPARE and EXECUTE by the simple query
    /// protocol, once the session is known to be used more than once.
    ///
    /// A driver that does not send a question by the simple query protocol must implement it, and a wrapper
    /// around a driver passes it on: by another protocol, the text would see a transaction that is open.
    ///
    /// A driver that keeps prepared statements itself runs [`Statement::extended`] with
    /// [`Statement::parameters`] instead. Only where the server plans the statement once a session is a lock
    /// as cheap as the barest one.
    ///
    /// # Errors
    ///
    /// As [`message`](Session::message).
    fn prepared(&mut self, before: &str, statement: &Statement) -> Result<Vec<String>, Failure> {
        prepared::run_with(self, statement, |session, text| {
            session.query(&[before, text].concat())
        })
    }

    /// Runs `body` in a transaction, or in a savepoint of the one that is open.
    ///
    /// A transaction begins in one of two ways:
    ///
    /// - by [`Opening::begin`], one message. If it fails, this call has opened nothing: return the failure,
    ///   and send nothing, because the caller may have a transaction open by a raw `BEGIN`.
    /// - by the driver's own `BEGIN`.
    ///
    /// After `body`, [`Finish::Commit`] means: call [`Opening::commit`], which sends the COMMIT, and
    /// ROLLBACK if it fails. [`Finish::Rollback`] means ROLLBACK, and so does a panic. [`Finish::Leave`]
    /// means nothing: it comes only after the driver's own `BEGIN`. A savepoint needs nothing from the
    /// opening: RELEASE it, or roll back to it and RELEASE it, also if the first RELEASE fails. A cancel can
    /// hit a ROLLBACK: repeat it while it fails with [`Failure::Sql`], within reason.
    ///
    /// [`Transacted::ended`] is the failure of the COMMIT or the RELEASE, else that of the ROLLBACK.
    ///
    /// # Errors
    ///
    /// What kept `body` from running. This call has then left nothing open. How the transaction ended
    /// is in [`Transacted`].
    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Self::Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure>;

    /// Ends the session on the server, so that a pool does not take the connection back. Implement it
    /// if the driver's pool looks at a mark on the connection: end the session, and set the mark.
    fn terminate(&mut self) {
        end_session(|text| self.send(text));
        let _ = self.send(""); // shows the driver that the connection has ended: its pool looks at that
    }
}
