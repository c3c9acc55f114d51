//! PostgreSQL as the lock service of the code that already talks to it.
//!
//! Two workers both see the last free seat, and both sell it. pglock lets one of them in at a time,
//! on the connection that they already have:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(feature = "postgres")] {
//! use pglock::with_lock;
//! use postgres::{Client, NoTls};
//!
//! # let url = std::env::var("DATABASE_URL")?;
//! # let book = |_: &mut Client| anyhow::Ok(());
//! let mut client = Client::connect(&url, NoTls)?;
//! with_lock(&mut client, "doc:seat:12A", |conn| book(conn))?;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # The one rule
//!
//! **A lock covers the whole critical section and never ends before the transaction it was taken
//! in.** Outside a transaction a lock is a session lock, released when the closure or the guard
//! ends. Inside one it is a transaction lock, released by COMMIT or ROLLBACK: releasing it sooner
//! would let others in before they can see what was written.
//!
//! These are [advisory locks]: they keep out whoever asks for the same key, and nobody else. Rows
//! and tables stay open to code that does not ask.
//!
//! # What to use
//!
//! | for | use |
//! | --- | --- |
//! | a critical section | [`with_lock`] |
//! | the same, only if nobody else is at it | [`try_with_lock`] |
//! | BEGIN, lock, work, COMMIT | [`with_transaction_lock`] |
//! | a transaction that is open already | [`transaction_lock`] |
//! | a timeout, shared mode, a conflict handler, several keys, a guard | [`Lock`] |
//! | a key that many threads of one process want | `QueuedPool` (feature `r2d2`) |
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | backends |
//! | --- | --- |
//! | `postgres` | `postgres::Client`, `postgres::Transaction` |
//! | `diesel` | `diesel::PgConnection` |
//! | `r2d2` | `r2d2::Pool` and `r2d2::PooledConnection` of any of these, and `QueuedPool` in front of a pool |
//!
//! [advisory locks]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS

mod acquire;
mod backends;
mod error;
mod guard;
mod key;
mod lock;
#[cfg(feature = "r2d2")]
mod queued;
mod request;
mod sql;
mod with;

pub use backends::{
    Answer, Answers, End, Failure, LockBackend, Session, SessionHandle, Standing,
    TransactionBackend,
};
pub use error::{BoxError, Error};
pub use guard::LockGuard;
pub use key::Key;
pub use lock::Lock;
#[cfg(feature = "r2d2")]
pub use queued::{QueuedConnection, QueuedPool};
pub use request::{LockInfo, Mode, Scope};
pub use with::{
    transaction_lock, try_transaction_lock, try_with_lock, try_with_transaction_lock, with_lock,
    with_transaction_lock,
};

/// The README's examples, compiled.
#[cfg(all(doctest, feature = "postgres", feature = "diesel", feature = "r2d2"))]
#[doc = include_str!("../README.md")]
struct Readme;
