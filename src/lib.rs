//! PostgreSQL as a lock service for the code that already talks to it.
//!
//! Two workers see the last free seat, and both sell it. With pglock only one of them is let in at a
//! time, on the connection that it already has:
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
//! pglock is not on crates.io yet: depend on a clone, as here, or on the repository by `git = "…"`.
//!
//! ```toml
//! [dependencies]
//! pglock = { path = "../pglock", features = ["postgres"] }
//! postgres = "0.19"
//! ```
//!
//! # The one rule
//!
//! **A lock covers the whole critical section and never ends before the transaction it was taken
//! in.** Outside a transaction a lock is a session lock, released when the closure or the guard
//! ends. Inside one it is a transaction lock, released by COMMIT or ROLLBACK. If it were released
//! sooner, others would be let in before they could see what was written.
//!
//! A lock on a key is an [advisory lock]: it keeps out code that asks for the same key, and nothing
//! else. To keep out code that does not ask, lock the [`Row`] or the [`Table`] itself.
//!
//! # What to use
#![doc = ""]
#![doc = include_str!("guide/which.md")]
//!
//! The [`guide`] takes you from the first lock to the night when you are on call.
//!
//! # Errors and their type
//!
//! A body returns `Result<T, E>` for any `E: From<pglock::Error>`: anyhow, a boxed error, your own
//! enum with `#[from]`, [`Error`] itself, or `diesel::result::Error`. `postgres::Error` is not one, as
//! it cannot carry another error: return [`Error`], into which `?` converts it. diesel's error
//! carries pglock's, and `pglock::Error::from` takes it out again.
//!
//! A closure that ends in a bare `Ok(())` does not name its error type. If `?` follows the call,
//! nothing else does either, and the compiler reports E0283, "type annotations needed". Name the type
//! in the closure's last line: `anyhow::Ok(())`, or `Ok::<_, MyError>(())`.
//!
//! # From async code
//!
//! pglock is synchronous, and blocks the thread that it runs on. In async code, run the section in
//! `tokio::task::spawn_blocking`. A `postgres::Client` panics when it is connected, used or dropped
//! inside a runtime, so keep the last clone of its pool outside the runtime too. For a lock that is held while tasks
//! run, see [`held`]: a guard or a permit in a task blocks its thread when it is dropped, as by `?` or a cancelled future.
//!
//! # Features
//!
//! None of them is on by default.
//!
//! | feature | backends |
//! | --- | --- |
//! | `postgres` | [`Client`](https://docs.rs/postgres/latest/postgres/struct.Client.html) and [`Transaction`](https://docs.rs/postgres/latest/postgres/struct.Transaction.html) of [postgres](https://docs.rs/postgres) |
//! | `diesel` | [`PgConnection`](https://docs.rs/diesel/latest/diesel/pg/struct.PgConnection.html) of [diesel](https://docs.rs/diesel) |
//! | `r2d2` | [`Pool`](https://docs.rs/r2d2/latest/r2d2/struct.Pool.html) and [`PooledConnection`](https://docs.rs/r2d2/latest/r2d2/struct.PooledConnection.html) of [r2d2](https://docs.rs/r2d2), of any of these, and [`QueuedPool`](struct.QueuedPool.html) in front of a pool |
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `macros` | the attribute [`#[pglock::locked]`](attr.locked.html), for a function that is a critical section |
//! | `serde` | [`Key`] from a file of settings; [`Key`], [`LockInfo`] and [`Claim`](inspect::Claim) as JSON and the like, by [serde](https://docs.rs/serde) |
//! | `tracing` | spans `pglock.wait` and `pglock.hold` of [tracing](https://docs.rs/tracing), with key, mode, scope and outcome |
//! | `metrics` | for [metrics](https://docs.rs/metrics): histograms `pglock_wait_seconds` and `pglock_hold_seconds`, counters `pglock_acquired_total`, `pglock_timed_out_total`, `pglock_deadlock_total` and `pglock_lost_total`, by mode and scope, never by key |
//! | `compat` | [`compat::Scheme`](compat/enum.Scheme.html): the keys of libraries for Python, Ruby and async Rust |
//!
//! [advisory lock]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS

#![cfg_attr(docsrs, feature(doc_cfg))]

// First, so that their pages begin with `new`: rustdoc shows impls module by module.
mod lock;
mod semaphore;

#[cfg(feature = "macros")]
mod attribute;
mod backends;
mod claim;
#[cfg(feature = "compat")]
pub mod compat;
pub mod driver;
pub mod election;
mod error;
mod escape;
mod failure;
pub mod guide;
pub mod held;
pub mod inspect;
mod key;
mod one_message;
pub mod optimistic;
mod prepared;
mod process;
#[cfg(feature = "r2d2")]
mod queued;
mod request;
mod retry;
mod sql;
mod stop;
mod targets;
mod telemetry;
mod with;

#[cfg(feature = "macros")]
pub use attribute::locked;
pub use driver::LockBackend;
pub use error::Error;
pub use key::{IntoKey, Key};
pub use lock::{Lock, LockGuard};
#[cfg(feature = "r2d2")]
pub use queued::{QueuedConnection, QueuedPool};
pub use request::Scope;
pub use retry::{AnyError, RetryPolicy, Retryable, retry};
pub use semaphore::{Permit, Semaphore};
pub use sql::quote_literal;
pub use stop::StopToken;
pub use targets::{
    FirstFree, FirstFreeRows, IntoTarget, KeyRange, LockInfo, Mode, Row, SessionTarget, Slots,
    Table, TableMode, TableName, Target,
};
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
