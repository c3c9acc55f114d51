//! Transactions that can commit only within a term.

use super::term::Term;
use crate::driver::{Failure, Finish, LockBackend, Opening, Refusal, Session, Transacted};
use crate::error::Error;
use crate::failure::answer;
use crate::lock::own_transaction::within;
use crate::process;
use crate::sql::election::Fence;
use crate::sql::{self, FIRST, RELEASE, SAVEPOINT, UNDO};

impl Term {
    /// Runs the body in a transaction, on any connection and through any pooler, that can commit
    /// only within this term: not once a successor's term has begun.
    ///
    /// The transaction holds, in shared mode, a lock that a successor takes exclusively before its
    /// term, and checks that the leader's session still holds the term's own lock. Inside a
    /// transaction of the caller's the body runs behind a savepoint, and the caller's whole
    /// transaction is fenced from here on.
    ///
    /// A transaction that is idle for longer than the lease is ended by the server
    /// ([`idle_in_transaction_session_timeout`], set for it alone), so that a lost host does not keep
    /// its successor out.
    ///
    /// In a transaction of the caller's, that transaction must be READ COMMITTED: else it could read what it
    /// saw before the term began. Behind a savepoint of the caller's the fence lasts as long as the savepoint: a
    /// rollback to it lets the fence go, and what the transaction does then is not fenced. So call this once more
    /// after it, or outside the savepoint.
    ///
    /// The connection must lead to the election's database; in any other, the term seems to be
    /// over.
    ///
    /// # Errors
    ///
    /// [`Error::TermOver`]: the term was over, at the beginning or before the COMMIT, and nothing
    /// was done. [`Error::NotCommitted`] and [`Error::ConnectionLost`] as in
    /// [`with_transaction_lock`](crate::with_transaction_lock). [`Error::StaleSnapshot`]: the caller's transaction
    /// is REPEATABLE READ or SERIALIZABLE. The body's own error is returned as
    /// it is; its work is rolled back.
    ///
    /// [`idle_in_transaction_session_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT
    pub fn fenced<B: LockBackend + ?Sized, T, E: From<Error>>(
        &self,
        backend: &mut B,
        body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.candidate.office.has_lapsed() {
            return Err(self.over().into());
        }
        let no_connection = |source| self.candidate.no_connection(source);
        let mut handle = backend.session().map_err(no_connection)?;
        self.fence(&mut *handle, body)?
    }

    fn fence<S: Session, T, E: From<Error>>(
        &self,
        session: &mut S,
        body: impl FnOnce(&mut S::Transaction<'_>) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error> {
        let keys = &self.candidate.election.keys;
        let fence = Fence {
            lock: keys.fence.clone(),
            term: keys.term(self.elected.number),
            idle: self.lease(),
        };
        let inside = session.in_transaction();
        if inside {
            let fenced = fence.in_transaction().raising().text();
            let sent = session.send(&[SAVEPOINT, &fenced, "; ", RELEASE].concat());
            if let Err(failure) = sent {
                let _ = session.send(UNDO);
                return Err(self.refused(failure));
            }
        }
        let name = process::unique_word();
        let front = fence.at_begin(&name, true).raising().text();
        let opening = Opening::new(front, Some(sql::commit(&name)));
        let behind = |transaction: &mut S::Transaction<'_>| {
            if inside || opening.was_sent() {
                return Ok(());
            }
            let begun = fence.at_begin(&name, false).text();
            answer(transaction.query(&[FIRST, &begun].concat()))
        };
        let transacted = within(session, &opening, behind, |transaction| {
            let result = body(transaction);
            let lapsed = self.candidate.office.has_lapsed();
            let finish = match result.is_ok() && !lapsed {
                true => Finish::Commit,
                false => Finish::Rollback,
            };
            ((result, lapsed), finish)
        });
        let Transacted {
            result: (result, lapsed),
            ended,
        } = transacted.map_err(|failure| self.refused(failure))?;
        Ok(match (result, ended) {
            (Ok(_), _) if lapsed => Err(self.over().into()),
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(failure)) => Err(Error::commit(self.lock_info().clone(), failure).into()),
            (Err(error), _) => Err(error),
        })
    }

    fn refused(&self, failure: Failure) -> Error {
        match failure {
            Failure::Refused(Refusal::NotHeld) => self.over(),
            failure => Error::acquire(self.lock_info().clone(), None, failure),
        }
    }

    fn over(&self) -> Error {
        Error::TermOver {
            lock: self.lock_info().clone(),
        }
    }
}
