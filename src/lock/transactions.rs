//! The ways to run in a transaction under a lock.

use super::Lock;
use super::own_transaction::in_own_transaction;
use super::sections::{begin, free, on_session, or_else};
use crate::driver::{
    self, Failure, Finish, LockBackend, Opening, Session, SessionHandle, Transacted,
};
use crate::error::Error;
use crate::request::{Request, Scope};
use crate::telemetry::{Hold, Outcome};

/// The transaction forms, for every target.
impl<B: LockBackend, L> Lock<B, L> {
    /// BEGIN, lock, body, COMMIT; rolled back on error. The body gets the driver's own transaction
    /// type. Three round trips with `postgres`, two with diesel.
    ///
    /// Inside a transaction of the caller's, the lock is taken for that transaction, and a
    /// savepoint stands in for the transaction. Three round trips with both.
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
    /// # client.batch_execute("CREATE TEMP TABLE seat (name text, buyer text); INSERT INTO seat VALUES ('12A')")?;
    /// let sold = Lock::new(&mut client, "doc:in-transaction")
    ///     .timeout(Duration::from_secs(2))
    ///     .run_in_transaction(|tx| {
    ///         let sql = "UPDATE seat SET buyer = $1 WHERE name = '12A' AND buyer IS NULL";
    ///         anyhow::Ok(tx.execute(sql, &[&"ada"])?)
    ///     })?;
    /// assert_eq!(sold, 1);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Those of [`acquire`](Lock::acquire), and [`Error::WrongScope`] if the scope was set to the
    ///   session. The body did not run.
    /// - Those of the body; the work is rolled back, unless
    ///   [`rollback_on_error`](Lock::rollback_on_error) says otherwise.
    /// - [`Error::NoSuchRow`], [`Error::Changed`] and [`Error::NulByte`], for rows and tables.
    /// - [`Error::NotCommitted`]: the body swallowed an SQL error, or the COMMIT failed.
    /// - [`Error::ConnectionLost`]: the connection broke at the COMMIT.
    /// - [`Error::LockLost`]: the body ended the transaction itself.
    pub fn run_in_transaction<T, E: From<Error>>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        run_inside(&mut self.backend, &self.request, body)?
    }

    /// As [`run_in_transaction`](Lock::run_in_transaction), but only if the lock is free, or
    /// becomes free within the timeout, if one is set. Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`run_in_transaction`](Lock::run_in_transaction), except the timeout.
    pub fn try_run_in_transaction<T, E: From<Error>>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        free(run_inside(
            &mut self.backend,
            &self.request.or_no_wait(),
            body,
        ))?
        .transpose()
    }

    /// As [`run_in_transaction`](Lock::run_in_transaction), with a conflict handler as in
    /// [`run_or_else`](Lock::run_or_else).
    ///
    /// # Errors
    ///
    /// As [`run_in_transaction`](Lock::run_in_transaction), and those of the handler.
    pub fn run_in_transaction_or_else<T, E: From<Error>>(
        &mut self,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
        on_conflict: impl FnOnce(Error) -> Result<T, E>,
    ) -> Result<T, E> {
        let transacted = run_inside(&mut self.backend, &self.request, body);
        or_else(transacted, |result| result, on_conflict)
    }
}

/// Runs the body in a transaction that holds the lock. The outer error says why it did not run.
pub(crate) fn run_inside<B: LockBackend + ?Sized, T, E: From<Error>>(
    backend: &mut B,
    request: &Request,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
) -> Result<Result<T, E>, Error> {
    let nothing = |_: &mut <B::Session as Session>::Transaction<'_>| Ok(Some(()));
    let transacted = transact(backend, request, nothing, |transaction, ()| {
        body(transaction)
    })?;
    Ok(transacted.map(|value| value.expect("something was found")))
}

/// Acquires the lock for the caller's transaction. Only the end of the transaction releases it.
pub(crate) fn for_transaction<B: LockBackend + ?Sized>(
    backend: &mut B,
    request: &Request,
) -> Result<(), Error> {
    let request = Request {
        scope: Some(Scope::Transaction),
        ..request.clone()
    };
    let (mut handle, mut attempt, waiting) =
        begin(&request, Scope::Transaction, false, |acquire| {
            backend.session_for(acquire)
        })?;
    let (_, mut hold) = on_session(&mut *handle, &mut attempt, waiting)?;
    hold.end(Outcome::Kept);
    Ok(())
}

/// Runs the body in a transaction that holds the lock, as [`run_inside`].
///
/// Under the lock, `find` looks up what the body is to work on. If it finds nothing (`None`), the
/// body does not run.
pub(super) fn transact<B: LockBackend + ?Sized, F, T, E: From<Error>>(
    backend: &mut B,
    request: &Request,
    find: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<Option<F>, Error>,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>, F) -> Result<T, E>,
) -> Result<Result<Option<T>, E>, Error> {
    let lock = &request.lock;
    if request.scope == Some(Scope::Session) {
        return Err(Error::WrongScope { lock: lock.clone() });
    }
    let (mut handle, mut attempt, waiting) =
        begin(request, Scope::Transaction, false, |acquire| {
            backend.session_for(acquire)
        })?;
    let (note, queue) = (
        attempt.note.take(),
        handle.pooled().and_then(|pooled| pooled.queue()),
    );
    driver::recall(&mut handle);
    let session = &mut *handle;
    let inside = session.in_transaction();
    let (mut waiting, mut hold) = (Some(waiting), Hold::not_yet());
    if inside && let Some(waiting) = waiting.take() {
        (_, hold) = on_session(session, &mut attempt, waiting)?;
    }
    let mut work = Some((find, body));
    let mut run = |transaction: &mut <B::Session as Session>::Transaction<'_>| {
        let (find, body) = work.take().expect("a driver runs the body once");
        let result = match find(transaction) {
            Ok(Some(found)) => {
                if let Some(note) = &note {
                    note.holds(queue.clone());
                }
                if let Some(waiting) = waiting.take() {
                    hold = waiting.acquired();
                }
                hold.inside().run(|| body(transaction, found)).map(Some)
            }
            Ok(None) => {
                if let Some(waiting) = waiting.take() {
                    waiting.found_nothing();
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        };
        let finish = if result.is_ok() || !request.rollback_on_error {
            Finish::Commit
        } else {
            Finish::Rollback
        };
        ((result, finish), finish)
    };
    let ended = if inside {
        let opening = Opening::new(String::new(), None);
        let done = session.transact(&opening, run);
        done.map_err(|failure| Error::acquire(lock.clone(), None, failure))
    } else {
        in_own_transaction(session, &mut attempt, &mut run)
    };
    driver::keep(&mut handle, true);
    let Transacted {
        result: (result, finish),
        ended,
    } = match ended {
        Ok(transacted) => transacted,
        Err(error) => {
            return Err(match waiting {
                Some(waiting) => waiting.failed(error),
                None => error,
            });
        }
    };
    hold.end(match (&ended, finish) {
        _ if inside => Outcome::Kept,
        (Ok(()), Finish::Commit) => Outcome::Released,
        (Ok(()), Finish::Rollback | Finish::Leave) | (Err(Failure::Sql { .. }), _) => {
            Outcome::RolledBack
        }
        (Err(Failure::Refused(_) | Failure::Lost(_)), _) => Outcome::Lost,
    });
    Ok(result.and_then(|value| match ended {
        Ok(()) => Ok(value),
        Err(failure) => Err(Error::commit(lock.clone(), failure).into()),
    }))
}
