//! What the queues need of the standard library, and `tests/queue_model.rs` replaces.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub(super) use std::sync::{Arc, Condvar, MutexGuard};
pub(super) use std::thread::ThreadId;

pub(super) fn current_thread() -> ThreadId {
    std::thread::current().id()
}

/// A mutex that a thread can wait in. No code of a user's runs under it, so what a panic leaves
/// behind is as good as ever.
pub(super) struct Monitor<T>(Mutex<T>);

impl<T> Monitor<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits to be woken, and says whether the time is over.
    #[allow(clippy::unused_self)] // the model's needs it
    pub(super) fn wait<'m>(
        &'m self,
        guard: MutexGuard<'m, T>,
        wake: &Condvar,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'m, T>, bool) {
        let Some(deadline) = deadline else {
            let guard = wake.wait(guard);
            return (guard.unwrap_or_else(PoisonError::into_inner), false);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let woken = wake.wait_timeout(guard, left);
        let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }
}
