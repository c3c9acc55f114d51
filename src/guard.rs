//! The guard: a lock that is held.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::answer::{Answer, Failure};
use crate::backends::{Session, SessionHandle};
use crate::error::Error;
use crate::request::{LockInfo, Mode, Scope};
use crate::session;
use crate::sql;
use crate::telemetry::{Hold, Outcome};

/// A lock that is held, and the connection that it is held on.
///
/// It derefs to the connection (`guard.execute(…)`, `.execute(&mut *guard)`), so that nothing can
/// be done on the connection that the lock does not cover. Its own functions are associated
/// functions, to leave the connection's methods alone.
///
/// A session lock is released by [`LockGuard::release`], which reports what went wrong, or by
/// dropping the guard, which cannot. In both cases an open transaction is rolled back first, and if
/// the server does not confirm the release, the session is ended: the lock is free afterwards. A
/// transaction lock stays until its transaction ends, and releasing the guard does nothing.
///
/// What must not be does not compile: using the connection beside a live guard,
///
/// ```compile_fail,E0499
/// # fn import(client: &mut postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut lock = pglock::Lock::new(&mut *client, "import");
/// let guard = lock.acquire()?;
/// client.batch_execute("DELETE FROM import")?; // not covered by the guard's borrow
/// pglock::LockGuard::release(guard)?;
/// # Ok(())
/// # }
/// ```
///
/// and taking the connection out of the closure that runs under the lock:
///
/// ```compile_fail
/// # fn import(client: &mut postgres::Client) -> Result<(), pglock::Error> {
/// let mut leaked = None;
/// pglock::with_lock(client, "import", |conn| {
///     leaked = Some(conn);
///     Ok::<_, pglock::Error>(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a guard that is not kept releases its lock at once"]
pub struct LockGuard<H>
where
    H: SessionHandle,
{
    handle: H,
    lock: LockInfo,
    scope: Scope,
    hold: Hold,
    since: Instant,
    released: bool,
}

impl<H> LockGuard<H>
where
    H: SessionHandle,
{
    pub(crate) fn new(handle: H, lock: LockInfo, scope: Scope, hold: Hold) -> Self {
        Self {
            handle,
            lock,
            scope,
            hold,
            since: Instant::now(),
            released: false,
        }
    }

    /// Runs the body such that its spans are inside that of the hold.
    pub(crate) fn run<R>(guard: &mut Self, body: impl FnOnce(&mut H::Target) -> R) -> R {
        guard.hold.inside().run(|| body(&mut guard.handle))
    }

    /// Which lock this is: its keys and its mode.
    pub fn lock(guard: &Self) -> &LockInfo {
        &guard.lock
    }

    /// Exclusive or shared.
    pub fn mode(guard: &Self) -> Mode {
        guard.lock.mode()
    }

    /// Whether the lock ends with the guard, or with the transaction.
    pub fn scope(guard: &Self) -> Scope {
        guard.scope
    }

    /// Asks the server whether the lock is still held. One round trip.
    ///
    /// A lost connection is a plain `false`: the server has freed what it held.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionAborted`] and [`Error::Database`] when the server could not be asked.
    pub fn is_held(guard: &mut Self) -> Result<bool, Error> {
        let in_transaction = guard.handle.in_transaction();
        let asked = if in_transaction {
            guard.handle.send(&sql::held_in_transaction(&guard.lock))
        } else {
            guard
                .handle
                .send(&sql::held(&guard.lock, <H::Target as Session>::ANSWERS))
        };
        match asked {
            Ok(()) => Ok(true),
            Err(Failure::Lost(_)) => Ok(false),
            Err(Failure::Refused(Answer::NotHeld)) => {
                if in_transaction {
                    let _ = guard.handle.send(sql::UNDO);
                }
                Ok(false)
            }
            Err(failure) => {
                if in_transaction {
                    let _ = guard.handle.send(sql::UNDO);
                }
                Err(Error::acquire(guard.lock.clone(), None, failure))
            }
        }
    }

    /// Releases the lock, and says whether all was well. A transaction lock is left to its
    /// transaction. One round trip.
    ///
    /// # Errors
    ///
    /// In each of them, the lock is free afterwards.
    ///
    /// - [`Error::LockLost`]: the lock was not held any more, so the section ran unprotected, or
    ///   its connection broke.
    /// - [`Error::TransactionLeftOpen`]: a transaction was open, and has been rolled back.
    pub fn release(mut guard: Self) -> Result<(), Error> {
        if guard.scope == Scope::Session && guard.handle.pass_on(&guard.lock, guard.since.elapsed())
        {
            guard.released = true;
            guard.hold.end(Outcome::Released);
        }
        guard.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        let ended = self.unlock();
        self.hold.end(match &ended {
            Ok(()) if self.scope == Scope::Transaction => Outcome::Kept,
            Ok(()) => Outcome::Released,
            Err(Error::TransactionLeftOpen { .. }) => Outcome::RolledBack,
            Err(_) => Outcome::Lost,
        });
        ended
    }

    fn unlock(&mut self) -> Result<(), Error> {
        if self.scope == Scope::Transaction {
            return Ok(());
        }
        let (session, lock) = (&mut *self.handle, self.lock.clone());
        match session::unlock(session, &lock) {
            Ok(()) => Ok(()),
            Err(failure @ (Failure::Refused(Answer::InTransaction) | Failure::Sql { .. })) => {
                match session::rollback_and_unlock(session, &lock) {
                    Ok(()) => Err(Error::TransactionLeftOpen {
                        lock,
                        source: failure.into_source(),
                    }),
                    Err(failure) => {
                        session.end();
                        Err(Error::LockLost {
                            lock,
                            source: failure.into_source(),
                        })
                    }
                }
            }
            Err(failure) => Err(Error::LockLost {
                lock,
                source: failure.into_source(),
            }),
        }
    }
}

impl<H> Deref for LockGuard<H>
where
    H: SessionHandle,
{
    type Target = H::Target;

    fn deref(&self) -> &Self::Target {
        &self.handle
    }
}

impl<H> DerefMut for LockGuard<H>
where
    H: SessionHandle,
{
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.handle
    }
}

impl<H> Drop for LockGuard<H>
where
    H: SessionHandle,
{
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl<H> fmt::Debug for LockGuard<H>
where
    H: SessionHandle,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lock", &self.lock)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
