//! r2d2: `Pool` and `PooledConnection`, of any manager whose connection is a session.

use std::thread;

use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::driver::{
    self, Acquire, BoxError, Kept, LockBackend, OwnedBackend, Place, Pooled, Session,
    SessionHandle, TransactionBackend,
};
use crate::error::Error;
use crate::prepared::Known;
use crate::sql;
use crate::targets::LockInfo;

mod check_out;

pub(crate) use self::check_out::check_out;

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
