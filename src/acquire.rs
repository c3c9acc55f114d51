//! How a lock is had: in which scope, and what is cleaned up when it is not.

use std::time::{Duration, Instant};

use crate::answer::{Answers, Failure};
use crate::backends::{End, LockBackend, Session, SessionHandle, insist};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::inspect;
use crate::request::{Request, Scope};
use crate::session;
use crate::sql;
use crate::target::Target;
use crate::telemetry::{Hold, Outcome, Wait};

/// Checks out a session and takes the lock on it.
pub(crate) fn guard<'b, B: LockBackend>(
    backend: &'b mut B,
    request: &Request,
) -> Result<LockGuard<B::Handle<'b>>, Error> {
    let scope = request.scope.unwrap_or(Scope::Session);
    let (mut handle, wait, spent) = checkout(backend, request, scope)?;
    let (scope, hold) = if handle.take_over() {
        (Scope::Session, wait.acquired())
    } else {
        acquire(&mut *handle, &request.after(spent), wait)?
    };
    Ok(LockGuard::new(handle, request.lock.clone(), scope, hold))
}

/// Takes the lock for the caller's transaction, which alone ends it.
pub(crate) fn for_transaction<B: LockBackend + ?Sized>(
    backend: &mut B,
    request: &Request,
) -> Result<(), Error> {
    let request = Request {
        scope: Some(Scope::Transaction),
        ..request.clone()
    };
    let (mut handle, wait, spent) = checkout(backend, &request, Scope::Transaction)?;
    let (_, mut hold) = acquire(&mut *handle, &request.after(spent), wait)?;
    hold.end(Outcome::Kept);
    Ok(())
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
    let value = LockGuard::run(&mut guard, body)?;
    LockGuard::release(guard)?;
    Ok(value)
}

/// Runs the body in a transaction that holds the lock. The outer error says why it did not run.
pub(crate) fn transact<B: LockBackend + ?Sized, T, E: From<Error>>(
    backend: &mut B,
    request: &Request,
    body: impl FnOnce(&mut <B::Session as Session>::Transaction<'_>) -> Result<T, E>,
) -> Result<Result<T, E>, Error> {
    let lock = &request.lock;
    if request.scope == Some(Scope::Session) {
        return Err(Error::WrongScope { lock: lock.clone() });
    }
    let (mut handle, waiting, spent) = checkout(backend, request, Scope::Transaction)?;
    let request = &request.after(spent);
    let session = &mut *handle;
    let answers = <B::Session as Session>::ANSWERS;
    let inside = session.in_transaction();
    let (mut wait, mut hold) = (None, Hold::not_yet());
    let at_begin = if inside {
        (_, hold) = acquire(session, request, waiting)?;
        String::new()
    } else {
        wait = Some(waiting);
        sql::acquire_at_begin(lock, request.wait(), answers)
    };
    let ended = session.transact(&at_begin, &sql::commit(answers), |transaction| {
        if let Some(wait) = wait.take() {
            hold = wait.acquired();
        }
        let result = hold.inside().run(|| body(transaction));
        let end = if result.is_ok() || !request.rollback_on_error {
            End::Commit
        } else {
            End::Rollback
        };
        ((result, end), end)
    });
    let ((result, end), committed) = match ended {
        Ok(ended) => ended,
        Err(failure) => return Err(not_begun(session, request, failure, wait)),
    };
    hold.end(match (&committed, end) {
        _ if inside => Outcome::Kept,
        (Ok(()), End::Commit) => Outcome::Released,
        (Ok(()), End::Rollback) | (Err(Failure::Sql { .. }), _) => Outcome::RolledBack,
        (Err(Failure::Refused(_) | Failure::Lost(_)), _) => Outcome::Lost,
    });
    Ok(result.and_then(|value| match committed {
        Ok(()) => Ok(value),
        Err(failure) => Err(Error::commit(lock.clone(), failure).into()),
    }))
}

/// Why a transaction of pglock's own did not begin, or did not get its lock.
fn not_begun<S: Session>(
    session: &mut S,
    request: &Request,
    failure: Failure,
    wait: Option<Wait>,
) -> Error {
    let mut culprits = None;
    if failure.is_timeout() && request.names_holders(false) {
        culprits = inspect::culprits(session, &request.lock);
    }
    let error = Error::acquire(request.lock.clone(), request.timeout, failure).held_by(culprits);
    if let Some(wait) = wait {
        wait.failed(&error);
    }
    error
}

/// Finds a session, and says how long that took.
fn checkout<'b, B: LockBackend + ?Sized>(
    backend: &'b mut B,
    request: &Request,
    scope: Scope,
) -> Result<(B::Handle<'b>, Wait, Duration), Error> {
    match request.lock.target() {
        Target::Keys(keys) if keys.is_empty() => return Err(Error::NoKeys),
        target if target.has_nul() => {
            let lock = request.lock.clone();
            return Err(Error::NulByte { lock });
        }
        _ => {}
    }
    let wait = Wait::start(&request.lock, scope);
    let start = Instant::now();
    match backend.session_for(&request.lock, scope, request.timeout) {
        Ok(handle) => Ok((handle, wait, start.elapsed())),
        Err(error) => {
            wait.failed(&error);
            Err(error)
        }
    }
}

