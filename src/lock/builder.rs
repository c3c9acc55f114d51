//! What a lock is on, and what is set for it.

use std::marker::PhantomData;
use std::time::Duration;

use super::Lock;
use crate::request::{Request, Scope};
use crate::stop::StopToken;
use crate::targets::{IntoTarget, LockInfo, Mode, SessionTarget, Target};

/// What is locked, and how.
impl<B, T> Lock<B, T> {
    /// A lock on a key, on several at once, on a [`KeyRange`](crate::KeyRange), a [`Row`](crate::Row) or a
    /// [`Table`](crate::Table).
    ///
    /// Several keys are a `Vec`, an array or a slice of what a key is made from. They are acquired in one statement
    /// and in a fixed order, whatever the order here: two such locks cannot deadlock. Duplicates count once.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, key};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let (from, to) = (7, 3);
    /// Lock::new(&mut client, [key!("doc:account:{from}"), key!("doc:account:{to}")]).run(|conn| {
    ///     conn.batch_execute("SELECT 'move the money'")?;
    ///     anyhow::Ok(())
    /// })?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Rows and tables are locked for a transaction and no longer: a lock on one has only the
    /// transaction forms.
    pub fn new(backend: B, target: impl IntoTarget<Target = T>) -> Self
    where
        T: Into<Target>,
    {
        Self {
            backend,
            request: Request::new(target.into_target().into()),
            target: PhantomData,
        }
    }

    /// Bounds the wait for the lock, not the time that it is held. By default only the session's
    /// own [`lock_timeout`] bounds it, which is off unless somebody has set it.
    ///
    /// The server counts in whole milliseconds: fractions are rounded up, and anything above
    /// 2³¹ − 1 ms (24 days) counts as that much. Zero is exactly one attempt, without waiting.
    /// Several keys share one timeout.
    ///
    /// It does not bound the wait for a safe snapshot: in a transaction of the caller's that is
    /// serializable, read only and deferrable, and has not run a query yet. Outside a transaction,
    /// a wait with a timeout never waits for one, even if such transactions are the default.
    ///
    /// With a pool it bounds the wait for a connection too, beside the pool's own timeout; the lock
    /// gets the time that is left. If no connection comes in time, the error is
    /// [`Error::Checkout`](crate::Error::Checkout), not [`Error::Timeout`](crate::Error::Timeout):
    /// nobody has asked whether the lock is free. A single attempt does not wait for a connection
    /// that others use, only for one that the pool is opening.
    ///
    /// [`lock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Lets other shared holders in, and keeps exclusive ones out. Defaults to exclusive.
    pub fn shared(self) -> Self {
        self.mode(Mode::Shared)
    }

