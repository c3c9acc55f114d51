//! `Semaphore<B>`: a limit on how many run at a time, over all processes.

use std::fmt;

mod acquire;
mod builder;
mod permit;
mod sections;
mod transactions;

pub(crate) use acquire::permit;
pub use permit::Permit;

use crate::request::Request;
use crate::targets::Slots;

/// Limits how many run at a time, over all processes: calls of an API that allows three, workers
/// that share four licences.
///
/// A semaphore has a number of slots, and whoever acquires one gets a [`Permit`]. It is used as a
/// [`Lock`](crate::Lock) is, on the same connections and pools.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use std::time::Duration;
/// use pglock::{Permit, Semaphore};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # let send = |_: &mut Client| anyhow::Ok(());
/// let mut api = Semaphore::new(&mut client, "doc:mail-api", 3).timeout(Duration::from_secs(2));
/// api.run(|conn| send(conn))?;
///
/// let permit = api.acquire()?;
/// println!("slot {} of 3", Permit::slot(&permit));
/// Permit::release(permit)?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # What it does
///
/// - **Where there is room**, it takes one round trip to acquire a slot and one to release it. A
///   driver without rows (diesel) takes one more if the slot that it tried first is taken. One
///   statement tries the slots one after the other, starting with a random one, so many slots cost
///   more than a few.
/// - **Where there is none**, sessions wait in line, first come, first served, however long. The
///   first in line looks for a free slot every 12 ms, on the server; the others do not look.
///   Nobody who comes later is let in before it, and a single attempt finds no room then.
/// - **The wait is sent in slices**, as [for a lock](crate::Lock::keep_place): between two of them the
///   session has no snapshot. A waiter that hangs holds up the line for some 3 s at most.
/// - **A slot is free** as soon as its session ends, however it ends: even after `kill -9`.
/// - **Each permit takes a slot of its own**, even on one connection: a section inside a section
///   takes two.
/// - **Deadlocks** are found if the holders of all slots wait for locks of this session, or if it
///   holds all slots itself. If two sessions have a permit each, of one semaphore or of two, and
///   wait for another, the server does not find that: set a timeout where a section with a permit
///   acquires another.
/// - **All should agree on the number of slots.** Those who say 5 and those who say 3 share the
///   slots 0, 1 and 2: never more than 5 are let in, and never more than 3 of the latter. Each
///   group waits in a queue of its own, so there is no order between the two.
///
/// # Not in a transaction
///
/// A slot that is released before the COMMIT would let others in too early, and one that is kept until
/// then is kept for longer than its section. So a semaphore is refused in a transaction
/// ([`Error::InTransaction`](crate::Error::InTransaction)): acquire first, then begin, as
/// [`run_in_transaction`](Semaphore::run_in_transaction) does.
///
/// # Why it is no target of a `Lock`
///
/// A [`Lock`](crate::Lock) on a key nests, can be shared, and can be the transaction's. A slot is none of that: each
/// permit takes another one, and says which.
///
/// # What it relies on
///
/// A slot is an advisory lock of the session on a key of its own, and so is the queue ([`Slots`]
/// says which). `pg_try_advisory_xact_lock` takes the first free slot, for this message alone. The
/// message's last statement takes it for the session, and cannot be cancelled once it has. The
/// server frees the slot with the session ([Advisory Locks]). Waiting needs the language PL/pgSQL,
/// which every database has unless somebody has dropped it. A semaphore is limited to one database.
///
/// PostgreSQL grants a lock again to the session that holds it. So if the only slots left are held
/// by permits of this process, the statement looks in `pg_locks` for those of its own session.
///
/// [Advisory Locks]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
#[derive(Clone)]
#[must_use = "a semaphore does nothing until it is run or acquired"]
pub struct Semaphore<B> {
    pub(crate) backend: B,
    pub(crate) slots: Slots,
    pub(crate) request: Request,
}

impl<B> fmt::Debug for Semaphore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