/// Takes the lock on a session, in the scope that the one rule gives or that was insisted on.
fn acquire<S: Session>(
    session: &mut S,
    request: &Request,
    mut wait: Wait,
) -> Result<(Scope, Hold), Error> {
    let lock = &request.lock;
    let in_transaction = session.in_transaction();
    let scope = match in_transaction {
        true => Scope::Transaction,
        false => request.scope.unwrap_or(Scope::Session),
    };
    wait.in_scope(scope);
    let taken = match scope {
        _ if in_transaction && request.scope == Some(Scope::Session) => {
            Err(Error::InTransaction { lock: lock.clone() })
        }
        Scope::Session => session_lock(session, request),
        Scope::Transaction => transaction_lock(session, request),
    };
    match taken {
        Ok(()) => Ok((scope, wait.acquired())),
        Err(error) => {
            wait.failed(&error);
            Err(error)
        }
    }
}

fn session_lock<S: Session>(session: &mut S, request: &Request) -> Result<(), Error> {
    let lock = &request.lock;
    let Err(mut failure) = session::lock(session, lock, request.wait()) else {
        return Ok(());
    };
    let mut culprits = None;
    // A driver may return before the server has let go of what the message had; either question
    // waits for that. And an interrupt can hit after the grant.
    if failure.is_timeout() && request.names_holders(true) {
        culprits = inspect::culprits(session, lock);
    }
    let held = match (&culprits, &failure) {
        (Some(culprits), _) => culprits.held,
        (None, Failure::Sql { .. }) => {
            let question = sql::held(lock, S::ANSWERS);
            let held = insist(|| session.send(&question)); // a cancel can hit the question, too
            if matches!(held, Err(Failure::Sql { .. })) {
                // Nothing can be asked in a raw transaction that was aborted, nor was it taken there.
                failure = failure.without_transaction(true);
            }
            held.map_or_else(|unknown| unknown.is_canceled(), |()| true)
        }
        (None, _) => false,
    };
    if held {
        session.end();
    }
    let error = Error::acquire(lock.clone(), request.timeout, failure);
    Err(error.held_by(culprits))
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
    let mut culprits = None;
    if !matches!(failure, Failure::Lost(_)) {
        let free = S::ANSWERS == Answers::Rows;
        let undone;
        if failure.is_timeout() && request.names_holders(free) {
            (undone, culprits) = inspect::undo_and_culprits(session, lock);
        } else {
            undone = session.send(sql::UNDO);
        }
        if undone.is_err() {
            // There was no savepoint to go back to: the transaction was aborted before, or there is
            // none.
            failure = failure.without_transaction(session.in_transaction());
        }
    }
    Err(Error::acquire(lock.clone(), request.timeout, failure).held_by(culprits))
}
