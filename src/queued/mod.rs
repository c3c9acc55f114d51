//! A queue in front of a pool: threads of one process wait for a key in memory, and hand the held
//! lock, with its connection, from one to the next.
//!
//! A hand-over costs one round trip, as a release does: only the server can tell whether the lock
//! is still held at the end of a section, and whether a transaction is open (the drivers do not see
//! a raw `BEGIN`). In that round trip the server lets waiters of other processes go first.

mod connection;
mod queue;
mod sync;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, Pool, PooledConnection};

pub use self::connection::QueuedConnection;
use self::connection::{Connection, HandOver, NoConnection};
use self::queue::{Patience, Queues};
use crate::backends::r2d2::check_out;
use crate::driver::{
    Acquire, BoxError, Failure, LockBackend, OwnedBackend, Place, Refusal, Session,
};
use crate::error::Error;
use crate::lock::nesting;
use crate::request::Scope;
use crate::stop::StopToken;
use crate::targets::LockInfo;

/// An r2d2 pool with a queue in front, for keys that many threads of a process want.
///
/// Threads that want the same key wait in memory, first come first served, *before* they take a
/// connection. So a contended key takes one connection of the pool, not one for each thread that
/// waits, and the process's other work finds the rest. When a section has ended well and another
/// thread waits, that thread gets the connection with the lock on it.
///
/// What the other threads gain: 64 threads want one key for sections of 2 ms, four more threads
/// want keys of their own, and the pool has 8 connections. A section of one of the four takes
///
/// | pool | mean | p99 |
/// | --- | --- | --- |
/// | plain | 69 ms | 405 ms |
/// | queued | 0.34 ms | 0.84 ms |
///
/// (`scripts/with-postgres cargo bench --bench contended`; `docs/performance.md` has its last run.)
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// use pglock::{Lock, QueuedPool};
/// use r2d2_postgres::PostgresConnectionManager;
/// use r2d2_postgres::postgres::NoTls;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// let manager = PostgresConnectionManager::new(url.parse()?, NoTls);
/// let pool = QueuedPool::new(r2d2::Pool::builder().max_size(2).build(manager)?);
///
/// std::thread::scope(|threads| {
///     for _ in 0..8 {
///         threads.spawn(|| {
///             let restocked = Lock::new(&pool, "doc:stock:ABC").run(|conn| {
///                 conn.batch_execute("SELECT 'restock'")?;
///                 Ok::<_, pglock::Error>(())
///             });
///             restocked.unwrap();
///         });
///     }
/// });
/// # }
/// # Ok(())
/// # }
/// ```
///
/// It is a backend like the pool itself. A clone shares the pool and its queue.
///
/// - **Other processes** get their turn. A hand-over takes one round trip, as a release does. In it
///   the server releases the lock, lets waiters of other sessions go first, and gives the lock back
///   if there are none.
/// - **Only sound connections are handed over**: none after an error or a panic of the body, or
///   when a guard is dropped, and none that has an open transaction or is broken
///   ([`Session::is_broken`], which the managers of both drivers ask too). The lock is then
///   released as it is everywhere, and the next thread takes a connection from the pool.
/// - **Other keys** find a connection: one that has been handed over for
///   [`max_hold`](QueuedPool::max_hold) goes back to the pool if the pool has no other.
/// - **A timeout bounds the whole call**: the wait in the queue, for a connection and at the
///   server. If it ends in the queue, the error names no holders: the wait was for another thread
///   of this process. A single attempt (`try_…`, a timeout of zero) finds the lock held when any
///   thread of the process holds it or waits for it. Without a timeout the wait in the queue has no
///   bound; the session's own `lock_timeout` counts at the server only.
/// - **Shared locks** do not queue, nor do other locks that do not conflict with themselves: some modes
///   of a [`Table`](crate::Table), and [`FirstFree`](crate::FirstFree), nor a [`Semaphore`](crate::Semaphore): each of its waiters has a connection. The **transaction forms** queue,
///   but hand nothing over: the lock ends with the COMMIT.
/// - **It does not nest through the pool**: a thread that holds a key, alone or among others, and
///   asks for it again gets [`Error::AlreadyHeld`], because it could wait for itself. This goes for
///   shared locks too: the second would wait behind an exclusive one that waits for the first. A
///   single attempt does not wait, so it is made. Inside a section, lock on the connection that the
///   body gets. A guard that has moved to another thread still counts as held by the thread that
///   acquired it.
/// - **Deadlocks**: two threads that hold a key each and wait for the other's, on connections of
///   their own, deadlock without the server noticing. As on any pool, the second gets
///   [`Error::Deadlock`] before it waits, if closures hold the keys and no wait has a timeout. Take
///   several keys with one [`Lock`](crate::Lock).
pub struct QueuedPool<M: ManageConnection> {
    pool: Pool<M>,
    queues: Arc<Queues<LockInfo, HandOver<M>>>,
    id: Place,
    max_hold: Duration,
}

