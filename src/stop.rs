//! What ends a wait from another thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Ends the waits that heed it, from any thread: at shutdown, on SIGTERM, when a request is
/// cancelled.
///
/// Clones are the same token. Once stopped, it stays stopped.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Error, Lock, StopToken};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let token = StopToken::new();
/// let shutdown = token.clone();
/// std::thread::spawn(move || shutdown.stop()); // such as a thread that handles signals
///
/// # while !token.is_stopped() {}
/// let stopped = Lock::new(&mut client, "doc:stopped").stop_on(&token).acquire().map(drop);
/// assert!(matches!(stopped, Err(Error::Stopped { .. })));
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct StopToken(Arc<State>);

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    wakers: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
    changed: Condvar,
}

impl StopToken {
    /// A token that is not stopped yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the waits that heed this token, and all later ones.
    ///
    /// It takes a mutex and wakes threads: call it from a thread that handles signals, not from the
    /// signal handler itself.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *self.wakers());
        self.0.changed.notify_all();
        for waker in wakers {
            if let Some(wake) = waker.upgrade() {
                wake();
            }
        }
    }

    /// Whether it has been stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Sleeps for that long, or until the token is stopped, and returns whether it is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pglock::StopToken;
    ///
    /// let shutdown = StopToken::new();
    /// # shutdown.stop();
    /// while !shutdown.wait(Duration::from_secs(1)) {
    ///     println!("one more round");
    /// }
    /// ```
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now().checked_add(time);
        let mut wakers = self.wakers();
        while !self.is_stopped() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    wakers = self
                        .0
                        .changed
                        .wait_timeout(wakers, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                None => {
                    wakers = self
                        .0
                        .changed
                        .wait(wakers)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        true
    }

    /// Unparks this thread when the token is stopped, for as long as the returned value is kept. If
    /// it is stopped already, unparks at once.
    #[cfg(feature = "r2d2")]
    pub(crate) fn wakes_this_thread(&self) -> Arc<dyn Fn() + Send + Sync> {
        let thread = std::thread::current();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || thread.unpark());
        let mut wakers = self.wakers();
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(Arc::downgrade(&wake));
        drop(wakers);
        if self.is_stopped() {
            wake();
        }
        wake
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Fn() + Send + Sync>>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StopToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopToken")
            .field("stopped", &self.is_stopped())
            .finish()
    }
}
