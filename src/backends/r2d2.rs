//! r2d2: `Pool` and `PooledConnection`, of any manager whose connection is a session.

use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::driver::{BoxError, LockBackend, Session, SessionHandle, TransactionBackend};

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

impl<M> SessionHandle for PooledConnection<M> where M: ManageConnection<Connection: Session> {}

impl<M> TransactionBackend for PooledConnection<M> where
    M: ManageConnection<Connection: Session + TransactionBackend>
{
}
