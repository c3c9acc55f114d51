//! r2d2: `Pool` and `PooledConnection`, of any manager whose connection is a session.

use std::thread;
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::driver::{
    self, Acquire, BoxError, Kept, LockBackend, OwnedBackend, Place, Pooled, Session,
    SessionHandle, TransactionBackend,
};
use crate::error::Error;
use crate::prepared::Known;
use crate::sql;
use crate::targets::LockInfo;

impl<M: ManageConnection<Connection: Session>> LockBackend for PooledConnection<M> {
    type Session = M::Connection;
    type Handle<'a> = &'a mut M::Connection;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

/// A guard owns the connection that the pool gives it.
macro_rules! pools {
    ($($backend:ty),*) => {$(
        impl<M: ManageConnection<Connection: Session>> LockBackend for $backend {
            type Session = M::Connection;
            type Handle<'a> = PooledConnection<M> where Self: 'a;

            fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
                Ok(self.get()?)
            }

            fn session_for(&mut self, acquire: &Acquire<'_>) -> Result<Self::Handle<'_>, Error> {
                check_out(self, acquire.lock, acquire.timeout)
            }
        }

        impl<M: ManageConnection<Connection: Session>> OwnedBackend for $backend {
            type Owned = PooledConnection<M>;

            fn into_session_for(mut self, acquire: &Acquire<'_>) -> Result<Self::Owned, Error> {
                self.session_for(acquire)
            }
        }
    )*};
}
pools!(Pool<M>, &Pool<M>);

impl<M: ManageConnection<Connection: Session>> OwnedBackend for PooledConnection<M> {
    type Owned = Self;

    fn into_session_for(self, _: &Acquire<'_>) -> Result<Self::Owned, Error> {
        Ok(self)
    }
}

impl<M: ManageConnection<Connection: Session>> SessionHandle for PooledConnection<M> {
    fn pooled(&mut self) -> Option<&mut dyn Pooled> {
        Some(self)
    }
}

impl<M: ManageConnection<Connection: Session>> Kept for PooledConnection<M> {
    fn known(&mut self) -> Option<&mut Known> {
        let extensions = Self::extensions_mut(self);
        if extensions.get::<Known>().is_none() {
            extensions.insert(Known::default());
        }
        extensions.get_mut()
    }

    fn release_apart(&mut self, lock: &LockInfo) -> Option<Result<(), Error>> {
        let session = &mut **self;
        thread::scope(|threads| threads.spawn(|| driver::release(session, lock)).join().ok())
    }

    /// Asks once in the life of a connection. Two pools may lead to one database, and nothing tells
    /// whether two handles are of one pool.
    fn database(&mut self) -> Option<Place> {
        struct Database(Option<Place>);

        if let Some(Database(known)) = PooledConnection::extensions(self).get() {
            return known.clone();
        }
        if self.in_transaction() {
            return None;
        }
        let lines = self.query(sql::DATABASE).unwrap_or_default();
        let database = lines
            .first()
            .map(|line| Place::Database(line.as_str().into()));
        PooledConnection::extensions_mut(self).insert(Database(database.clone()));
        database
    }
}

impl<M> TransactionBackend for PooledConnection<M> where
    M: ManageConnection<Connection: Session + TransactionBackend>
{
}

/// Takes a connection out of the pool, within the pool's own timeout and that of the lock. A timeout
/// of zero is a single attempt.
pub(crate) fn check_out<M: ManageConnection>(
    pool: &Pool<M>,
    lock: &LockInfo,
    timeout: Option<Duration>,
) -> Result<PooledConnection<M>, Error> {
    let checked_out = match timeout {
        Some(Duration::ZERO) => attempt(pool),
        Some(timeout) => {
            let timeout = timeout.min(pool.connection_timeout());
            pool.get_timeout(timeout).map_err(BoxError::from)
        }
        None => pool.get().map_err(BoxError::from),
    };
    checked_out.map_err(|source| {
        let in_use = pool.state().connections >= pool.max_size();
        Error::no_session(lock, in_use, source)
    })
}

/// Waits for a connection that is being opened, but not for one that is in use.
///
/// Another thread can get the one that is opened, and the pool does not say so. So if an opening takes
/// longer than usual, this looks again from time to time; asking the pool again would open one more.
fn attempt<M: ManageConnection>(pool: &Pool<M>) -> Result<PooledConnection<M>, BoxError> {
    const USUAL: Duration = Duration::from_millis(50);
    const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

    if let Some(connection) = pool.try_get() {
        return Ok(connection);
    }
    let (size, limit) = (pool.max_size(), pool.connection_timeout());
    let all_in_use = || pool.state().connections >= size;
    let in_use = || format!("all connections of the pool are in use, {size} of {size}").into();
    if all_in_use() {
        return Err(in_use());
    }
    let start = Instant::now();
    let first = match pool.get_timeout(USUAL.min(limit)) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    while start.elapsed() < limit {
        if all_in_use() {
            return Err(in_use());
        }
        thread::sleep(BETWEEN_LOOKS);
        if let Some(connection) = pool.try_get() {
            return Ok(connection);
        }
    }
    match pool.get_timeout(Duration::ZERO) {
        Ok(connection) => Ok(connection),
        // The pool gives the reason of a failure only once: one of the two errors has it.
        Err(last) if last.to_string().len() > first.to_string().len() => Err(last.into()),
        Err(_) => Err(first.into()),
    }
}
