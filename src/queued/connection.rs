//! What a queued pool hands out, and how it goes from thread to thread.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, Pool, PooledConnection};

use super::QueuedPool;
use super::queue::Turn;
use crate::driver::{self, Failure, Kept, Pooled, QueuePlace, Refusal, Session, SessionHandle};
use crate::error::Error;
use crate::failure::answer;
use crate::lock::nesting::Note;
use crate::prepared::Known;
use crate::sql;
use crate::targets::LockInfo;

/// What one thread hands over to the next.
pub(super) type HandOver<M> = Result<Connection<M>, NoConnection>;

/// A connection, with the lock on it or without. Even without it, a hand-over takes the next thread
/// to the server sooner than the pool would.
pub(super) struct Connection<M: ManageConnection> {
    pooled: PooledConnection<M>,
    checked_out: Instant,
    holds_lock: bool,
}

/// The pool had no connection to give.
pub(super) struct NoConnection {
    pub(super) since: Instant,
}

impl<M: ManageConnection> Connection<M> {
    pub(super) fn new(pooled: PooledConnection<M>) -> Self {
        Self {
            pooled,
            checked_out: Instant::now(),
            holds_lock: false,
        }
    }
}

/// What a guard on a [`QueuedPool`](crate::QueuedPool) holds. It derefs to the pool's connection.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::NoTls;
/// use pglock::{Lock, LockGuard, QueuedConnection, QueuedPool};
/// use r2d2_postgres::PostgresConnectionManager;
///
/// /// Keeps its lock for as long as it lives.
/// struct Import {
///     lock: LockGuard<QueuedConnection<PostgresConnectionManager<NoTls>>>,
/// }
///
/// # let config: postgres::Config = std::env::var("DATABASE_URL")?.parse()?;
/// # let pool = r2d2::Pool::builder().max_size(1).build(PostgresConnectionManager::new(config, NoTls))?;
/// let pool = QueuedPool::new(pool);
/// let mut import = Import { lock: Lock::new(pool, "doc:import").acquire_owned()? };
/// import.lock.batch_execute("SELECT 'a line'")?;
/// LockGuard::release(import.lock)?;
/// # }
/// # Ok(())
/// # }
/// ```
pub struct QueuedConnection<M: ManageConnection<Connection: Session>> {
    /// `None` once it has been handed over. It goes back to the pool before the turn ends, so that
    /// the next thread finds it there.
    connection: Option<PooledConnection<M>>,
    /// `None` for a lock that does not queue.
    place: Option<Place<M>>,
    queue: driver::Place,
    _owner: Option<Note>,
}

/// A place at the head of the queue.
struct Place<M: ManageConnection> {
    turn: Turn<LockInfo, HandOver<M>>,
    pool: Pool<M>,
    max_hold: Duration,
    checked_out: Instant,
    /// Whether the lock came with the connection and has not been taken over yet.
    holds_lock: bool,
}

impl<M: ManageConnection<Connection: Session>> QueuedConnection<M> {
    pub(super) fn unqueued(
        connection: PooledConnection<M>,
        pool: &QueuedPool<M>,
        owner: Option<Note>,
    ) -> Self {
        Self {
            connection: Some(connection),
            place: None,
            queue: pool.id.clone(),
            _owner: owner,
        }
    }

    pub(super) fn queued(
        connection: Connection<M>,
        turn: Turn<LockInfo, HandOver<M>>,
        pool: &QueuedPool<M>,
        owner: Note,
    ) -> Self {
        let place = Place {
            turn,
            pool: pool.pool.clone(),
            max_hold: pool.max_hold,
            checked_out: connection.checked_out,
            holds_lock: connection.holds_lock,
        };
        Self {
            connection: Some(connection.pooled),
            place: Some(place),
            queue: pool.id.clone(),
            _owner: Some(owner),
        }
    }
}

impl<M: ManageConnection<Connection: Session>> SessionHandle for QueuedConnection<M> {
    fn pooled(&mut self) -> Option<&mut dyn Pooled> {
        Some(self)
    }
}

impl<M: ManageConnection<Connection: Session>> Kept for QueuedConnection<M> {
    fn place(&mut self) -> Option<&mut dyn QueuePlace> {
        Some(self)
    }

    fn known(&mut self) -> Option<&mut Known> {
        self.connection.as_mut()?.known()
    }

    fn release_apart(&mut self, lock: &LockInfo) -> Option<Result<(), Error>> {
        self.connection.as_mut()?.release_apart(lock)
    }

    fn database(&mut self) -> Option<driver::Place> {
        self.connection.as_mut()?.database()
    }

    fn queue(&self) -> Option<driver::Place> {
        Some(self.queue.clone())
    }
}

impl<M: ManageConnection<Connection: Session>> QueuePlace for QueuedConnection<M> {
    fn takes_over(&mut self) -> bool {
        let place = self.place.as_mut();
        place.is_some_and(|place| mem::take(&mut place.holds_lock))
    }

    /// First, in one round trip, releases the lock and acquires it again if it is free: the server
    /// lets waiters of other sessions go first.
    fn hand_over(&mut self, lock: &LockInfo) -> bool {
        let (Some(place), Some(session)) = (&mut self.place, self.connection.as_deref_mut()) else {
            return false;
        };
        let fit = !thread::panicking() && !session.is_broken() && !session.in_transaction();
        if !fit || place.is_wanted_back() || !place.turn.next_takes_over() {
            return false;
        }
        let gave_way = session.prepared("", &sql::give_way(lock));
        let holds_lock = match answer(gave_way) {
            Ok(()) => true,
            Err(Failure::Refused(Refusal::Busy)) => false,
            Err(_) => return false, // the release reports what is wrong, and mends it
        };
        let Some(pooled) = self.connection.take() else {
            return false;
        };
        let connection = Connection {
            pooled,
            checked_out: place.checked_out,
            holds_lock,
        };
        if let Err(Ok(connection)) = place.turn.hand_over(Ok(connection)) {
            self.connection = Some(connection.pooled); // nobody waits any more
            return !holds_lock;
        }
        true
    }
}

impl<M: ManageConnection<Connection: Session>> Place<M> {
    /// Whether the pool has been without the connection for too long, and has no other. Threads may
    /// wait there for other keys, and the pool does not show them.
    fn is_wanted_back(&self) -> bool {
        self.checked_out.elapsed() >= self.max_hold && {
            let state = self.pool.state();
            state.idle_connections == 0 && state.connections >= self.pool.max_size()
        }
    }
}

/// A connection whose lock was not taken over must not go back to the pool.
impl<M: ManageConnection<Connection: Session>> Drop for QueuedConnection<M> {
    fn drop(&mut self) {
        if let (Some(place), Some(session)) = (&self.place, self.connection.as_deref_mut())
            && place.holds_lock
        {
            session.terminate();
        }
    }
}

impl<M: ManageConnection<Connection: Session>> Deref for QueuedConnection<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        self.connection.as_ref().expect(IN_USE)
    }
}

impl<M: ManageConnection<Connection: Session>> DerefMut for QueuedConnection<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        self.connection.as_mut().expect(IN_USE)
    }
}

const IN_USE: &str = "only a guard that is being consumed hands its connection over";

impl<M: ManageConnection<Connection: Session>> fmt::Debug for QueuedConnection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedConnection").finish_non_exhaustive()
    }
}
