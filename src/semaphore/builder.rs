//! What a semaphore is called, and what is set for it.

use std::time::Duration;

use super::Semaphore;
use crate::key::IntoKey;
use crate::request::Request;
use crate::stop::StopToken;
use crate::targets::{LockInfo, Slots};

/// What is acquired, and how.
impl<B> Semaphore<B> {
    /// A semaphore of that name with that many permits, each for a slot of its own: 1 to [`Slots::MAX`], otherwise
    /// acquiring one fails with [`Error::InvalidPermits`](crate::Error::InvalidPermits).
    ///
    /// The name is whatever a [`Key`](crate::Key) is made from, such as `key!("api:{tenant}")`. The backend is taken
    /// by value, as by [`Lock::new`](crate::Lock::new). A lock of the same name does not conflict with it.
    pub fn new(backend: B, name: impl IntoKey, permits: u32) -> Self {
        let slots = Slots::new(name, permits);
        Self {
            backend,
            request: Request::new(slots.clone().into()),
            slots,
        }
    }

    /// Bounds the wait for a slot, as [`Lock::timeout`](crate::Lock::timeout) does for a lock. Zero
    /// is exactly one attempt. By default only the session's own `lock_timeout` bounds it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Ends the wait with [`Error::Stopped`](crate::Error::Stopped) when the token is stopped, within a slice of less than a
    /// second.
    pub fn stop_on(mut self, token: &StopToken) -> Self {
        self.request.stop = Some(token.clone());
        self
    }

    /// Sets whether [`Error::Timeout`](crate::Error::Timeout) names the sessions that held the slots, ten at most.
    /// Defaults to `true`, for one more round trip; `try_run` and `try_acquire` never ask.
    pub fn name_holders(mut self, name: bool) -> Self {
        self.request.name_holders = Some(name);
        self
    }

    /// Sets whether the statement that acquires a slot carries the semaphore's name in a comment:
    /// see [`Lock::labelled`](crate::Lock::labelled).
    pub fn labelled(mut self, label: bool) -> Self {
        self.request.labelled = label;
        self
    }

    /// Its slots, and the keys behind them.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The lock that errors name: all of its slots.
    #[must_use]
    pub fn lock_info(&self) -> &LockInfo {
        &self.request.lock
    }
}
