//! The ways to hold a lock, and a slot.

use std::time::Duration;

use super::hold::Order;
use super::{Held, HoldBackend};
use crate::error::Error;
use crate::lock::Lock;
use crate::lock::sections::{free, or_else};
use crate::request::{Request, Scope};
use crate::semaphore::Semaphore;
use crate::targets::{SessionTarget, Slots};

macro_rules! settings {
    ($($of:tt)*) => {
        /// What is set for a hold.
        impl<$($of)*> {
            /// Sets the lease of a [hold](Self::hold): for how long after its last sign of life a holder can keep others
            /// out. Defaults to 10 s; it must be at least 1 s. The forms that run a body on the connection have none.
            ///
            /// A shorter one lets the next one in sooner, and costs three questions to the server in its time. The
            /// holder must hear from the server that often: on a slow network, a lease of a second is lost without a
            /// need.
            pub fn lease(mut self, lease: Duration) -> Self {
                self.request.lease = lease;
                self
            }

            /// Keeps a [hold](Self::hold) for at least so long from its grant, without the caller's waiting: when it is
            /// released before, the thread that keeps it lets it go then. A job that takes a
            /// moment is thus done once, even if the clocks of those who start it at the same time differ.
            ///
            /// It is this process that keeps it: if the process ends before, the lock is free. So a program that ends
            /// after the job calls [`Held::release_when_due`](crate::held::Held::release_when_due).
            pub fn at_least(mut self, time: Duration) -> Self {
                self.request.at_least = time;
                self
            }
        }
    };
}
settings!(B, T> Lock<B, T);
settings!(B> Semaphore<B);

/// A lock for work elsewhere.
impl<B, L> Lock<B, L> {
    /// Acquires the lock, and holds it for work elsewhere: see [`held`](crate::held).
    ///
    /// The backend is a connection, a pooled one or a pool, which the hold owns; or a function that connects; or a
    /// [`Keeper`](crate::held::Keeper), on which many holds share a connection.
    ///
    /// [`timeout`](Lock::timeout) and [`stop_on`](Lock::stop_on) bound the wait. Where the server is silent, it ends a
    /// lease after its timeout, or some 3 s after its token was stopped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Lock::acquire), and
    ///
    /// - [`Error::InvalidLease`]: nothing can be held with that lease.
    /// - [`Error::InTransaction`]: the connection is in a transaction.
    /// - [`Error::NotInTransaction`]: the scope that was set is the transaction.
    /// - [`Error::MovedSession`]: there is a pooler in transaction mode, as far as that shows.
    ///
    /// After an error the backend is dropped.
    ///
    /// # Panics
    ///
    /// If the function that connects panics.
    pub fn hold<Via>(self) -> Result<Held, Error>
    where
        L: SessionTarget,
        B: HoldBackend<Via>,
    {
        hold(self.backend, self.request, None)
    }

    /// Holds the lock if it is free, or becomes free within the timeout, if one is set.
    ///
    /// # Errors
    ///
    /// As [`hold`](Lock::hold), except the timeout.
    pub fn try_hold<Via>(self) -> Result<Option<Held>, Error>
    where
        L: SessionTarget,
        B: HoldBackend<Via>,
    {
        free(hold(self.backend, self.request.or_no_wait(), None))
    }

    /// Holds the lock while the body runs. The body's error is returned as it is, even when the lock was lost too.
    ///
    /// # Errors
    ///
    /// Those of [`hold`](Lock::hold) and of the body, and [`Error::LockLost`] if the lock was lost before
    /// the body returned `Ok`. A panic of the body releases the lock.
    pub fn hold_while<Via, T, E>(self, body: impl FnOnce(&Held) -> Result<T, E>) -> Result<T, E>
    where
        L: SessionTarget,
        B: HoldBackend<Via>,
        E: From<Error>,
    {
        run(self.hold()?, body)
    }

