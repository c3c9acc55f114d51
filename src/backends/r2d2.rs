//! r2d2: `Pool` and `PooledConnection`, of any manager whose connection is a session.

use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::driver::{
    Acquire, BoxError, LockBackend, OwnedBackend, Session, SessionHandle, TransactionBackend,
};
use crate::error::Error;

impl<M> LockBackend for Pool<M>
where
    M: ManageConnection<Connection: Session>,
{
    type Session = M::Connection;
    type Handle<'a> = PooledConnection<M>;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self.get()?)
    }
}

impl<M> LockBackend for &Pool<M>
where
    M: ManageConnection<Connection: Session>,
{
    type Session = M::Connection;
    type Handle<'a>
        = PooledConnection<M>
    where
        Self: 'a;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self.get()?)
    }
}

impl<M> LockBackend for PooledConnection<M>
where
    M: ManageConnection<Connection: Session>,
{
    type Session = M::Connection;
    type Handle<'a> = &'a mut M::Connection;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

/// A pool gives its connection away as it is.
macro_rules! owned {
    ($($backend:ty),*) => {$(
        impl<M> OwnedBackend for $backend
        where
            M: ManageConnection<Connection: Session>,
        {
            type Owned = PooledConnection<M>;

            fn into_session_for(mut self, acquire: &Acquire<'_>) -> Result<Self::Owned, Error> {
                self.session_for(acquire)
            }
        }
    )*};
}
owned!(Pool<M>, &Pool<M>);

impl<M> OwnedBackend for PooledConnection<M>
where
    M: ManageConnection<Connection: Session>,
{
    type Owned = Self;

    fn into_session_for(self, _: &Acquire<'_>) -> Result<Self::Owned, Error> {
        Ok(self)
    }
}

impl<M> SessionHandle for PooledConnection<M> where M: ManageConnection<Connection: Session> {}

impl<M> TransactionBackend for PooledConnection<M> where
    M: ManageConnection<Connection: Session + TransactionBackend>
{
}
