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
//! A lock on a key is an [advisory lock]: it keeps out whoever asks for the same key, and nobody
//! else. Rows and tables stay open to code that does not ask; to keep that out too, lock the [`Row`]
//! or the [`Table`] itself.
//!
//! # What to use
//!
//! | for | use |
//! | --- | --- |
//! | a critical section | [`with_lock`] |
//! | the same, as an attribute of a function | `#[pglock::locked]` |
//! | the same, only if nobody else is at it | [`try_with_lock`] |
//! | BEGIN, lock, work, COMMIT | [`with_transaction_lock`] |
//! | a transaction that is open already | [`transaction_lock`] |
//! | a row or a table, against everybody | [`Row`], [`Table`] |
//! | any free row among several | [`FirstFree`] |
//! | no lock, but a save that notices a change by others | [`optimistic`] |
//! | a timeout, shared mode, a conflict handler, several keys, a guard | [`Lock`] |
//! | who holds a lock, who waits, since when | [`inspect`] |
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
//! | feature | what else |
//! | --- | --- |
//! | `macros` | the attribute `#[pglock::locked]`, over a function that is a critical section |
//! | `tracing` | spans `pglock.wait` and `pglock.hold`, with key, mode, scope and outcome |
//! | `metrics` | histograms `pglock_wait_seconds` and `pglock_hold_seconds`, counters `pglock_acquired_total`, `pglock_timed_out_total`, `pglock_deadlock_total` and `pglock_lost_total`, by mode and scope, never by key |
//! | `compat` | `compat::Scheme`: the keys of libraries for Python, Ruby and async Rust |
//!
//! [advisory lock]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS

mod acquire;
mod ask;
mod attempt;
#[cfg(feature = "macros")]
mod attribute;
mod backends;
mod claim;
#[cfg(feature = "compat")]
pub mod compat;
pub mod driver;
mod error;
mod failure;
mod first_free;
mod guard;
pub mod inspect;
mod key;
mod lock;
pub mod optimistic;
mod process;
#[cfg(feature = "r2d2")]
mod queued;
mod request;
mod sql;
mod stop;
mod targets;
mod telemetry;
mod with;

#[cfg(feature = "macros")]
pub use attribute::locked;
pub use driver::LockBackend;
pub use error::Error;
pub use guard::LockGuard;
pub use key::{IntoKey, Key};
pub use lock::Lock;
#[cfg(feature = "r2d2")]
pub use queued::{QueuedConnection, QueuedPool};
pub use request::{LockInfo, Mode, Scope};
pub use stop::StopToken;
pub use targets::{FirstFree, IntoTarget, Row, Table, TableMode, TableName, Target};
pub use with::{
    transaction_lock, try_transaction_lock, try_with_lock, try_with_transaction_lock, with_lock,
    with_transaction_lock,
};

/// The README's examples, compiled.
#[cfg(all(
    doctest,
    feature = "postgres",
    feature = "diesel",
    feature = "r2d2",
    feature = "macros"
))]
#[doc = include_str!("../README.md")]
struct Readme;