    /// As [`hold_while`](Lock::hold_while), but only if the lock is free, or becomes free within the timeout, if one
    /// is set. Returns `None` otherwise.
    ///
    /// ```
    /// # fn main() -> anyhow::Result<()> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let upload = |_: &str| anyhow::Ok(());
    /// use pglock::Lock;
    ///
    /// let report = Lock::new(move || Client::connect(&url, NoTls), "doc:try-hold-while");
    /// let done = report.try_hold_while(|held| {
    ///     for file in ["a.csv", "b.csv"] {
    ///         if held.is_lost() {
    ///             break; // try_hold_while says so
    ///         }
    ///         upload(file)?;
    ///     }
    ///     anyhow::Ok(())
    /// })?;
    /// if done.is_none() {
    ///     println!("another host is at it");
    /// }
    /// # assert!(done.is_some());
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`hold_while`](Lock::hold_while), except the timeout.
    pub fn try_hold_while<Via, T, E>(
        self,
        body: impl FnOnce(&Held) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        L: SessionTarget,
        B: HoldBackend<Via>,
        E: From<Error>,
    {
        run_if(self.try_hold()?, body)
    }

    /// As [`hold_while`](Lock::hold_while), with a conflict handler as in [`run_or_else`](Lock::run_or_else).
    ///
    /// # Errors
    ///
    /// As [`hold_while`](Lock::hold_while), and those of the handler.
    pub fn hold_while_or_else<Via, T, E>(
        self,
        body: impl FnOnce(&Held) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E>
    where
        L: SessionTarget,
        B: HoldBackend<Via>,
        E: From<Error>,
    {
        or_else(self.hold(), |held| run(held, body), on_conflict)
    }
}

/// A slot for work elsewhere.
impl<B> Semaphore<B> {
    /// Acquires a slot, and holds it for work elsewhere: see [`held`](crate::held).
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Semaphore::acquire), and of [`Lock::hold`].
    ///
    /// # Panics
    ///
    /// If the function that connects panics.
    pub fn hold<Via>(self) -> Result<Held, Error>
    where
        B: HoldBackend<Via>,
    {
        hold(self.backend, self.request, Some(self.slots))
    }

    /// Holds a slot if one is free, or becomes free within the timeout, if one is set.
    ///
    /// # Errors
    ///
    /// As [`hold`](Semaphore::hold), except the timeout.
    pub fn try_hold<Via>(self) -> Result<Option<Held>, Error>
    where
        B: HoldBackend<Via>,
    {
        free(hold(
            self.backend,
            self.request.or_no_wait(),
            Some(self.slots),
        ))
    }

    /// Holds a slot while the body runs: see [`Lock::hold_while`].
    ///
    /// # Errors
    ///
    /// As [`Lock::hold_while`].
    pub fn hold_while<Via, T, E>(self, body: impl FnOnce(&Held) -> Result<T, E>) -> Result<T, E>
    where
        B: HoldBackend<Via>,
        E: From<Error>,
    {
        run(self.hold()?, body)
    }

    /// As [`hold_while`](Semaphore::hold_while), but only if a slot is free, or becomes free within the timeout, if one
    /// is set. Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`Lock::hold_while`], except the timeout.
    pub fn try_hold_while<Via, T, E>(
        self,
        body: impl FnOnce(&Held) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        B: HoldBackend<Via>,
        E: From<Error>,
    {
        run_if(self.try_hold()?, body)
    }

    /// As [`hold_while`](Semaphore::hold_while), with a conflict handler as in
    /// [`run_or_else`](Semaphore::run_or_else).
    ///
    /// # Errors
    ///
    /// As [`Lock::hold_while`], and those of the handler.
    pub fn hold_while_or_else<Via, T, E>(
        self,
        body: impl FnOnce(&Held) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E>
    where
        B: HoldBackend<Via>,
        E: From<Error>,
    {
        or_else(self.hold(), |held| run(held, body), on_conflict)
    }
}

fn hold<Via, B: HoldBackend<Via>>(
    backend: B,
    request: Request,
    slots: Option<Slots>,
) -> Result<Held, Error> {
    let lock = || request.lock.clone();
    if super::clock::Silence::new(request.lease).is_none() {
        let (lock, lease) = (lock(), request.lease);
        return Err(Error::InvalidLease { lock, lease });
    }
    if request.scope == Some(Scope::Transaction) {
        return Err(Error::NotInTransaction { lock: lock() });
    }
    backend.hold(Order { request, slots })
}

fn run<T, E: From<Error>>(held: Held, body: impl FnOnce(&Held) -> Result<T, E>) -> Result<T, E> {
    let value = body(&held)?;
    held.release()?;
    Ok(value)
}

fn run_if<T, E: From<Error>>(
    held: Option<Held>,
    body: impl FnOnce(&Held) -> Result<T, E>,
) -> Result<Option<T>, E> {
    held.map(|held| run(held, body)).transpose()
}
