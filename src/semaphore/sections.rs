//! The ways to run with a slot.

use super::{Permit, Semaphore, acquire};
use crate::driver::{LockBackend, OwnedBackend};
use crate::error::Error;
use crate::lock::guard::LockGuard;
use crate::lock::sections::{free, or_else};

/// The forms for the session.
impl<B: LockBackend> Semaphore<B> {
    /// Acquires a slot, runs the body with the connection, and releases the slot. The body's error is
    /// returned as it is, even when the release fails too.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Semaphore::acquire), of the body, and of [`Permit::release`].
    pub fn run<T, E>(&mut self, body: impl FnOnce(&mut B::Session) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error>,
    {
        LockGuard::run(self.acquire()?.guard, body)
    }

    /// Runs the body only if a slot is free, or becomes free within the timeout, if one is set.
    /// Returns `None` otherwise.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::Semaphore;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut api = Semaphore::new(&mut client, "doc:try-room", 3);
    /// let sent = api.try_run(|conn| anyhow::Ok(conn.batch_execute("SELECT 'send a mail'")?))?;
    /// if sent.is_none() {
    ///     println!("three others are sending");
    /// }
    /// # assert!(sent.is_some());
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Semaphore::run), except the timeout.
    pub fn try_run<T, E>(
        &mut self,
        body: impl FnOnce(&mut B::Session) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<Error>,
    {
        match self.try_acquire()? {
            Some(permit) => LockGuard::run(permit.guard, body).map(Some),
            None => Ok(None),
        }
    }

    /// As [`run`](Semaphore::run), with a conflict handler in place of [`Error::Timeout`]: see
    /// [`Lock::run_or_else`](crate::Lock::run_or_else).
    ///
    /// # Errors
    ///
    /// As [`run`](Semaphore::run), and those of the handler.
    pub fn run_or_else<T, E>(
        &mut self,
        body: impl FnOnce(&mut B::Session) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        or_else(
            self.acquire(),
            |permit| LockGuard::run(permit.guard, body),
            on_conflict,
        )
    }

    /// Acquires a slot and returns a permit, for sections that do not fit in a closure.
    ///
    /// # Errors
    ///
    /// After any of them, this call holds nothing.
    ///
    /// - [`Error::Timeout`]: there was no room before the wait timed out.
    /// - [`Error::Stopped`]: the token was stopped.
    /// - [`Error::InvalidPermits`]: a semaphore with no slots, or with too many.
    /// - [`Error::InTransaction`]: a transaction is open.
    /// - [`Error::Deadlock`]: the holders of all slots wait for this session, or it holds them itself.
    /// - [`Error::Canceled`], [`Error::ConnectionLost`], [`Error::Checkout`], [`Error::InRecovery`],
    ///   [`Error::LockTableFull`], [`Error::SharedSession`], [`Error::NotPostgres`] and
    ///   [`Error::Database`], as in [`Lock::acquire`](crate::Lock::acquire).
    pub fn acquire(&mut self) -> Result<Permit<B::Handle<'_>>, Error> {
        acquire::permit(&self.request, &self.slots, |acquire| {
            self.backend.session_for(acquire)
        })
    }

    /// Returns a permit if a slot is free, or becomes free within the timeout, if one is set.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Semaphore::acquire), except the timeout.
    pub fn try_acquire(&mut self) -> Result<Option<Permit<B::Handle<'_>>>, Error> {
        let request = self.request.or_no_wait();
        free(acquire::permit(&request, &self.slots, |acquire| {
            self.backend.session_for(acquire)
        }))
    }

    /// As [`acquire_owned`](Semaphore::acquire_owned), if a slot is free, or becomes free within the timeout, if one is
    /// set. Returns `None` otherwise, and drops the backend: see
    /// [`Lock::try_acquire_owned`](crate::Lock::try_acquire_owned).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Semaphore::acquire), except the timeout.
    pub fn try_acquire_owned(mut self) -> Result<Option<Permit<B::Owned>>, Error>
    where
        B: OwnedBackend,
    {
        self.request = self.request.or_no_wait();
        free(self.acquire_owned())
    }

    /// Acquires a slot and returns a permit that owns the connection: see
    /// [`Lock::acquire_owned`](crate::Lock::acquire_owned).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Semaphore::acquire). After an error the backend is dropped, which closes a
    /// connection.
    pub fn acquire_owned(self) -> Result<Permit<B::Owned>, Error>
    where
        B: OwnedBackend,
    {
        let Self {
            backend,
            slots,
            request,
        } = self;
        acquire::permit(&request, &slots, |acquire| {
            backend.into_session_for(acquire)
        })
    }
}
