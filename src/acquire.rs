//! How a lock is had: in which scope, and what is cleaned up when it is not.

use crate::backends::{Answers, End, Failure, LockBackend, Session};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::inspect;
use crate::request::{Request, Scope};
use crate::sql;

/// Checks out a session and takes the lock on it.
pub(crate) fn guard<'b, B: LockBackend>(
    backend: &'b mut B,
    request: &Request,
) -> Result<LockGuard<B::Handle<'b>>, Error> {
    let mut handle = checkout(backend, request)?;
    let scope = acquire(&mut *handle, request)?;
    Ok(LockGuard::new(handle, request.lock.clone(), scope))
}

/// Runs the body under a held lock. Its own error is never masked by the release's.
pub(crate) fn under<H, T, E>(
    mut guard: LockGuard<H>,
    body: impl FnOnce(&mut H::Target) -> Result<T, E>,
) -> Result<T, E>
where
    H: std::ops::DerefMut<Target: Session>,
    E: From<Error>,
{
    let value = body(&mut guard)?;
    LockGuard::release(guard)?;
    Ok(value)
}

/// Runs the body in a transaction that holds the lock. The outer error says why it did not run.
pub(crate) fn transact<B: LockBackend, T, E: From<Error>>(
    backend: &mut B,
    request: &Request,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
) -> Result<Result<T, E>, Error> {
    let lock = &request.lock;
    let mut handle = checkout(backend, request)?;
    let session = &mut *handle;
    let answers = <B::Session as Session>::ANSWERS;
    if request.scope == Some(Scope::Session) {
        return Err(Error::WrongScope { lock: lock.clone() });
    }
    let at_begin = if session.in_transaction() {
        acquire(session, request)?;
        String::new()
    } else {
        sql::acquire_at_begin(lock, request.wait(), answers)
    };
    let ended = session.transact(&at_begin, &sql::commit(answers), |transaction| {
        let result = body(transaction);
        let end = if result.is_ok() || !request.rollback_on_error {
            End::Commit
        } else {
            End::Rollback
        };
        (result, end)
    });
    let (result, committed) = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            let ask = failure.is_timeout() && request.name_holders == Some(true);
            let holders = if ask {
                inspect::culprits(session, lock)
            } else {
                Vec::new()
            };
            return Err(Error::acquire(lock.clone(), request.timeout, failure).held_by(holders));
        }
    };
    Ok(result.and_then(|value| match committed {
        Ok(()) => Ok(value),
        Err(failure) => Err(Error::commit(lock.clone(), failure).into()),
    }))
}

fn checkout<'b, B: LockBackend>(
    backend: &'b mut B,
    request: &Request,
) -> Result<B::Handle<'b>, Error> {
    if request.lock.keys().is_empty() {
        return Err(Error::NoKeys);
    }
    backend.session().map_err(|source| Error::Checkout {
        lock: request.lock.clone(),
        source,
    })
}

/// Takes the lock on a session, in the scope that the one rule gives or that was insisted on.
fn acquire<S: Session>(session: &mut S, request: &Request) -> Result<Scope, Error> {
    let lock = &request.lock;
    let in_transaction = session.in_transaction();
    let scope = match (request.scope, in_transaction) {
        (None | Some(Scope::Session), false) => Scope::Session,
        (None, true) | (Some(Scope::Transaction), _) => Scope::Transaction,
        (Some(Scope::Session), true) => return Err(Error::InTransaction { lock: lock.clone() }),
    };
    match scope {
        Scope::Session => session_lock(session, request),
        Scope::Transaction => transaction_lock(session, request),
    }?;
    Ok(scope)
}

fn session_lock<S: Session>(session: &mut S, request: &Request) -> Result<(), Error> {
    let lock = &request.lock;
    let Err(failure) = session.send(&sql::acquire(lock, request.wait(), S::ANSWERS)) else {
        return Ok(());
    };
    let mut holders = Vec::new();
    // A driver may return before the server has let go of what the message had; either question
    // waits for that. And a cancel, unlike a timeout, can hit after the grant.
    if failure.is_timeout() && request.name_holders != Some(false) {
        holders = inspect::culprits(session, lock);
    } else if matches!(failure, Failure::Sql { .. }) {
        let held = session.send(&sql::held(lock, S::ANSWERS));
        let certainly_not_taken = failure.is_timeout_or_deadlock();
        if !certainly_not_taken && !matches!(held, Err(Failure::Refused(_) | Failure::Lost(_))) {
            session.end();
        }
    }
    Err(Error::acquire(lock.clone(), request.timeout, failure).held_by(holders))
}

fn transaction_lock<S: Session>(session: &mut S, request: &Request) -> Result<(), Error> {
    let lock = &request.lock;
    let taken = session.send(&sql::acquire_in_transaction(
        lock,
        request.wait(),
        S::ANSWERS,
    ));
    let Err(mut failure) = taken else {
        return Ok(());
    };
    let mut holders = Vec::new();
    if !matches!(failure, Failure::Lost(_)) {
        let free = S::ANSWERS == Answers::Rows;
        let undone;
        if failure.is_timeout() && request.name_holders.unwrap_or(free) {
            (undone, holders) = inspect::undo_and_culprits(session, lock);
        } else {
            undone = session.send(sql::UNDO);
        }
        if undone.is_err() {
            // There was no savepoint to go back to: the transaction was aborted before, or there is
            // none.
            failure = failure.without_transaction(session.in_transaction());
        }
    }
    Err(Error::acquire(lock.clone(), request.timeout, failure).held_by(holders))
}
