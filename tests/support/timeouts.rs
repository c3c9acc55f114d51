//! What a pool reports about failed checkouts.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use r2d2::HandleEvent;
use r2d2::event::TimeoutEvent;

/// How long each of them would have waited at most.
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
