//! The ways to run in a transaction under a slot.

use super::{Permit, Semaphore};
use crate::driver::{LockBackend, Session, SessionHandle};
use crate::error::Error;
use crate::lock::guard::LockGuard;
use crate::lock::sections::or_else;
use crate::lock::transactions::run_inside;
use crate::request::Request;

/// The transaction forms.
impl<B: LockBackend> Semaphore<B> {
    /// Acquires a slot, runs the body in a transaction, and releases the slot after its COMMIT; rolled back on error.
    /// The body gets the driver's own transaction type. Five round trips with `postgres`, four with diesel.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::Semaphore;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// // Two large reports at a time.
    /// let mut reports = Semaphore::new(&mut client, "doc:reports", 2);
    /// let rows = reports.run_in_transaction(|tx| anyhow::Ok(tx.query("SELECT 'a large report'", &[])?))?;
    /// assert_eq!(rows.len(), 1);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Semaphore::acquire), of the body, of [`Permit::release`], and of
    /// [`Lock::run_in_transaction`](crate::Lock::run_in_transaction). The transaction holds its slot's key, too.
    pub fn run_in_transaction<T, E>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        run(self.acquire()?, body)
    }

    /// As [`run_in_transaction`](Semaphore::run_in_transaction), but only if a slot is free, or becomes free within the
    /// timeout, if one is set. Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`run_in_transaction`](Semaphore::run_in_transaction), except the timeout.
    pub fn try_run_in_transaction<T, E>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<Error>,
    {
        match self.try_acquire()? {
            Some(permit) => run(permit, body).map(Some),
            None => Ok(None),
        }
    }

    /// As [`run_in_transaction`](Semaphore::run_in_transaction), with a conflict handler as in
    /// [`run_or_else`](Semaphore::run_or_else).
    ///
    /// # Errors
    ///
    /// As [`run_in_transaction`](Semaphore::run_in_transaction), and those of the handler.
    pub fn run_in_transaction_or_else<T, E>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        or_else(self.acquire(), |permit| run(permit, body), on_conflict)
    }
}

/// The transaction takes the slot's key once more, which this session is granted at once: so it is begun, watched and
/// committed as any under a lock. Where it is not granted, a pooler has moved the client to another session.
fn run<H, T, E>(
    permit: Permit<H>,
    body: impl FnOnce(&mut <H::Target as Session>::Transaction<'_>) -> Result<T, E>,
) -> Result<T, E>
where
    H: SessionHandle,
    E: From<Error>,
{
    let request = Request::new(Permit::lock_info(&permit).target().clone()).or_no_wait();
    LockGuard::run(permit.guard, |session| {
        let done = run_inside(session, &request, body);
        done.map_err(|error| match error {
            Error::Timeout { lock, .. } => Error::LockLost { lock, source: None },
            error => error,
        })?
    })
}
