//! Acquiring a lock: in which scope, and for what.

use crate::attempt::{Attempt, Within};
use crate::driver::{
    Acquire, Entry, Failure, Finish, LockBackend, Opening, QueuePlace, Refusal, Session,
    SessionHandle, Transacted,
};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::nesting;
use crate::process;
use crate::request::{LockInfo, Request, Scope, WaitTime};
use crate::sql;
use crate::stop::StopToken;
use crate::targets::Target;
use crate::telemetry::{Hold, Outcome, Waiting};

/// Acquires the lock on the session that `find` returns, and returns the guard.
pub(crate) fn guard<H: SessionHandle>(
    request: &Request,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<LockGuard<H>, Error> {
    let scope = request.scope.unwrap_or(Scope::Session);
    let (mut handle, mut attempt, waiting) = begin(request, scope, false, find)?;
    let (scope, hold) = if handle.place().is_some_and(QueuePlace::takes_over) {
        (Scope::Session, waiting.acquired())
    } else {
        on_session(&mut *handle, &mut attempt, waiting)?
    };
    Ok(LockGuard::new(handle, request, scope, hold))
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

/// Runs the body in a transaction that holds the lock. The outer error says why it did not run.
///
/// Under the lock, `find` looks up what the body is to work on. If it finds nothing (`None`), the
/// body does not run.
pub(crate) fn transact<B: LockBackend + ?Sized, F, T, E: From<Error>>(
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
    let (note, queue) = (attempt.note.take(), handle.queue());
    let session = &mut *handle;
    let inside = session.in_transaction();
    let (mut waiting, mut hold) = (Some(waiting), Hold::not_yet());
    if inside && let Some(waiting) = waiting.take() {
        (_, hold) = on_session(session, &mut attempt, waiting)?;
    }
    let mut work = Some((find, body));
    let name = process::unique_word();
    let mut once = |session: &mut B::Session, time, label: &str| {
        let opening = Opening {
            entry: Entry::Lock(lock, time),
            name: &name,
            replies: <B::Session as Session>::REPLIES,
            label,
        };
        session.transact(&opening, |transaction| {
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
        })
    };
    let ended = if inside {
        once(session, WaitTime::No, "")
            .map_err(|failure| Error::acquire(lock.clone(), None, failure))
    } else {
        attempt.in_slices(session, Within::OwnTransaction, once)
    };
    let Transacted {
        result: (result, finish),
        ended,
    } = match ended {
        Ok(transacted) => transacted,
        Err(error) => {
            if let Some(waiting) = waiting {
                waiting.failed(&error);
            }
            return Err(error);
        }
    };
    hold.end(match (&ended, finish) {
        _ if inside => Outcome::Kept,
        (Ok(()), Finish::Commit) => Outcome::Released,
        (Ok(()), Finish::Rollback) | (Err(Failure::Sql { .. }), _) => Outcome::RolledBack,
        (Err(Failure::Refused(_) | Failure::Lost(_)), _) => Outcome::Lost,
    });
    Ok(result.and_then(|value| match ended {
        Ok(()) => Ok(value),
        Err(failure) => Err(Error::commit(lock.clone(), failure).into()),
    }))
}

/// Checks the target, starts the clock of the timeout, and finds the session.
pub(crate) fn begin<'r, H: SessionHandle>(
    request: &'r Request,
    scope: Scope,
    one_message: bool,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<(H, Attempt<'r>, Waiting), Error> {
    let lock = &request.lock;
    match lock.target() {
        Target::Keys(keys) if keys.is_empty() => return Err(Error::NoKeys),
        Target::Range(range) if range.numbers().is_empty() => {
            return Err(Error::EmptyRange { lock: lock.clone() });
        }
        Target::Range(range) if range.is_too_long(lock.mode()) => {
            return Err(Error::SharedRangeTooLong { lock: lock.clone() });
        }
        target if target.has_nul() => return Err(Error::NulByte { lock: lock.clone() }),
        _ => {}
    }
    let stop = request.stop.as_ref();
    if stop.is_some_and(StopToken::is_stopped) {
        return Err(Error::Stopped { lock: lock.clone() });
    }
    let waiting = Waiting::start(lock, scope);
    let mut attempt = Attempt::begin(request);
    let found = find(&Acquire {
        lock,
        scope,
        timeout: request.timeout,
        stop,
        one_message,
    });
    // A message holds nothing that its thread could wait for.
    let noted = lock.is_on_keys() && !(one_message && nesting::is_idle());
    let found = found.and_then(|mut handle| {
        if noted && let Some(database) = handle.database() {
            attempt.note = Some(nesting::enter(database, lock, request.patience())?);
        }
        Ok(handle)
    });
    match found {
        Ok(handle) => Ok((handle, attempt, waiting)),
        Err(error) => {
            waiting.failed(&error);
            Err(error)
        }
    }
}

/// Acquires the lock on a session, in the scope that the caller set or that the one rule gives.
fn on_session<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    mut waiting: Waiting,
) -> Result<(Scope, Hold), Error> {
    let request = attempt.request;
    let lock = &request.lock;
    let in_transaction = session.in_transaction();
    let scope = match in_transaction {
        true => Scope::Transaction,
        false => request.scope.unwrap_or(Scope::Session),
    };
    waiting.in_scope(scope);
    let acquired = match scope {
        _ if in_transaction && request.scope == Some(Scope::Session) => {
            Err(Error::InTransaction { lock: lock.clone() })
        }
        Scope::Session => {
            let mut client = sql::Client::Own;
            attempt.in_slices(session, Within::Session, |session, time, label| {
                for_session(session, lock, time, label, &mut client)
            })
        }
        Scope::Transaction => attempt.in_slices(
            session,
            Within::CallersTransaction,
            |session, time, label| {
                let acquire = sql::acquire_in_transaction(lock, time, S::REPLIES);
                session.send(&[label, &acquire].concat())
            },
        ),
    };
    match acquired {
        Ok(()) => Ok((scope, waiting.acquired())),
        Err(error) => {
            waiting.failed(&error);
            Err(error)
        }
    }
}

/// Sends the statements that acquire a lock for the session.
fn for_session<S: Session>(
    session: &mut S,
    lock: &LockInfo,
    time: WaitTime,
    label: &str,
    client: &mut sql::Client,
) -> Result<(), Failure> {
    as_client(client, |client| {
        let acquire = sql::acquire_for_session(lock, time, client, S::REPLIES);
        session.send(&[label, &acquire].concat())
    })
}

/// Sends a message. If the session bears another process's number, sends it once more, in the form
/// that looks at what the session holds.
pub(crate) fn as_client<R>(
    client: &mut sql::Client,
    mut send: impl FnMut(sql::Client) -> Result<R, Failure>,
) -> Result<R, Failure> {
    match send(*client) {
        Err(Failure::Refused(Refusal::Unexplained)) if *client == sql::Client::Own => {
            *client = sql::Client::Other;
            match send(*client) {
                // The refusal came as an error, and has aborted a raw transaction of the caller's.
                Err(failure) if failure.may_be_aborted_transaction() => {
                    Err(Failure::Refused(Refusal::InTransaction))
                }
                done => done,
            }
        }
        done => done,
    }
}
