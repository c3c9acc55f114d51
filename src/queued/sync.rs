//! What the queues need of the standard library, and `tests/queue_model.rs` replaces.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

pub(super) use std::sync::{Arc, MutexGuard};
pub(super) use std::thread::{Thread, ThreadId, current};

/// How many of those who wait for brisk turns stay awake. The first that does not is too late for
/// its turn; each that does is one more to take turns with at the processor. By trial, with 2 to 64
/// threads.
pub(super) const AWAKE: usize = 4;

/// How often such a thread pauses before it sleeps all the same: some 10 µs if nobody else runs.
pub(super) const PAUSES: u32 = 32;

/// A mutex that a thread can wait in, until it is unparked. No code of a user's runs under it, so
/// what a panic leaves behind is as good as ever.
#[derive(Default)]
pub(super) struct Monitor<T>(Mutex<T>);

impl<T> Monitor<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a while, and says whether the time is over. Awake, it does not sleep: whoever else
    /// can run does, and then this thread again.
    pub(super) fn wait<'m>(
        &'m self,
        guard: MutexGuard<'m, T>,
        deadline: Option<Instant>,
        awake: bool,
    ) -> (MutexGuard<'m, T>, bool) {
        drop(guard);
        match deadline {
            _ if awake => thread::yield_now(),
            None => thread::park(),
            Some(deadline) => {
                thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
        }
        let out_of_time = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        (self.lock(), out_of_time)
    }
}