impl<M: ManageConnection> QueuedPool<M> {
    /// Puts a queue in front of a pool. Two queues in front of one pool know nothing of each other.
    #[must_use]
    pub fn new(pool: Pool<M>) -> Self {
        Self {
            pool,
            queues: Queues::new(),
            id: Place::Queue(nesting::number()),
            max_hold: Duration::from_millis(10),
        }
    }

    /// Sets for how long threads hand one connection over to each other while the pool has no
    /// other. Then it goes back to the pool, for other keys. Defaults to 10 ms.
    #[must_use]
    pub fn max_hold(mut self, time: Duration) -> Self {
        self.max_hold = time;
        self
    }

    /// How many threads wait in the queue at this moment, for any key.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.waiting()
    }

    /// The pool behind the queue, for connections without a lock.
    #[must_use]
    pub fn pool(&self) -> &Pool<M> {
        &self.pool
    }
}

impl<M: ManageConnection<Connection: Session>> QueuedPool<M> {
    fn unlocked(&self) -> Result<QueuedConnection<M>, BoxError> {
        Ok(QueuedConnection::unqueued(self.pool.get()?, self, None))
    }

    fn queued(&self, acquire: &Acquire<'_>) -> Result<QueuedConnection<M>, Error> {
        let &Acquire {
            lock,
            scope,
            timeout,
            stop,
            one_message,
        } = acquire;
        let start = Instant::now();
        let patience = match timeout {
            Some(Duration::ZERO) => Patience::None,
            Some(timeout) => start
                .checked_add(timeout)
                .map_or(Patience::Forever, Patience::Until),
            None => Patience::Forever,
        };
        let owner = nesting::enter(self.id.clone(), lock, timeout)?;
        if one_message || !lock.is_self_conflicting() {
            owner.waits_no_more();
            let connection = check_out(&self.pool, lock, timeout)?;
            return Ok(QueuedConnection::unqueued(connection, self, Some(owner)));
        }
        let takes_over = scope == Scope::Session;
        let waker = stop.map(StopToken::wakes_this_thread);
        let stopped = || stop.is_some_and(StopToken::is_stopped);
        let entered = self
            .queues
            .enter(lock.clone(), takes_over, patience, stopped);
        drop(waker);
        let Some((mut turn, handed_over)) = entered else {
            if stopped() {
                return Err(Error::Stopped { lock: lock.clone() });
            }
            let busy = Failure::Refused(Refusal::Busy);
            return Err(Error::acquire(lock.clone(), timeout, busy));
        };
        owner.waits_no_more();
        let since = match handed_over {
            Some(Ok(connection)) => {
                return Ok(QueuedConnection::queued(connection, turn, self, owner));
            }
            Some(Err(NoConnection { since })) => since.max(start),
            None => Instant::now(),
        };
        match self.check_out_since(since, start, lock, timeout) {
            Ok(connection) => {
                let connection = Connection::new(connection);
                Ok(QueuedConnection::queued(connection, turn, self, owner))
            }
            Err(error) => {
                let _ = turn.hand_to_any(Err(NoConnection { since }));
                Err(error)
            }
        }
    }

    /// Waits for a connection no longer than without the queue. Threads of one key wait for it one
    /// after the other, so each counts from when it came, if the pool has had none since.
    fn check_out_since(
        &self,
        since: Instant,
        start: Instant,
        lock: &LockInfo,
        timeout: Option<Duration>,
    ) -> Result<PooledConnection<M>, Error> {
        if timeout == Some(Duration::ZERO) {
            return check_out(&self.pool, lock, timeout);
        }
        let left = self
            .pool
            .connection_timeout()
            .saturating_sub(since.elapsed());
        let left = timeout.map_or(left, |timeout| {
            left.min(timeout.saturating_sub(start.elapsed()))
        });
        // Zero would be an attempt, which may wait for a connection that is being opened.
        check_out(&self.pool, lock, Some(left.max(Duration::from_nanos(1))))
    }
}

/// A guard owns the connection that the pool gives it.
macro_rules! pools {
    ($($backend:ty),*) => {$(
        impl<M: ManageConnection<Connection: Session>> LockBackend for $backend {
            type Session = M::Connection;
            type Handle<'a> = QueuedConnection<M> where Self: 'a;

            fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
                self.unlocked()
            }

            fn session_for(&mut self, acquire: &Acquire<'_>) -> Result<Self::Handle<'_>, Error> {
                self.queued(acquire)
            }
        }

        impl<M: ManageConnection<Connection: Session>> OwnedBackend for $backend {
            type Owned = QueuedConnection<M>;

            fn into_session_for(self, acquire: &Acquire<'_>) -> Result<Self::Owned, Error> {
                self.queued(acquire)
            }
        }
    )*};
}
pools!(QueuedPool<M>, &QueuedPool<M>);

impl<M: ManageConnection> Clone for QueuedPool<M> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            queues: Arc::clone(&self.queues),
            id: self.id.clone(),
            max_hold: self.max_hold,
        }
    }
}

impl<M: ManageConnection> fmt::Debug for QueuedPool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedPool")
            .field("pool", &self.pool.state())
            .field("waiting", &self.waiting())
            .field("max_hold", &self.max_hold)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
