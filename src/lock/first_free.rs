//! Runs a body on the first row, or the first rows, that nobody else has locked.

use std::str::FromStr;

use super::transactions::transact;
use crate::driver::{BoxError, Failure, LockBackend, Session};
use crate::error::Error;
use crate::request::Request;
use crate::sql;
use crate::targets::{FirstFree, FirstFreeRows, LockInfo};

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
        transact_on(self, backend, |ids| ids.into_iter().next(), body)
    }
}

impl FirstFreeRows {
    /// BEGIN, lock the first free rows, run the body with their ids, COMMIT; rolled back on error.
    /// Returns `None` if there is no free row, and takes fewer if there are not enough. It never waits
    /// for a row.
    ///
    /// # Errors
    ///
    /// As [`FirstFree::run_in_transaction`].
    pub fn run_in_transaction<B, I, T, E>(
        &self,
        backend: &mut B,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>, Vec<I>) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        B: LockBackend + ?Sized,
        I: FromStr<Err: Into<BoxError>>,
        E: From<Error>,
    {
        let some = |ids: Vec<I>| (!ids.is_empty()).then_some(ids);
        transact_on(&self.0, backend, some, body)
    }
}

/// Runs the body on what `found` makes of the ids.
fn transact_on<B, I, F, T, E>(
    pick: &FirstFree,
    backend: &mut B,
    found: impl FnOnce(Vec<I>) -> Option<F>,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>, F) -> Result<T, E>,
) -> Result<Option<T>, E>
where
    B: LockBackend + ?Sized,
    I: FromStr<Err: Into<BoxError>>,
    E: From<Error>,
{
    let request = Request::new(pick.clone().into());
    let lock = &request.lock;
    let find = |transaction: &mut <B::Session as Session>::Transaction<'_>| {
        let picked = transaction.query(sql::PICKED).and_then(complete);
        let picked = picked.map_err(|failure| Error::acquire(lock.clone(), None, failure))?;
        let ids = picked.iter().map(|id| read(lock, id));
        Ok(found(ids.collect::<Result<_, _>>()?))
    };
    transact(backend, &request, find, body)?
}

/// The ids, of which none is missing: a body that did not get one would leave its row undone.
fn complete(mut lines: Vec<String>) -> Result<Vec<String>, Failure> {
    let ids = lines.split_off(lines.len().min(1));
    match lines
        .first()
        .is_some_and(|count| *count == ids.len().to_string())
    {
        true => Ok(ids),
        false => Err(Failure::from_error(None, "", "an id is not UTF-8")),
    }
}

fn read<I: FromStr<Err: Into<BoxError>>>(lock: &LockInfo, id: &str) -> Result<I, Error> {
    id.parse().map_err(|error: I::Err| Error::UnreadableId {
        lock: lock.clone(),
        id: id.to_owned(),
        source: error.into(),
    })
}
