//! The permit: a slot that is held.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::driver::{Owned, Session, SessionHandle};
use crate::error::Error;
use crate::lock::guard::LockGuard;
use crate::targets::LockInfo;

/// A slot of a [`Semaphore`](crate::Semaphore) that is held, and the connection that it is held on.
///
/// It derefs to the connection, as a [`LockGuard`] does. Its own functions are associated
/// functions, to leave the connection's methods alone. Dropping a permit gives its slot back;
/// [`Permit::release`] does so too, and reports what went wrong. A permit that is forgotten
/// (`std::mem::forget`) keeps its slot for as long as the session lives.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// use pglock::{Permit, Semaphore};
///
/// let mut licences = Semaphore::new(&mut client, "doc:licence", 4);
/// let mut permit = licences.acquire()?;
/// permit.batch_execute("SELECT 'the work'")?; // the connection
/// assert!(Permit::slot(&permit) < 4);
/// Permit::release(permit)?;
/// # }
/// # Ok(())
/// # }
/// ```
#[must_use = "a permit that is not kept gives its slot back at once"]
pub struct Permit<H: SessionHandle> {
    pub(crate) guard: LockGuard<H>,
    pub(super) slot: u32,
}

impl<H: SessionHandle> Permit<H> {
    /// Which slot it is: 0 or more, and less than the number of slots. No other permit of the
    /// semaphore has the same one at the same time, so it can number what each slot has one of: a
    /// port, a directory, an account.
    pub fn slot(permit: &Self) -> u32 {
        permit.slot
    }

    /// Which lock this is: the semaphore and the slot, with its key.
    pub fn lock_info(permit: &Self) -> &LockInfo {
        LockGuard::lock_info(&permit.guard)
    }

    /// Asks the server whether the slot is still held. One round trip.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::is_held`].
    pub fn is_held(permit: &mut Self) -> Result<bool, Error> {
        LockGuard::is_held(&mut permit.guard)
    }

    /// Gives the slot back, and reports what went wrong. One round trip.
    ///
    /// # Errors
    ///
    /// Those of [`LockGuard::release`]. After any of them, the slot is free, as the lock is there.
    pub fn release(permit: Self) -> Result<(), Error> {
        LockGuard::release(permit.guard)
    }
}

impl<S: Session> Permit<Owned<S>> {
    /// Gives the slot back, and the connection: see [`LockGuard::into_inner`].
    ///
    /// # Errors
    ///
    /// Those of [`LockGuard::release`]. After any of them, the connection is closed.
    pub fn into_inner(permit: Self) -> Result<S, Error> {
        LockGuard::into_inner(permit.guard)
    }
}

impl<H: SessionHandle> Deref for Permit<H> {
    type Target = H::Target;

    fn deref(&self) -> &Self::Target {
        &self.guard
    }
}

impl<H: SessionHandle> DerefMut for Permit<H> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.guard
    }
}

impl<H: SessionHandle> fmt::Debug for Permit<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("lock", LockGuard::lock_info(&self.guard))
            .finish_non_exhaustive()
    }
}
