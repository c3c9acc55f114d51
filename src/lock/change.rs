//! A lock that changes its mode while it is held.

use std::time::{Duration, Instant};

use super::guard::LockGuard;
use crate::driver::{Failure, Refusal, Session, SessionHandle, insist};
use crate::error::Error;
use crate::failure::answer;
use crate::request::{Request, Scope};
use crate::sql::{self, WaitTime};

use super::wait::{self, Attempt, explained};
use crate::targets::{LockInfo, Mode, Target};

/// How long an upgrade waits for each key, in milliseconds. It has to wait a little: before
/// PostgreSQL 17, the server lets no attempt go past other waiters without a wait.
const UPGRADE: WaitTime = WaitTime::InPlace(Some(1));

impl<H: SessionHandle> LockGuard<H> {
    /// Makes an exclusive lock shared, without a gap: other shared holders are let in, and no
    /// exclusive one comes in between. One round trip; nothing happens if it is shared already.
    ///
    /// If a section around this one also holds the lock exclusively, on the same connection, others
    /// stay out until that section ends.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, LockGuard, Mode};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut lock = Lock::new(&mut client, "doc:downgrade");
    /// let mut guard = lock.acquire()?;
    /// guard.batch_execute("SELECT 'write'")?;
    /// LockGuard::downgrade(&mut guard)?;
    /// assert_eq!(LockGuard::mode(&guard), Mode::Shared);
    /// guard.batch_execute("SELECT 'read on, beside others'")?;
    /// LockGuard::release(guard)?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After any of them except [`Error::LockLost`], the lock is held as before.
    ///
    /// - [`Error::CannotDowngrade`]: a transaction is open. PostgreSQL cannot release a transaction
    ///   lock before its end, and a session lock would let others in before the work that it
    ///   protects is committed.
    /// - [`Error::FixedMode`]: the lock is on a range.
    /// - [`Error::LockLost`]: the lock was no longer held, or its connection broke.
    /// - [`Error::Canceled`], [`Error::TransactionAborted`], [`Error::Database`].
    pub fn downgrade(guard: &mut Self) -> Result<(), Error> {
        if guard.lock.mode() == Mode::Shared {
            return Ok(());
        }
        let lock = guard.lock.clone();
        must_be_variable(&lock)?;
        if guard.scope == Scope::Transaction || guard.handle.in_transaction() {
            return Err(Error::CannotDowngrade { lock });
        }
        match insist(|| guard.change()) {
            Ok(()) => {
                guard.lock = lock.with_mode(Mode::Shared);
                Ok(())
            }
            Err(Failure::Refused(Refusal::InTransaction)) => Err(Error::CannotDowngrade { lock }),
            Err(failure) => Err(unchanged(lock, failure)),
        }
    }

    /// Makes a shared lock exclusive if nobody else shares it. Returns `false` if somebody does;
    /// then the lock is still shared. One round trip; nothing happens if it is exclusive already.
    ///
    /// It goes past the waiters, which have to wait for this holder in any case. It waits for at
    /// most a millisecond per key. What was read under the shared lock has not changed.
    ///
    /// In a transaction the exclusive lock is a transaction lock, and stays until the transaction
    /// ends.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, LockGuard};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut lock = Lock::new(&mut client, "doc:upgrade").shared();
    /// let mut guard = lock.acquire()?;
    /// guard.batch_execute("SELECT 'read'")?;
    /// if LockGuard::try_upgrade(&mut guard)? {
    ///     guard.batch_execute("SELECT 'write'")?;
    /// }
    /// LockGuard::release(guard)?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After any of them except [`Error::LockLost`], the lock is held as before.
    ///
    /// - [`Error::InTransaction`]: it is a session lock, and a transaction has been opened since.
    /// - [`Error::FixedMode`]: the lock is on a range.
    /// - [`Error::LockLost`]: the lock was no longer held, or its connection broke.
    /// - [`Error::Canceled`], [`Error::LockTableFull`], [`Error::TransactionAborted`].
    /// - [`Error::Database`]: with diesel also instead of `false`, if the server's messages
    ///   (`lc_messages`) are not in English.
    pub fn try_upgrade(guard: &mut Self) -> Result<bool, Error> {
        if guard.lock.mode() == Mode::Exclusive {
            return Ok(true);
        }
        must_be_variable(&guard.lock)?;
        let lock = guard.lock.clone().with_mode(Mode::Exclusive);
        let upgraded = match guard.scope {
            Scope::Session => guard.upgrade_for_session(),
            Scope::Transaction => guard.upgrade_for_transaction(&lock),
        };
        match upgraded {
            Ok(()) => {
                guard.lock = lock;
                Ok(true)
            }
            // A deadlock: another shared holder waits to upgrade too.
            Err(Error::Timeout { .. } | Error::Deadlock { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn upgrade_for_session(&mut self) -> Result<(), Error> {
        let lock = self.lock.clone();
        if self.handle.in_transaction() {
            return Err(Error::InTransaction { lock });
        }
        let start = Instant::now();
        self.change().map_err(|failure| {
            let wanted = lock.clone().with_mode(Mode::Exclusive);
            let waited = start.elapsed();
            let failure = explained(&mut *self.handle, &wanted, UPGRADE, waited, failure);
            if matches!(failure, Failure::Sql { .. }) {
                // A driver may return before the server has released what the message acquired.
                let _ = insist(|| self.handle.send("SELECT 1"));
            }
            unchanged(lock, failure)
        })
    }

    /// Acquires the exclusive lock beside the shared one, which stays too.
    fn upgrade_for_transaction(&mut self, lock: &LockInfo) -> Result<(), Error> {
        let request = Request {
            timeout: Some(Duration::from_millis(1)),
            keep_place: true,
            name_holders: Some(false),
            ..Request::new(lock.target().clone())
        };
        let mut attempt = Attempt::begin(&request);
        wait::transaction::acquire(&mut *self.handle, &mut attempt, lock)
    }

    fn change(&mut self) -> Result<(), Failure> {
        let change = sql::change_mode(&self.lock, UPGRADE);
        answer(self.handle.prepared("", &change))
    }
}

fn must_be_variable(lock: &LockInfo) -> Result<(), Error> {
    match lock.target() {
        Target::Range(_) => Err(Error::FixedMode { lock: lock.clone() }),
        _ => Ok(()),
    }
}

fn unchanged(lock: LockInfo, failure: Failure) -> Error {
    match failure {
        Failure::Lost(source) => Error::LockLost {
            lock,
            source: Some(source),
        },
        failure => Error::acquire(lock, None, failure),
    }
}
