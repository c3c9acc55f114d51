//! `Semaphore<B>`: a limit on how many run at a time, over all processes.

use std::fmt;
use std::time::Duration;

mod acquire;
mod held;
mod permit;
mod transactions;

pub(crate) use acquire::permit;
pub(crate) use permit::Kept;
pub use permit::Permit;

use crate::driver::{LockBackend, OwnedBackend, SessionHandle};
use crate::error::Error;
use crate::key::IntoKey;
use crate::lock::sections::{free, or_else};
use crate::request::{LockInfo, Request};
use crate::stop::StopToken;
use crate::targets::Slots;

/// Limits how many run at a time, over all processes: calls of an API that allows three, workers
/// that share four licences.
///
/// A semaphore has a number of slots, and whoever acquires one gets a [`Permit`]. It is used as a
/// [`Lock`](crate::Lock) is, on the same connections and pools.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use std::time::Duration;
/// use pglock::{Permit, Semaphore};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # let send = |_: &mut Client| anyhow::Ok(());
/// let mut api = Semaphore::new(&mut client, "doc:mail-api", 3).timeout(Duration::from_secs(2));
/// api.run(|conn| send(conn))?;
///
/// let permit = api.acquire()?;
/// println!("slot {} of 3", Permit::slot(&permit));
/// Permit::release(permit)?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # What it does
///
/// - **Where there is room**, it takes one round trip to acquire a slot and one to release it. A
///   driver without rows (diesel) takes one more if the slot that it tried first is taken. One
///   statement tries the slots one after the other, starting with a random one, so many slots cost
///   more than a few.
/// - **Where there is none**, sessions wait in the server's queue, first come, first served. The
///   first in the queue looks for a free slot every 12 ms, on the server; the others ask nothing.
///   Nobody who comes later is let in before it, and a single attempt finds no room then.
/// - **The wait is sent in slices**, as [for a lock](crate::Lock::keep_place). After the first
///   slice, of some 0.7 s, there is no order. A process that hangs is in nobody's way for longer.
/// - **A slot is free** as soon as its session ends, however it ends: even after `kill -9`.
/// - **Each permit takes a slot of its own**, even on one connection: a section inside a section
///   takes two.
/// - **Deadlocks** are found if the holders of all slots wait for locks of this session, or if it
///   holds all slots itself. If two sessions have a permit each, of one semaphore or of two, and
///   wait for another, the server does not find that: set a timeout where a section with a permit
///   acquires another.
/// - **All should agree on the number of slots.** Those who say 5 and those who say 3 share the
///   slots 0, 1 and 2: never more than 5 are let in, and never more than 3 of the latter. Each
///   group waits in a queue of its own, so there is no order between the two.
///
/// # Not in a transaction
///
/// A slot that is released before the COMMIT would let others in too early, and one that is kept until
/// then is kept for longer than its section. So a semaphore is refused in a transaction
/// ([`Error::InTransaction`]): acquire first, then begin, as
/// [`run_in_transaction`](Semaphore::run_in_transaction) does.
///
/// # Why it is no target of a `Lock`
///
/// A [`Lock`](crate::Lock) on a key nests, can be shared, and can be the transaction's. A slot is none of that: each
/// permit takes another one, and says which.
///
/// # What it relies on
///
/// A slot is an advisory lock of the session on a key of its own, and so is the queue ([`Slots`]
/// says which). `pg_try_advisory_xact_lock` takes the first free slot, for this message alone. The
/// message's last statement takes it for the session, and cannot be cancelled once it has. The
/// server frees the slot with the session ([Advisory Locks]). Waiting needs the language PL/pgSQL,
/// which every database has unless somebody has dropped it. A semaphore is limited to one database.
///
/// PostgreSQL grants a lock again to the session that holds it. So if the only slots left are held
/// by permits of this process, the statement looks in `pg_locks` for those of its own session.
///
/// [Advisory Locks]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
#[must_use = "a semaphore does nothing until it is run or acquired"]
pub struct Semaphore<B> {
    pub(crate) backend: B,
    pub(crate) slots: Slots,
    pub(crate) request: Request,
}

/// What is acquired, and how.
impl<B> Semaphore<B> {
    /// A semaphore of that name with that many permits, each for a slot of its own: 1 to [`Slots::MAX`], otherwise
    /// acquiring one fails with [`Error::InvalidPermits`].
    ///
    /// The name is whatever a [`Key`](crate::Key) is made from, such as `key!("api:{tenant}")`. The backend is taken
    /// by value, as by [`Lock::new`](crate::Lock::new). A lock of the same name does not conflict with it.
    pub fn new(backend: B, name: impl IntoKey, permits: u32) -> Self {
        let slots = Slots::new(name, permits);
        Self {
            backend,
            request: Request::new(slots.clone().into()),
            slots,
        }
    }

    /// Bounds the wait for a slot, as [`Lock::timeout`](crate::Lock::timeout) does for a lock. Zero
    /// is exactly one attempt. By default only the session's own `lock_timeout` bounds it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Ends the wait with [`Error::Stopped`] when the token is stopped, within a slice of less than a
    /// second.
    pub fn stop_on(mut self, token: &StopToken) -> Self {
        self.request.stop = Some(token.clone());
        self
    }

    /// Sets whether [`Error::Timeout`] names the sessions that held the slots, ten at most.
    /// Defaults to `true`, for one more round trip; `try_run` and `try_acquire` never ask.
    pub fn name_holders(mut self, name: bool) -> Self {
        self.request.name_holders = Some(name);
        self
    }

    /// Sets whether the statement that acquires a slot carries the semaphore's name in a comment:
    /// see [`Lock::labelled`](crate::Lock::labelled).
    pub fn labelled(mut self, label: bool) -> Self {
        self.request.labelled = label;
        self
    }

    /// Its slots, and the keys behind them.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The lock that errors name: all of its slots.
    #[must_use]
    pub fn lock_info(&self) -> &LockInfo {
        &self.request.lock
    }
}

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
        run(self.acquire()?, body)
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
            Some(permit) => run(permit, body).map(Some),
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
        or_else(self.acquire(), |permit| run(permit, body), on_conflict)
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

/// Runs the body with a permit. Its own error is never masked by the release's.
fn run<H, T, E>(
    mut permit: Permit<H>,
    body: impl FnOnce(&mut H::Target) -> Result<T, E>,
) -> Result<T, E>
where
    H: SessionHandle,
    E: From<Error>,
{
    let value = Permit::run(&mut permit, body)?;
    Permit::release(permit)?;
    Ok(value)
}

/// The same semaphore, over a clone of the backend, such as a pool.
impl<B: Clone> Clone for Semaphore<B> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            slots: self.slots.clone(),
            request: self.request.clone(),
        }
    }
}

impl<B> fmt::Debug for Semaphore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
