//! The guard: a lock that is held.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::held_slots::HeldSlots;
use super::nesting;
use crate::driver::{self, Failure, Owned, Refusal, Session, SessionHandle, while_canceled};
use crate::error::Error;
use crate::failure::answer;
use crate::request::{Request, Scope};
use crate::sql;
use crate::targets::{LockInfo, Mode};
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
/// guard that is forgotten (`std::mem::forget`) releases nothing: the lock stays with its session,
/// even in a pool. A transaction lock stays until its transaction ends, or a savepoint before it is
/// rolled back, and releasing the guard does nothing.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Lock, LockGuard};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let mut lock = Lock::new(&mut client, "doc:guard");
/// let mut guard = lock.acquire()?;
/// guard.batch_execute("SELECT 'the work'")?; // on the connection
/// assert!(LockGuard::is_held(&mut guard)?);
/// LockGuard::release(guard)?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// Misuse does not compile: using the connection beside a live guard,
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
pub struct LockGuard<H: SessionHandle> {
    pub(crate) handle: H,
    pub(crate) lock: LockInfo,
    pub(crate) scope: Scope,
    /// Of a labelled one, whose questions say for how long it has been held.
    since: Option<Instant>,
    hold: Hold,
    /// Of a permit. Dropped before the slot is free, so that others need not look it up.
    slot: Option<HeldSlots>,
    released: bool,
}

impl<H: SessionHandle> LockGuard<H> {
    pub(crate) fn new(handle: H, request: &Request, scope: Scope, hold: Hold) -> Self {
        let slot = request.lock.slot();
        Self {
            handle,
            slot: slot.map(|_| HeldSlots::new(request.lock.keys())),
            lock: request.lock.clone(),
            scope,
            since: request.labelled.then(Instant::now),
            hold,
            released: false,
        }
    }

    /// Runs the body under the lock, and releases it. The body's own error is never masked by the release's.
    pub(crate) fn run<T, E: From<Error>>(
        mut guard: Self,
        body: impl FnOnce(&mut H::Target) -> Result<T, E>,
    ) -> Result<T, E> {
        let pooled = guard.handle.pooled().filter(|_| guard.lock.is_on_keys());
        let places = pooled.map(|pooled| [pooled.database(), pooled.queue()]);
        let places = places.into_iter().flatten().flatten();
        let _held = nesting::hold(places, &guard.lock);
        let value = guard.hold.inside().run(|| body(&mut guard.handle))?;
        Self::release(guard)?;
        Ok(value)
    }

