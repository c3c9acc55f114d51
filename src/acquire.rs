//! How a lock is had: in which scope, and what is cleaned up when it is not.

use crate::backends::{End, Failure, LockBackend, Session, SessionHandle, Standing};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::request::{Request, Scope};
use crate::sql;

/// Checks out a session and takes the lock on it.
pub(crate) fn guard<'b, B: LockBackend>(
    backend: &'b mut B,
    request: &Request,
) -> Result<LockGuard<B::Handle<'b>>, Error> {
    let scope = request.scope.unwrap_or(Scope::Session);
    let mut handle = checkout(backend, request, scope)?;
    let scope = match handle.standing() {
        Standing::Held => Scope::Session,
        standing => {
            let request = request.after(handle.waited(), standing);
            acquire(&mut *handle, &request)?
        }
    };
    Ok(LockGuard::new(handle, request.lock.clone(), scope))
}

/// Runs the body under a held lock. Its own error is never masked by the release's.
pub(crate) fn under<H, T, E>(
    mut guard: LockGuard<H>,
    body: impl FnOnce(&mut H::Target) -> Result<T, E>,
) -> Result<T, E>
where
    H: SessionHandle,
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
    let mut handle = checkout(backend, request, Scope::Transaction)?;
    let request = &request.after(handle.waited(), Standing::Free);
    let lock = &request.lock;
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
    let (result, committed) =
        ended.map_err(|failure| Error::acquire(lock.clone(), request.timeout, failure))?;
    Ok(result.and_then(|value| match committed {
        Ok(()) => Ok(value),
        Err(failure) => Err(Error::commit(lock.clone(), failure).into()),
    }))
}

fn checkout<'b, B: LockBackend>(
    backend: &'b mut B,
    request: &Request,
    scope: Scope,
) -> Result<B::Handle<'b>, Error> {
    if request.lock.keys().is_empty() {
        return Err(Error::NoKeys);
    }
    backend.session_for(&request.lock, scope, request.timeout)
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
    let taken = match scope {
        Scope::Session => session_lock(session, request),
        Scope::Transaction => transaction_lock(session, request),
    };
    match taken {
        Ok(()) => Ok(scope),
        Err(failure) => Err(Error::acquire(lock.clone(), request.timeout, failure)),
    }
}

fn session_lock<S: Session>(session: &mut S, request: &Request) -> Result<(), Failure> {
    let (lock, wait) = (&request.lock, request.wait());
    let acquire = match request.standing {
        Standing::Overdue => sql::acquire_again(lock, wait, S::ANSWERS),
        Standing::Free | Standing::Held => sql::acquire(lock, wait, S::ANSWERS),
    };
    let taken = session.send(&acquire);
    if let Err(failure @ Failure::Sql { .. }) = &taken {
        // A driver may return before the server has let go of what the message had; this question
        // waits for that. And a cancel, unlike a timeout, can hit after the grant.
        let held = session.send(&sql::held(&request.lock, S::ANSWERS));
        let certainly_not_taken = failure.is_timeout_or_deadlock();
        if !certainly_not_taken && !matches!(held, Err(Failure::Refused(_) | Failure::Lost(_))) {
            session.end();
        }
    }
    taken
}

fn transaction_lock<S: Session>(session: &mut S, request: &Request) -> Result<(), Failure> {
    let taken = session.send(&sql::acquire_in_transaction(
        &request.lock,
        request.wait(),
        S::ANSWERS,
    ));
    match taken {
        Ok(()) | Err(Failure::Lost(_)) => taken,
        Err(failure) => match session.send(sql::UNDO) {
            Ok(()) => Err(failure),
            // There was no savepoint to go back to: the transaction was aborted before, or there is
            // none.
            Err(_) => Err(failure.without_transaction(session.in_transaction())),
        },
    }
}
