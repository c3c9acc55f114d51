//! The ways to run under a lock of the session's.

use super::guard::LockGuard;
use super::wait::{self, Attempt};
use super::{Lock, nesting};
use crate::driver::{self, Acquire, LockBackend, OwnedBackend, QueuePlace, Session, SessionHandle};
use crate::error::Error;
use crate::request::{Request, Scope};
use crate::targets::{SessionTarget, Target};
use crate::telemetry::{Hold, Waiting};

// `SessionTarget` stands at each method: on the impl, the compiler would say only that there is no such
// method.
/// The forms for keys, whose locks can be the session's.
impl<B: LockBackend, L> Lock<B, L> {
    /// Acquires the lock, runs the body with the connection, and releases the lock.
    ///
    /// Two round trips outside a transaction. Inside one it is one: the lock stays until the
    /// transaction ends. There is no savepoint around the body, so its error is yours to handle.
    /// The body's error is returned as it is, even when the release fails too.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Lock::acquire), of the body, and of [`LockGuard::release`].
    pub fn run<T, E>(&mut self, body: impl FnOnce(&mut B::Session) -> Result<T, E>) -> Result<T, E>
    where
        L: SessionTarget,
        E: From<Error>,
    {
        LockGuard::run(self.acquire()?, body)
    }

