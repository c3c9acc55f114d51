//! Which thread holds which locks through a queued pool. A thread that waits for its own lock on
//! another connection waits for ever: the server sees two sessions, and no deadlock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sync::{Arc, Monitor};
use crate::request::LockInfo;

thread_local! {
    /// Another thread touches these only to drop a guard that was moved to it.
    static OWN: Own = Own::default();
}

type Own = Arc<Monitor<Vec<(PoolId, LockInfo)>>>;

/// A pool and its clones.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct PoolId(u64);

/// A lock that a thread holds or waits for, until this value is dropped, on any thread.
pub(super) struct Owner {
    own: Own,
    pool: PoolId,
    lock: LockInfo,
}

impl PoolId {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes a lock for this thread. Returns `None` if the thread could wait for itself.
    pub(super) fn own(self, lock: &LockInfo, waits: bool) -> Option<Owner> {
        // A thread that is ending has already dropped its notes.
        let own = OWN.try_with(Arc::clone).unwrap_or_default();
        let mut locks = own.lock();
        let mut here = locks.iter().filter(|(pool, _)| *pool == self);
        if waits && here.any(|(_, held)| lock.may_wait_for(held)) {
            return None;
        }
        locks.push((self, lock.clone()));
        drop(locks);
        Some(Owner {
            own,
            pool: self,
            lock: lock.clone(),
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut locks = self.own.lock();
        let place = locks
            .iter()
            .position(|(pool, lock)| *pool == self.pool && *lock == self.lock);
        if let Some(place) = place {
            locks.swap_remove(place);
        }
    }
}
