//! What a pool says of the checkouts that failed.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use r2d2::HandleEvent;
use r2d2::event::TimeoutEvent;

/// For how long each of them was to wait.
#[derive(Debug, Clone, Default)]
pub struct Timeouts(Arc<Mutex<Vec<Duration>>>);

impl Timeouts {
    pub fn take(&self) -> Vec<Duration> {
        mem::take(&mut self.0.lock().unwrap())
    }
}

impl HandleEvent for Timeouts {
    fn handle_timeout(&self, event: TimeoutEvent) {
        self.0.lock().unwrap().push(event.timeout());
    }
}
