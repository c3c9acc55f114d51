//! What the queues need of the standard library. `tests/queue_model.rs` replaces it.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

pub(super) use std::sync::{Arc, MutexGuard};
pub(super) use std::thread::{Thread, ThreadId, current};

/// A mutex that a thread can wait in, until it is unparked. No user code runs under it, so its data
/// is sound even after a panic.
#[derive(Default)]
pub(super) struct Monitor<T>(Mutex<T>);

impl<T> Monitor<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody unparks this thread or the deadline has passed, and may return sooner.
    /// Returns whether the deadline has passed.
    pub(super) fn wait<'m>(
        &'m self,
        guard: MutexGuard<'m, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'m, T>, bool) {
        drop(guard);
        match deadline {
            None => thread::park(),
            Some(deadline) => {
                thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
        }
        let out_of_time = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        (self.lock(), out_of_time)
    }
}
