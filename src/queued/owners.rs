//! Which thread has which locks through the pool. One that waits for a lock of its own, on another
//! connection, waits for ever: the server sees two sessions, and no deadlock.

use super::sync::{Arc, Monitor, ThreadId, current};
use crate::request::LockInfo;

pub(super) struct Owners(Monitor<Vec<(ThreadId, LockInfo)>>);

/// A lock that a thread has or waits for, until this is dropped, on whichever thread.
pub(super) struct Owner {
    owners: Arc<Owners>,
    thread: ThreadId,
    lock: LockInfo,
}

impl Owners {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Monitor::new(Vec::new())))
    }

    /// Notes a lock for this thread. `None`: it would wait for itself.
    pub(super) fn add(self: &Arc<Self>, lock: &LockInfo, waits: bool) -> Option<Owner> {
        let thread = current().id();
        let mut all = self.0.lock();
        let mut own = all.iter().filter(|(owner, _)| *owner == thread);
        if waits && own.any(|(_, held)| held.conflicts(lock)) {
            return None;
        }
        all.push((thread, lock.clone()));
        Some(Owner {
            owners: Arc::clone(self),
            thread,
            lock: lock.clone(),
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut all = self.owners.0.lock();
        let place = all
            .iter()
            .position(|(thread, lock)| *thread == self.thread && *lock == self.lock);
        if let Some(place) = place {
            all.swap_remove(place);
        }
    }
}
