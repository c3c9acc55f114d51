//! The ways to run in a transaction under a lock.

use super::Lock;
use super::acquire;
use super::sections::{free, or_else};
use crate::driver::{LockBackend, Session};
use crate::error::Error;
use crate::request::Request;

/// The transaction forms, for every target.
impl<B: LockBackend, L> Lock<B, L> {
    /// BEGIN, lock, body, COMMIT; rolled back on error. The body gets the driver's own transaction
    /// type. Three round trips with `postgres`, two with diesel.
    ///
    /// Inside a transaction of the caller's, the lock is taken for that transaction, and a
    /// savepoint stands in for the transaction. Three round trips with both.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use std::time::Duration;
    /// use pglock::Lock;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// # client.batch_execute("CREATE TEMP TABLE seat (name text, buyer text); INSERT INTO seat VALUES ('12A')")?;
    /// let sold = Lock::new(&mut client, "doc:in-transaction")
    ///     .timeout(Duration::from_secs(2))
    ///     .run_in_transaction(|tx| {
    ///         let sql = "UPDATE seat SET buyer = $1 WHERE name = '12A' AND buyer IS NULL";
    ///         anyhow::Ok(tx.execute(sql, &[&"ada"])?)
    ///     })?;
    /// assert_eq!(sold, 1);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Those of [`acquire`](Lock::acquire), and [`Error::WrongScope`] if the scope was set to the
    ///   session. The body did not run.
    /// - Those of the body; the work is rolled back, unless
    ///   [`rollback_on_error`](Lock::rollback_on_error) says otherwise.
    /// - [`Error::NoSuchRow`], [`Error::Changed`] and [`Error::NulByte`], for rows and tables.
    /// - [`Error::NotCommitted`]: the body swallowed an SQL error, or the COMMIT failed.
    /// - [`Error::ConnectionLost`]: the connection broke at the COMMIT.
    /// - [`Error::LockLost`]: the body ended the transaction itself.
    pub fn run_in_transaction<T, E>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        self.transact(&self.request.clone(), body)?
    }

    /// As [`run_in_transaction`](Lock::run_in_transaction), but only if the lock is free, or
    /// becomes free within the timeout, if one is set. Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`run_in_transaction`](Lock::run_in_transaction), except the timeout.
    pub fn try_run_in_transaction<T, E>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<Error>,
    {
        free(self.transact(&self.request.or_no_wait(), body))?.transpose()
    }

    /// As [`run_in_transaction`](Lock::run_in_transaction), with a conflict handler as in
    /// [`run_or_else`](Lock::run_or_else).
    ///
    /// # Errors
    ///
    /// As [`run_in_transaction`](Lock::run_in_transaction), and those of the handler.
    pub fn run_in_transaction_or_else<T, E>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let transacted = self.transact(&self.request.clone(), body);
        or_else(transacted, |result| result, on_conflict)
    }

    fn transact<T, E>(
        &mut self,
        request: &Request,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error>
    where
        E: From<Error>,
    {
        let transacted = acquire::transact(
            &mut self.backend,
            request,
            |_| Ok(Some(())),
            |transaction, ()| body(transaction),
        )?;
        Ok(transacted.map(|value| value.expect("something was found")))
    }
}
