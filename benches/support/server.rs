//! What the server has spent, and a machine whose cores are all busy.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use pglock::driver::Session;

/// The time that a session's process has spent on a core. Only Linux tells it.
pub struct Cpu {
    path: String,
}

impl Cpu {
    pub fn of<S: Session>(session: &mut S) -> Option<Self> {
        let pid = session
            .query("SELECT pg_backend_pid()::text AS line")
            .ok()?;
        let path = format!("/proc/{}/schedstat", pid.first()?);
        let cpu = Self { path };
        cpu.micros().map(|_| cpu)
    }

    /// In microseconds. The first number in the file counts nanoseconds.
    pub fn micros(&self) -> Option<f64> {
        let text = fs::read_to_string(&self.path).ok()?;
        let nanos = text.split(' ').next()?;
        nanos.parse::<f64>().ok().map(|nanos| nanos / 1e3)
    }
}

/// Keeps every core busy for as long as it lives.
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    count = black_box(count + 1);
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
