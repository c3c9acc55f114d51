//! What a pool remembers of a session while somebody has it.

use std::sync::Arc;

use crate::error::Error;
use crate::prepared::Known;
use crate::targets::LockInfo;

/// What pglock keeps beside a session that came out of a pool: what is prepared there, which database it leads to, and
/// the place in a `QueuedPool`. Only pglock makes one, and only pglock reads it; see
/// [`SessionHandle::pooled`](super::SessionHandle::pooled).
pub trait Pooled: Kept {}

impl<T: Kept> Pooled for T {}

/// Where locks are taken. Only locks of one place wait for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A database, by its oid and the moment at which its server started.
    Database(Arc<str>),
    /// The queue of a queued pool and its clones.
    #[cfg(feature = "r2d2")]
    Queue(u64),
}

/// What is kept.
pub trait Kept {
    /// The place in a queue of this process that the session came with.
    fn place(&mut self) -> Option<&mut dyn QueuePlace> {
        None
    }

    /// Where the pool keeps what the session has prepared.
    fn known(&mut self) -> Option<&mut Known>;

    /// The database behind the session.
    fn database(&mut self) -> Option<Place>;

    /// Releases a lock from a thread of its own. Where the guard is dropped, the driver may panic, as a
    /// `postgres::Client` does inside a runtime. `None`: it panics there too.
    fn release_apart(&mut self, _: &LockInfo) -> Option<Result<(), Error>> {
        None
    }

    /// The queue in front of the pool.
    fn queue(&self) -> Option<Place> {
        None
    }
}

/// Where threads hand locks to each other: the queued pool's own.
pub trait QueuePlace {
    /// Whether the session came with the lock, which another thread handed over. If so, the caller
    /// must release it from then on.
    fn takes_over(&mut self) -> bool;

    /// Offers the session lock to the next thread, at the end of a section that went well. `true`:
    /// that thread has the lock now, and the caller must not release it.
    fn hand_over(&mut self, lock: &LockInfo) -> bool;
}
