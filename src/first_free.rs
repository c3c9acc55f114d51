//! Runs a body on the first row that nobody else has locked.

use std::str::FromStr;

use crate::acquire::transact;
use crate::driver::{BoxError, LockBackend, Session};
use crate::error::Error;
use crate::request::{LockInfo, Request};
use crate::sql;
use crate::targets::FirstFree;

impl FirstFree {
    /// BEGIN, lock the first free row, run the body with its id, COMMIT; rolled back on error.
    /// Returns `None` if there is no free row. It never waits for a row.
    ///
    /// The id comes as the type that the body names, `|tx, id: i64|`, read from PostgreSQL's text for
    /// it by [`FromStr`]. A `String` is that text.
    ///
    /// Inside a transaction of the caller's the row stays locked until that transaction ends, and a
    /// savepoint stands in for the transaction.
    ///
    /// # Errors
    ///
    /// Those of the body, and those of
    /// [`Lock::run_in_transaction`](crate::Lock::run_in_transaction) on a row, except
    /// [`Error::NoSuchRow`]. [`Error::UnreadableId`] if the id is not of that type.
    pub fn run_in_transaction<B, I, T, E>(
        &self,
        backend: &mut B,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>, I) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        B: LockBackend + ?Sized,
        I: FromStr<Err: Into<BoxError>>,
        E: From<Error>,
    {
        let request = Request::new(self.clone().into());
        let find = |transaction: &mut <B::Session as Session>::Transaction<'_>| {
            let picked = transaction.query(sql::PICKED);
            let picked =
                picked.map_err(|failure| Error::acquire(request.lock.clone(), None, failure))?;
            let id = picked.first().and_then(|picked| picked.strip_prefix('='));
            id.map(|id| read(&request.lock, id)).transpose()
        };
        transact(backend, &request, find, body)?
    }
}

fn read<I: FromStr<Err: Into<BoxError>>>(lock: &LockInfo, id: &str) -> Result<I, Error> {
    id.parse().map_err(|error: I::Err| Error::UnreadableId {
        lock: lock.clone(),
        id: id.to_owned(),
        source: error.into(),
    })
}