    /// Sets the mode. Defaults to [`Mode::Exclusive`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.request.lock = self.request.lock.with_mode(mode);
        self
    }

    /// Sets the scope. By default it is what the one rule says: the session outside a transaction,
    /// the transaction inside one. A scope that does not fit is an error.
    ///
    /// The driver does not see a raw `BEGIN`; [`Scope::Transaction`] takes the lock in it all the
    /// same.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, Scope};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// client.batch_execute("BEGIN")?;
    /// Lock::new(&mut client, "doc:scope").scope(Scope::Transaction).run(|conn| {
    ///     conn.batch_execute("SELECT 'the work'")?;
    ///     Ok::<_, pglock::Error>(())
    /// })?;
    /// client.batch_execute("COMMIT")?; // releases the lock
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope(mut self, scope: Scope) -> Self
    where
        T: SessionTarget,
    {
        self.request.scope = Some(scope);
        self
    }

    /// Sets whether an error of the body rolls the work back, in a transaction that pglock opened.
    /// Defaults to `true`; with `false` the work is committed, and the error is still returned. A
    /// panic always rolls back.
    ///
    /// Inside a transaction of the caller's, this applies to a savepoint around the body.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::Lock;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// # client.batch_execute("CREATE TEMP TABLE attempt (who text)")?;
    /// let refused = Lock::new(&mut client, "doc:rollback-on-error")
    ///     .rollback_on_error(false)
    ///     .run_in_transaction(|tx| {
    ///         tx.execute("INSERT INTO attempt VALUES ('ada')", &[])?;
    ///         Err::<(), _>(anyhow::anyhow!("wrong password"))
    ///     });
    /// assert!(refused.is_err());
    /// assert_eq!(client.query("SELECT FROM attempt", &[])?.len(), 1); // committed
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn rollback_on_error(mut self, rollback: bool) -> Self {
        self.request.rollback_on_error = rollback;
        self
    }

    /// Sets whether [`Error::Timeout`](crate::Error::Timeout) names the sessions that held the
    /// lock. They are asked for when the wait has failed, never before.
    ///
    /// By default it does where that takes no more than one round trip in all: outside a
    /// transaction, and with `postgres` also inside one of the caller's. With `true` it also does
    /// where it takes more (diesel, inside a transaction of the caller's), with `false` nowhere.
    /// `try_run` and its siblings never ask. Neither does a lock on a row or a table, nor a wait
    /// that ends in the queue of a `QueuedPool`.
    pub fn name_holders(mut self, name: bool) -> Self {
        self.request.name_holders = Some(name);
        self
    }

    /// Sets whether the wait keeps its place in the server's queue to the end. Defaults to `false`.
    ///
    /// A wait for a key is sent in slices that are shorter than [`deadlock_timeout`] (1 s by default). Between
    /// two of them the session has no snapshot, so it does not hold up vacuum, nor a `CREATE INDEX CONCURRENTLY`
    /// of the holder. A lock of the session's keeps its place in a line of its own all the while, and needs
    /// nothing here: first come, first served. In transactions there is no such line: those that pglock begins
    /// do so anew with each slice, and have no order beyond the first; in the caller's, slices are of 10 s. With
    /// `true` the wait is one statement in the server's queue: the order is kept, and the session has a snapshot
    /// for as long as it waits.
    ///
    /// Deadlocks are found either way. Waits for rows and tables are never sliced.
    ///
    /// [`deadlock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-DEADLOCK-TIMEOUT
    pub fn keep_place(mut self, keep: bool) -> Self {
        self.request.keep_place = keep;
        self
    }

    /// Ends the wait with [`Error::Stopped`](crate::Error::Stopped) when the token is stopped:
    /// within a slice of less than a second (in a transaction of the caller's, 2.5 s), or at once in the queue of a
    /// `QueuedPool`. A wait that
    /// [keeps its place](Lock::keep_place), or is for a row or a table, heeds it only before it
    /// begins.
    pub fn stop_on(mut self, token: &StopToken) -> Self {
        self.request.stop = Some(token.clone());
        self
    }

    /// Sets whether the statements that acquire the lock and [ask about
    /// it](crate::LockGuard::is_held) carry its name in a comment: escaped, and cut to 128
    /// characters. Then `pg_stat_activity`, the server's log and [`inspect`](crate::inspect) show
    /// it. Defaults to `false`, because names can be private.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, inspect};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let mut other = Client::connect(&url, NoTls)?;
    /// Lock::new(&mut client, "doc:labelled").labelled(true).run(|_| {
    ///     let locks = inspect::locks(&mut other)?;
    ///     let name = Some(r#""doc:labelled""#.to_owned()); // as errors show it
    ///     assert!(locks.iter().any(|claim| claim.label == name));
    ///     Ok::<_, pglock::Error>(())
    /// })?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn labelled(mut self, label: bool) -> Self {
        self.request.labelled = label;
        self
    }

    /// Which lock this is: its target and its mode.
    #[must_use]
    pub fn lock_info(&self) -> &LockInfo {
        &self.request.lock
    }
}
