//! A lock for work elsewhere: held, watched, leased.
//!
//! The lock is in PostgreSQL, and the work is not: files, another database, an HTTP API, a child process. Then no
//! COMMIT fails where the lock is gone, so the work must be told, and stop. A [`Held`] is a lock that a thread of
//! pglock's keeps: it watches the connection, asks the server, and counts.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(all(feature = "postgres", feature = "r2d2"))] {
//! # let url = std::env::var("DATABASE_URL")?;
//! # let manager = r2d2_postgres::PostgresConnectionManager::new(url.parse()?, postgres::NoTls);
//! # let pool = r2d2::Pool::builder().max_size(2).build(manager)?;
//! # let (tenant, files) = (7, ["a.csv", "b.csv"]);
//! # let upload = |_: &str| std::io::Result::Ok(());
//! use std::time::Duration;
//! use pglock::held::Held;
//! use pglock::{Lock, key};
//!
//! let held: Held = Lock::new(pool.clone(), key!("doc:import:{tenant}"))
//!     .timeout(Duration::from_secs(5))
//!     .lease(Duration::from_secs(10))
//!     .hold()?;
//! for file in files {
//!     if held.is_lost() {
//!         break; // it asks nobody: by its own clock, and by the connection
//!     }
//!     upload(file)?;
//! }
//! held.release()?; // Error::LockLost if it was lost before
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! Or as a closure, which is told too, and whose end is checked:
//!
//! ```
//! # fn main() -> anyhow::Result<()> {
//! # #[cfg(feature = "postgres")] {
//! # use postgres::{Client, NoTls};
//! # let url = std::env::var("DATABASE_URL")?;
//! use std::time::Duration;
//! use pglock::{Lock, Semaphore};
//!
//! let connect = move || Client::connect(&url, NoTls);
//! Lock::new(connect.clone(), "doc:report").hold_while(|held| {
//!     held.on_loss(|why| eprintln!("stop: {why}")); // once, from a thread of its own
//!     while !held.wait(Duration::from_millis(1)) {
//!         // a piece of the work
//! #       break;
//!     }
//!     anyhow::Ok(())
//! })?;
//!
//! let slot = Semaphore::new(connect, "doc:licence", 4).hold()?;
//! println!("slot {:?} of 4", slot.slot());
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises, and what not
//!
//! - **A holder that is cut off learns it before the lease is over**: [`Held::is_lost`] is true, by its own clock, 0.9
//!   of a lease after the *sending* of the last question that was answered. The server ends its session after a whole
//!   lease of silence, and the lock is free for the next one no sooner. That holds for clocks whose speeds
//!   differ by less than a tenth. A holder counts by two clocks, and whichever is first ends the hold: the
//!   monotonic one, and the time of day, which goes on while a laptop sleeps.
//! - **A holder whose process dies, or whose host is gone, keeps others out for a lease at most.** If the
//!   connection is closed, as it is when a process dies, the lock is free at once.
//! - **Whoever ends the session by hand lets the next one in at once**: `pg_terminate_backend`, a crash of the server, a
//!   middlebox that cuts the connection on the server's side. The old holder learns it within some 20 ms if the end of the
//!   connection reaches it, and by its clock if not. Until then two may hold the lock. An
//!   [election](crate::election) waits that out; a hold, which must let everybody in who uses the same
//!   key with [`Lock`](crate::Lock), cannot.
//! - **Code that does not ask is not stopped.** A hold can end in the middle of whatever the holder does. Ask before each piece
//!   of work, sleep by [`Held::wait`], and keep the time between two questions short. What must not come too late by even one
//!   write belongs into a transaction under the lock, or needs a [token](crate::election::Token) that its
//!   receiver checks.
//! - **A virtual machine that its host pauses** may have both clocks stand still. `is_lost` is late then.
//!
//! # What it rests on
//!
//! [`idle_session_timeout`], which the holder sets for its own session (PostgreSQL 14), and asks the server within, three
//! times a lease. If the server's own is shorter, the lease is as short as that ([`Held::lease`]). While it is kept, the
//! session has no `statement_timeout`, and no `tcp_user_timeout` or shorter keepalives, which could end it before the
//! lease. All of them are as before when the session goes back to its pool; if that cannot be done, the session is ended.
//!
//! It needs a direct connection, or a pooler in session mode. If messages are seen to reach another server session, the
//! hold is refused ([`Error::MovedSession`]); if that happens later, it is lost.
//!
//! # What it costs
//!
//! A connection, a thread that looks at the connection 50 times a second (which sends nothing), and three questions a
//! lease. With a [`Keeper`], many holds share these: 200 that are idle take one connection and some 1 % of a core
//! (`benches/held.rs`).
//!
//! # From async code
//!
//! Acquire it where blocking is allowed (`tokio::task::spawn_blocking`), keep the [`Held`] in the task, let
//! [`Held::on_loss`] cancel the task's token, and release it where blocking is allowed. `examples/held_async.rs` shows it,
//! and three calls of an API at a time.
//!
//! [`idle_session_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT

mod backend;
pub(crate) mod clock;
mod hold;
mod keeper;
mod lock;
pub(crate) mod office;
pub(crate) mod session;
pub(crate) mod thread;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[doc(hidden)] // `pglock run` counts by them in a transaction
pub use clock::{Clock, Moment, Silence};