    /// Runs the body only if the lock is free, or becomes free within the timeout, if one is set.
    /// Returns `None` otherwise.
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
    /// let mut lock = Lock::new(&mut client, "doc:try-run").timeout(Duration::from_millis(100));
    /// let done = lock.try_run(|conn| anyhow::Ok(conn.batch_execute("SELECT 'the work'")?))?;
    /// if done.is_none() {
    ///     println!("somebody else had it for all of the 100 ms");
    /// }
    /// # assert!(done.is_some());
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Lock::run), except the timeout.
    pub fn try_run<T, E>(
        &mut self,
        body: impl FnOnce(&mut B::Session) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        L: SessionTarget,
        E: From<Error>,
    {
        let Some(guard) = self.try_acquire()? else {
            return Ok(None);
        };
        LockGuard::run(guard, body).map(Some)
    }

    /// As [`run`](Lock::run), with a conflict handler in place of [`Error::Timeout`].
    ///
    /// The handler is called when this lock was not acquired in time, and only then: a timeout inside
    /// the body is an error of the body. It gets the [`Error::Timeout`], which says who holds the lock.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use std::time::Duration;
    /// use pglock::{Lock, with_lock};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut other = Client::connect(&url, NoTls)?;
    /// let answer = with_lock(&mut other, "doc:run-or-else", |_| {
    ///     // On this connection the lock is busy.
    ///     Lock::new(&mut client, "doc:run-or-else")
    ///         .timeout(Duration::from_millis(20))
    ///         .run_or_else(
    ///             |_| anyhow::Ok("done".to_owned()),
    ///             |busy| Ok(format!("please try again: {busy}")),
    ///         )
    /// })?;
    /// assert!(answer.starts_with("please try again: timed out after 20ms"), "{answer}");
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Lock::run), and those of the handler.
    pub fn run_or_else<T, E>(
        &mut self,
        body: impl FnOnce(&mut B::Session) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E>
    where
        L: SessionTarget,
        E: From<Error>,
    {
        or_else(
            self.acquire(),
            |guard| LockGuard::run(guard, body),
            on_conflict,
        )
    }

    /// Acquires the lock and returns a guard, for sections that do not fit in a closure.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, LockGuard};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut lock = Lock::new(&mut client, "doc:acquire"); // the guard borrows it
    /// let mut guard = lock.acquire()?;
    /// guard.batch_execute("SELECT 'the work'")?;
    /// LockGuard::release(guard)?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After any of them, nothing is held, and a transaction of the caller's is as it was.
    ///
    /// - [`Error::Timeout`], [`Error::Deadlock`], [`Error::Canceled`]: the wait ended without the
    ///   lock.
    /// - [`Error::ConnectionLost`], [`Error::Checkout`]: there was no connection to lock on.
    /// - [`Error::InTransaction`], [`Error::NotInTransaction`]: the scope that was set, or a raw
    ///   `BEGIN`, is in the way.
    /// - [`Error::StaleSnapshot`], [`Error::TransactionAborted`]: the caller's transaction cannot
    ///   use the lock.
    /// - [`Error::InRecovery`], [`Error::LockTableFull`], [`Error::Database`]: the server cannot
    ///   grant it.
    /// - [`Error::AlreadyHeld`]: on a pool, this thread would wait for itself.
    /// - [`Error::SharedSession`], [`Error::NotPostgres`]: what is behind the connection would let
    ///   others in.
    /// - [`Error::Stopped`]: the token was stopped.
    /// - [`Error::NoKeys`], [`Error::EmptyRange`]: there is nothing to lock. [`Error::SharedRangeTooLong`]: too much.
    pub fn acquire(&mut self) -> Result<LockGuard<B::Handle<'_>>, Error>
    where
        L: SessionTarget,
    {
        guard(&self.request, |acquire| self.backend.session_for(acquire))
    }

    /// Acquires the lock and returns a guard that owns the connection: it can be a field of a
    /// struct, and be returned.
    ///
    /// For connections, pooled connections and pools. A guard from a pool checks out a connection,
    /// and returns it to the pool when it is dropped.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// use pglock::driver::Owned;
    /// use pglock::{Lock, LockGuard};
    /// use postgres::{Client, NoTls};
    ///
    /// struct Leader { connection: LockGuard<Owned<Client>> }
    ///
    /// fn lead(client: Client) -> Result<Leader, pglock::Error> {
    ///     Ok(Leader { connection: Lock::new(client, "doc:leader").acquire_owned()? })
    /// }
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// let mut leader = lead(Client::connect(&url, NoTls)?)?;
    /// leader.connection.batch_execute("SELECT 'still leading'")?;
    /// LockGuard::release(leader.connection)?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Lock::acquire). After an error the backend is dropped, which closes a
    /// connection. If you still need it, use [`acquire`](Lock::acquire), or a pool.
    pub fn acquire_owned(self) -> Result<LockGuard<B::Owned>, Error>
    where
        L: SessionTarget,
        B: OwnedBackend,
    {
        let Self {
            backend, request, ..
        } = self;
        guard(&request, |acquire| backend.into_session_for(acquire))
    }

    /// As [`acquire_owned`](Lock::acquire_owned), if the lock is free, or becomes free within the timeout, if one is set.
    /// Returns `None` otherwise, and drops the backend, which closes a connection: with one that you still need, use
    /// [`try_acquire`](Lock::try_acquire), or a pool.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Lock::acquire), except the timeout.
    pub fn try_acquire_owned(mut self) -> Result<Option<LockGuard<B::Owned>>, Error>
    where
        L: SessionTarget,
        B: OwnedBackend,
    {
        self.request = self.request.or_no_wait();
        free(self.acquire_owned())
    }

    /// Returns a guard if the lock is free, or becomes free within the timeout, if one is set.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, LockGuard};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut lock = Lock::new(&mut client, "doc:try-acquire");
    /// if let Some(mut guard) = lock.try_acquire()? {
    ///     guard.batch_execute("SELECT 'the work'")?;
    ///     LockGuard::release(guard)?;
    /// }
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Lock::acquire), except the timeout.
    pub fn try_acquire(&mut self) -> Result<Option<LockGuard<B::Handle<'_>>>, Error>
    where
        L: SessionTarget,
    {
        let request = self.request.or_no_wait();
        free(guard(&request, |acquire| self.backend.session_for(acquire)))
    }
}