    /// Which lock this is: its keys and its mode.
    pub fn lock_info(guard: &Self) -> &LockInfo {
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

    /// Asks the server whether the lock is still held, by the session or by the transaction as the
    /// guard's [`scope`](LockGuard::scope) says. One round trip.
    ///
    /// If the connection is lost, it returns `false`: the server frees what the session held.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionAborted`] and [`Error::Database`] when the server could not be asked.
    pub fn is_held(guard: &mut Self) -> Result<bool, Error> {
        let label = question_label(&guard.lock, guard.since);
        let session = &mut *guard.handle;
        let reply = match guard.scope {
            Scope::Session => answer(session.prepared(&label, &sql::held_by_session(&guard.lock))),
            Scope::Transaction => {
                let question = [&label, &*sql::held(&guard.lock)].concat();
                held_behind_savepoint(session, &question).and_then(|held| {
                    match held.first().is_some_and(|held| held == "true") {
                        true => Ok(()),
                        false => Err(Failure::Refused(Refusal::NotHeld)),
                    }
                })
            }
        };
        match reply {
            Ok(()) => Ok(true),
            Err(Failure::Lost(_) | Failure::Refused(Refusal::NotHeld)) => Ok(false),
            Err(failure) => {
                let in_transaction = session.in_transaction();
                let failure = match in_transaction {
                    true => failure.without_transaction(true),
                    false => failure,
                };
                Err(Error::acquire(guard.lock.clone(), None, failure))
            }
        }
    }

    /// Releases the lock, and reports what went wrong. A transaction lock is left to its
    /// transaction. One round trip.
    ///
    /// # Errors
    ///
    /// After any of them, the lock is free, unless you have put another connection in the guard, by
    /// `std::mem::swap` or the like: the lock then stays with the connection that you took out.
    ///
    /// - [`Error::LockLost`]: the lock was no longer held, so the section ran unprotected, or its
    ///   connection broke, or there is another connection in the guard.
    /// - [`Error::TransactionLeftOpen`]: a transaction was open, and has been rolled back.
    /// - [`Error::ReleaseFailed`]: the server refused the release, and the session was ended.
    pub fn release(mut guard: Self) -> Result<(), Error> {
        guard.slot = None;
        if guard.scope == Scope::Session
            && guard.lock.mode() == Mode::Exclusive // a downgraded one cannot be handed over
            && let Some(place) = guard.handle.pooled().and_then(|pooled| pooled.place())
            && place.hand_over(&guard.lock)
        {
            guard.released = true;
            guard.hold.end(Outcome::Released);
        }
        guard.end()
    }

    /// Leaves a session's lock to whoever keeps the session.
    pub(crate) fn suspend(mut self) -> Suspended {
        self.released = true;
        Suspended {
            lock: self.lock.clone(),
            since: self.since,
            hold: std::mem::replace(&mut self.hold, Hold::not_yet()),
            slot: self.slot.take(),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        self.slot = None;
        driver::recall(&mut self.handle);
        let ended = catch_unwind(AssertUnwindSafe(|| match self.scope {
            Scope::Session => driver::release(&mut *self.handle, &self.lock),
            Scope::Transaction => Ok(()),
        }));
        let ended = ended.unwrap_or_else(|panic| {
            let pooled = self.handle.pooled();
            let released = pooled.and_then(|pooled| pooled.release_apart(&self.lock));
            released.unwrap_or_else(|| resume_unwind(panic))
        });
        driver::keep(&mut self.handle, true);
        self.hold.end(match &ended {
            Ok(()) if self.scope == Scope::Transaction => Outcome::Kept,
            Ok(()) => Outcome::Released,
            Err(Error::TransactionLeftOpen { .. }) => Outcome::RolledBack,
            Err(_) => Outcome::Lost,
        });
        ended
    }
}

impl<S: Session> LockGuard<Owned<S>> {
    /// Releases the lock, and gives the connection back. (A pooled one goes back to its pool at the
    /// [release](LockGuard::release).)
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// use pglock::{Lock, LockGuard};
    /// use postgres::{Client, NoTls};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// let client = Client::connect(&url, NoTls)?;
    /// let guard = Lock::new(client, "doc:into-inner").acquire_owned()?;
    /// let mut client = LockGuard::into_inner(guard)?;
    /// client.batch_execute("SELECT 'no longer under the lock'")?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`release`](LockGuard::release). After any of them, the connection is closed.
    pub fn into_inner(mut guard: Self) -> Result<S, Error> {
        guard.end()?;
        Ok(guard.handle.take())
    }
}

/// A lock of a session's that is held without its guard.
pub(crate) struct Suspended {
    lock: LockInfo,
    /// Of a labelled one.
    since: Option<Instant>,
    hold: Hold,
    slot: Option<HeldSlots>,
}

impl Suspended {
    pub(crate) fn lock(&self) -> &LockInfo {
        &self.lock
    }

    /// Releases it as its guard would. It must be on this session.
    pub(crate) fn release<S: Session>(self, session: &mut S) -> Result<(), Error> {
        LockGuard::release(LockGuard {
            handle: session,
            lock: self.lock,
            scope: Scope::Session,
            since: self.since,
            hold: self.hold,
            slot: self.slot,
            released: false,
        })
    }

    /// What stands in front of a question about it.
    pub(crate) fn label(&self) -> String {
        question_label(&self.lock, self.since)
    }
}

fn question_label(lock: &LockInfo, since: Option<Instant>) -> String {
    let label = |since: Instant| sql::label_of_holder(lock, since.elapsed());
    since.map(label).unwrap_or_default()
}

/// Asks in the caller's transaction, which stays usable if the question is cancelled.
fn held_behind_savepoint<S: Session>(
    session: &mut S,
    question: &str,
) -> Result<Vec<String>, Failure> {
    let asked = match S::HAS_SQLSTATE {
        true => session.query(&[sql::SAVEPOINT, question, "; ", sql::RELEASE].concat()),
        false => session
            .message(sql::SAVEPOINT, question)
            .and_then(|lines| session.send(sql::RELEASE).map(|()| lines)),
    };
    if matches!(asked, Err(Failure::Sql { .. })) {
        let _ = while_canceled(|| session.send(sql::UNDO));
    }
    asked
}

impl<H: SessionHandle> Deref for LockGuard<H> {
    type Target = H::Target;

    fn deref(&self) -> &Self::Target {
        &self.handle
    }
}

impl<H: SessionHandle> DerefMut for LockGuard<H> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.handle
    }
}

impl<H: SessionHandle> Drop for LockGuard<H> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl<H: SessionHandle> fmt::Debug for LockGuard<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lock", &self.lock)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
