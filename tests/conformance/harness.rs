//! The backends on which the promises are checked.

use pglock::driver::{BoxError, Session, TransactionBackend};
use pglock::{Error, LockBackend};

use crate::oracle::url;

#[path = "../third_driver/mod.rs"]
pub mod third_driver;

/// A backend of which the suite can make as many as it needs. To run the suite against a backend
/// of your own, implement this and add a line to `main.rs`.
pub trait Harness {
    type Backend<'a>: LockBackend;

    /// Calls `f` with a fresh backend, outside a transaction.
    fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R;
}

/// The same for a backend that stands in a transaction of the caller's, READ COMMITTED, which is
/// rolled back afterwards.
pub trait InTransaction {
    type Backend<'a>: TransactionBackend;

    fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R;
}

/// Runs SQL on a session, as a body does.
pub fn sql<S: Session>(session: &mut S, text: &str) -> Result<(), Error> {
    Ok(session.send(text)?)
}

/// Runs SQL on the session that the backend would lock on.
pub fn on<B: LockBackend + ?Sized>(backend: &mut B, text: &str) -> Result<(), Error> {
    let mut session = backend.session().map_err(Error::body)?;
    sql(&mut *session, text)
}

/// Whether a condition holds, on the session that the backend would lock on.
pub fn holds<B: LockBackend + ?Sized>(backend: &mut B, condition: &str) -> bool {
    on(backend, &format!("SELECT 1 / ({condition})::int")).is_ok()
}

#[cfg(feature = "postgres")]
pub use postgres_backends::*;
#[cfg(feature = "postgres")]
mod postgres_backends {
    use super::*;
    use crate::oracle::connect;

    pub struct PostgresClient;
    pub struct PostgresTransaction;

    impl Harness for PostgresClient {
        type Backend<'a> = postgres::Client;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut connect())
        }
    }

    impl InTransaction for PostgresTransaction {
        type Backend<'a> = postgres::Transaction<'a>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut connect().transaction().unwrap())
        }
    }
}

/// The server notices the end of the connection only after a moment; this waits for that, unless a test
/// has ended it.
#[cfg(feature = "diesel")]
fn roll_back(connection: &mut diesel::PgConnection) {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};

    let _ = AnsiTransactionManager::rollback_transaction(connection);
}

#[cfg(feature = "diesel")]
pub use diesel_backends::*;
#[cfg(feature = "diesel")]
mod diesel_backends {
    use diesel::connection::Connection;
    use diesel::pg::PgConnection;

    use super::*;
    use crate::oracle::url;

    pub struct DieselConnection;
    pub struct DieselTransaction;

    impl Harness for DieselConnection {
        type Backend<'a> = PgConnection;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut PgConnection::establish(&url()).unwrap())
        }
    }

    impl InTransaction for DieselTransaction {
        type Backend<'a> = PgConnection;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            let mut connection = PgConnection::establish(&url()).unwrap();
            connection.begin_test_transaction().unwrap();
            let result = f(&mut connection);
            roll_back(&mut connection);
            result
        }
    }
}

/// Pools of one connection, so that a test can prepare the session that it will lock on. They open none
/// in advance, since the suite runs many pools at once.
#[cfg(all(feature = "r2d2", any(feature = "postgres", feature = "diesel")))]
fn pool<M: r2d2::ManageConnection>(manager: M) -> r2d2::Pool<M> {
    r2d2::Pool::builder().max_size(1).build(manager).unwrap()
}

#[cfg(all(feature = "r2d2", feature = "postgres"))]
pub use postgres_pools::*;
#[cfg(all(feature = "r2d2", feature = "postgres"))]
mod postgres_pools {
    use pglock::QueuedPool;
    use postgres::NoTls;
    use r2d2_postgres::PostgresConnectionManager;

    use super::*;
    use crate::oracle::url;

    pub struct PostgresPool;
    pub struct PostgresPooled;
    pub struct PostgresQueued;

    type Manager = PostgresConnectionManager<NoTls>;

    fn postgres_pool() -> r2d2::Pool<Manager> {
        pool(Manager::new(url().parse().unwrap(), NoTls))
    }

    impl Harness for PostgresPool {
        type Backend<'a> = r2d2::Pool<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut postgres_pool())
        }
    }

    impl Harness for PostgresPooled {
        type Backend<'a> = r2d2::PooledConnection<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut postgres_pool().get().unwrap())
        }
    }

    impl Harness for PostgresQueued {
        type Backend<'a> = QueuedPool<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut QueuedPool::new(postgres_pool()))
        }
    }
}

#[cfg(all(feature = "r2d2", feature = "diesel"))]
pub use diesel_pools::*;
#[cfg(all(feature = "r2d2", feature = "diesel"))]
mod diesel_pools {
    use diesel::connection::Connection;
    use diesel::pg::PgConnection;
    use diesel::r2d2::ConnectionManager;
    use pglock::QueuedPool;

    use super::*;
    use crate::oracle::url;

    pub struct DieselPool;
    pub struct DieselPooled;
    pub struct DieselPooledTransaction;
    pub struct DieselQueued;

    type Manager = ConnectionManager<PgConnection>;

    fn diesel_pool() -> r2d2::Pool<Manager> {
        pool(Manager::new(url()))
    }

    impl Harness for DieselPool {
        type Backend<'a> = r2d2::Pool<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut diesel_pool())
        }
    }

    impl Harness for DieselPooled {
        type Backend<'a> = r2d2::PooledConnection<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut diesel_pool().get().unwrap())
        }
    }

    impl Harness for DieselQueued {
        type Backend<'a> = QueuedPool<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            f(&mut QueuedPool::new(diesel_pool()))
        }
    }

    impl InTransaction for DieselPooledTransaction {
        type Backend<'a> = r2d2::PooledConnection<Manager>;

        fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
            let mut connection = diesel_pool().get().unwrap();
            connection.begin_test_transaction().unwrap();
            let result = f(&mut connection);
            roll_back(&mut connection);
            result
        }
    }
}

/// A driver that is not part of the crate.
pub struct ThirdConnection;
pub struct ThirdTransaction;

impl Harness for ThirdConnection {
    type Backend<'a> = third_driver::Connection;

    fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
        f(&mut third_driver::Connection::connect(&url()).unwrap())
    }
}

impl InTransaction for ThirdTransaction {
    type Backend<'a> = third_driver::Transaction<'a>;

    fn with<R>(f: impl FnOnce(&mut Self::Backend<'_>) -> R) -> R {
        let mut connection = third_driver::Connection::connect(&url()).unwrap();
        f(&mut connection.transaction().unwrap())
    }
}

/// A body's own error, to see that it comes out unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the body says no")]
    Body,
    #[error(transparent)]
    Lock(#[from] Error),
}

impl From<BoxError> for Refusal {
    fn from(error: BoxError) -> Self {
        Error::body(error).into()
    }
}
