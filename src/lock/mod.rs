//! `Lock<B>`: what to lock, and how.

use std::fmt;
use std::marker::PhantomData;

use crate::key::Key;
use crate::request::Request;

// In this order, rustdoc shows their methods.
mod builder;
mod change;
mod first_free;
pub(crate) mod guard;
pub(crate) mod held_slots;
pub(crate) mod nesting;
pub(crate) mod own_transaction;
pub(crate) mod sections;
pub(crate) mod transactions;
pub(crate) mod wait;

pub use guard::LockGuard;

/// A lock on a key, on several, on a row or on a table, over a connection or a pool.
///
/// By default it is exclusive, waits for as long as it takes, and is a session lock outside a
/// transaction and a transaction lock inside one. All of this can be set. A `Lock` holds nothing by
/// itself: [`run`](Lock::run) and its siblings hold the lock around a closure, and
/// [`acquire`](Lock::acquire) returns a guard; for work that is not on the connection, [`hold`](Lock::hold) has a
/// thread watch the lock. It can be used again and again.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use std::time::Duration;
/// use pglock::Lock;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let answer: i32 = Lock::new(&mut client, "doc:catalogue")
///     .shared()
///     .timeout(Duration::from_secs(2))
///     .run(|conn| anyhow::Ok(conn.query_one("SELECT 42", &[])?.get(0)))?;
/// assert_eq!(answer, 42);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// `Lock::new` takes its backend by value, so that a lock can own its pool. A `&mut` parameter of
/// yours is moved in; write `&mut *conn` to use it again afterwards.
#[must_use = "a lock does nothing until it is run or acquired"]
pub struct Lock<B, T = Key> {
    pub(crate) backend: B,
    pub(crate) request: Request,
    target: PhantomData<fn() -> T>,
}

/// The same lock, over a clone of the backend, such as a pool.
impl<B: Clone, T> Clone for Lock<B, T> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            request: self.request.clone(),
            target: PhantomData,
        }
    }
}

impl<B, T> fmt::Debug for Lock<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
