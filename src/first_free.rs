//! Runs a body on the first row that nobody else has locked.

use crate::acquire::transact;
use crate::driver::{LockBackend, Session};
use crate::error::Error;
use crate::request::Request;
use crate::sql;
use crate::targets::FirstFree;

impl FirstFree {
    /// BEGIN, lock the first free row, run the body with its id as text, COMMIT; rolled back on
    /// error. `None`: there is no free row. It never waits for a row.
    ///
    /// Inside a transaction of the caller's the row stays locked until that transaction ends, and a
    /// savepoint stands in for the transaction.
    ///
    /// # Errors
    ///
    /// Those of the body, and those of
    /// [`Lock::run_in_transaction`](crate::Lock::run_in_transaction) on a row, but for
    /// [`Error::NoSuchRow`].
    pub fn run_in_transaction<B, T, E>(
        &self,
        backend: &mut B,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>, &str) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        B: LockBackend + ?Sized,
        E: From<Error>,
    {
        let request = Request::new(self.clone().into());
        let find = |transaction: &mut <B::Session as Session>::Transaction<'_>| {
            let picked = transaction.query(sql::PICKED);
            let picked =
                picked.map_err(|failure| Error::acquire(request.lock.clone(), None, failure))?;
            let id = picked.first().and_then(|picked| picked.strip_prefix('='));
            Ok(id.map(str::to_owned))
        };
        transact(backend, &request, find, |transaction, id| {
            body(transaction, &id)
        })?
    }
}