pub use backend::{ByBackend, ByConnecting, ByKeeper, HoldBackend};
pub use keeper::Keeper;

use crate::error::Error;
use crate::targets::LockInfo;
use hold::{Desk, Job};

/// How long dropping waits for the server to confirm.
const DROP: Duration = Duration::from_secs(1);

/// A lock, or a slot, that is held for work elsewhere: see the [module](self).
///
/// It is made by [`Lock::hold`](crate::Lock::hold) and [`Semaphore::hold`](crate::Semaphore::hold), and can be shared
/// among threads. Dropping it releases the lock, and waits for up to a second until that is done;
/// [`release`](Held::release) reports what went wrong. One that is forgotten (`std::mem::forget`) is kept for as
/// long as the process lives.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// use pglock::Lock;
///
/// let client = Client::connect(&url, NoTls)?; // the hold owns it
/// let held = Lock::new(client, "doc:held").hold()?;
/// assert!(!held.is_lost());
/// held.release()?;
/// # }
/// # Ok(())
/// # }
/// ```
#[must_use = "a lock that is not kept is released at once"]
pub struct Held {
    desk: Arc<Desk>,
    id: u64,
    lock: LockInfo,
    slot: Option<u32>,
    lease: Duration,
    /// Before that it is not let go.
    until: Option<Instant>,
    ended: bool,
}

impl Held {
    /// Whether the lock is lost, or may be: by this machine's clocks, and by the connection. It asks nobody. Once
    /// it is, it stays so.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.desk.has_lapsed()
    }

    /// How long the lock is still held, by this machine's clocks, if the server says nothing more. An answer to
    /// a question puts it off: it is more than half of the lease while the server answers at once, and zero when the lock
    /// is lost. Like [`is_lost`](Held::is_lost), it asks nobody.
    ///
    /// It is for work that takes a while to stop: a holder whose work needs three seconds to end begins with less
    /// than four left. Soon after this process was itself stopped, as with a laptop's lid closed or by a
    /// debugger, it can be less for no other reason: the server is asked at once, and its answer comes within a
    /// moment.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.desk.left()
    }

    /// Sleeps for that long, or until the lock is lost, and returns whether it is.
    #[must_use = "the work must stop when the lock is lost"]
    pub fn wait(&self, time: Duration) -> bool {
        self.desk.wait_for_end(time)
    }

    /// Has that called once if the lock is lost before it is released, with the reason; at once if it is lost already.
    ///
    /// It is called from a thread for the losses of one connection, so it should be short: cancel a token, send
    /// to a channel, kill a child. A panic of it goes no further.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// # let url = std::env::var("DATABASE_URL")?;
    /// use pglock::{Lock, StopToken};
    ///
    /// let held = Lock::new(move || Client::connect(&url, NoTls), "doc:on-loss").hold()?;
    /// let token = StopToken::new();
    /// let stop = token.clone();
    /// held.on_loss(move |_| stop.stop());
    /// assert!(!token.is_stopped());
    /// held.release()?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_loss(&self, callback: impl FnOnce(&Error) + Send + 'static) {
        self.desk.on_loss(self.id, self.lock.clone(), callback);
    }

    /// Which lock this is: its target and its mode.
    #[must_use]
    pub fn lock_info(&self) -> &LockInfo {
        &self.lock
    }

    /// The slot, if it is a semaphore's: see [`Permit::slot`](crate::Permit::slot).
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// The lease: what was asked for, or the server's `idle_session_timeout` where that is shorter.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Releases the lock, and reports what went wrong. If it is to be kept [for
    /// longer](crate::Lock::at_least), it returns at once, and the lock is released then.
    ///
    /// # Errors
    ///
    /// [`Error::LockLost`]: it was lost before, or the server did not confirm the release within a lease. In
    /// both cases the lock is free after a lease at the latest. (Behind a pooler in transaction mode it may stay on
    /// a server session that others keep busy: see `docs/operations.md`.)
    pub fn release(mut self) -> Result<(), Error> {
        self.end(self.lease)
    }

    /// Waits until [`at_least`](crate::Lock::at_least) is over, or the lock is lost, and releases it: for a process
    /// that ends after its work, as a job of cron's does.
    ///
    /// # Errors
    ///
    /// Those of [`release`](Held::release).
    pub fn release_when_due(self) -> Result<(), Error> {
        let left = self.until.map_or(Duration::MAX, |until| {
            until.saturating_duration_since(Instant::now())
        });
        let _ = self.wait(left);
        self.release()
    }

    fn end(&mut self, patience: Duration) -> Result<(), Error> {
        self.ended = true;
        let now = Instant::now();
        let later = self.until.is_none_or(|until| now < until);
        // Later than any clock can count is never.
        let when = self
            .until
            .unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        if later && self.desk.submit(when, Job::Release(self.id, None)) {
            self.desk.forget(self.id); // nobody works under it any more
            return Ok(());
        }
        let (told, released) = mpsc::channel();
        let mut why = "the lock was let go";
        if self.desk.submit(now, Job::Release(self.id, Some(told))) {
            match released.recv_timeout(patience) {
                Ok(released) => return released,
                Err(mpsc::RecvTimeoutError::Disconnected) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    why = "the server did not confirm the release";
                }
            }
        }
        Err(hold::lost(&self.lock, &self.desk, why))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end(DROP);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("lock", &self.lock)
            .field("lease", &self.lease)
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}