/// A timeout is for the conflict handler.
pub(crate) fn or_else<G, T, E: From<Error>>(
    acquired: Result<G, Error>,
    run: impl FnOnce(G) -> Result<T, E>,
    on_conflict: impl FnOnce(Error) -> Result<T, E>,
) -> Result<T, E> {
    match acquired {
        Ok(guard) => run(guard),
        Err(timeout @ Error::Timeout { .. }) => on_conflict(timeout),
        Err(error) => Err(error.into()),
    }
}

/// A timeout is no error of an attempt.
pub(crate) fn free<G>(acquired: Result<G, Error>) -> Result<Option<G>, Error> {
    match acquired {
        Ok(guard) => Ok(Some(guard)),
        Err(Error::Timeout { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Acquires the lock on the session that `find` returns, and returns the guard.
pub(crate) fn guard<H: SessionHandle>(
    request: &Request,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<LockGuard<H>, Error> {
    let scope = request.scope.unwrap_or(Scope::Session);
    let (mut handle, mut attempt, waiting) = begin(request, scope, false, find)?;
    driver::recall(&mut handle); // it is known by its address: where it stays
    let (scope, hold) = if handle
        .pooled()
        .and_then(|pooled| pooled.place())
        .is_some_and(QueuePlace::takes_over)
    {
        (Scope::Session, waiting.acquired())
    } else {
        let acquired = on_session(&mut *handle, &mut attempt, waiting);
        driver::keep(&mut handle, acquired.is_err());
        acquired?
    };
    Ok(LockGuard::new(handle, request, scope, hold))
}

/// Checks the target, starts the clock of the timeout, and finds the session.
pub(crate) fn begin<'r, H: SessionHandle>(
    request: &'r Request,
    scope: Scope,
    one_message: bool,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<(H, Attempt<'r>, Waiting), Error> {
    let lock = &request.lock;
    match lock.target() {
        Target::Keys(keys) if keys.is_empty() => return Err(Error::NoKeys),
        Target::Range(range) if range.numbers().is_empty() => {
            return Err(Error::EmptyRange { lock: lock.clone() });
        }
        Target::Range(range) if range.is_too_long(lock.mode()) => {
            return Err(Error::SharedRangeTooLong { lock: lock.clone() });
        }
        target if target.has_nul() => return Err(Error::NulByte { lock: lock.clone() }),
        _ => {}
    }
    let mut attempt = Attempt::begin(request);
    attempt.go_on()?;
    let waiting = Waiting::start(lock, scope);
    let found = find(&Acquire {
        lock,
        scope,
        timeout: request.timeout,
        stop: request.stop.as_ref(),
        one_message,
    });
    // A message holds nothing that its thread could wait for.
    let noted = lock.is_on_keys() && !(one_message && nesting::is_idle());
    let found = found.and_then(|mut handle| {
        if noted
            && let Some(pooled) = handle.pooled()
            && let Some(database) = pooled.database()
        {
            attempt.note = Some(nesting::enter(database, lock, request.timeout)?);
        }
        Ok(handle)
    });
    match found {
        Ok(handle) => Ok((handle, attempt, waiting)),
        Err(error) => Err(waiting.failed(error)),
    }
}

/// Acquires the lock on a session, in the scope that the caller set or that the one rule gives.
pub(super) fn on_session<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    mut waiting: Waiting,
) -> Result<(Scope, Hold), Error> {
    let request = attempt.request;
    let lock = &request.lock;
    let in_transaction = session.in_transaction();
    let scope = match in_transaction {
        true => Scope::Transaction,
        false => request.scope.unwrap_or(Scope::Session),
    };
    waiting.in_scope(scope);
    let acquired = match scope {
        _ if in_transaction && request.scope == Some(Scope::Session) => {
            Err(Error::InTransaction { lock: lock.clone() })
        }
        Scope::Session => wait::session::acquire(session, attempt, lock),
        Scope::Transaction => wait::transaction::acquire(session, attempt, lock),
    };
    match acquired {
        Ok(()) => Ok((scope, waiting.acquired())),
        Err(error) => Err(waiting.failed(error)),
    }
}
