//! Acquiring a lock: in which scope, and for what.

use std::cell::Cell;

use super::guard::LockGuard;
use super::nesting;
use super::wait::{self, Attempt, Within, explained};
use crate::driver::{
    self, Acquire, Failure, Finish, LockBackend, Opening, QueuePlace, Refusal, Session,
    SessionHandle, Transacted,
};
use crate::error::Error;
use crate::failure::answer;
use crate::prepared::{self, Sent};
use crate::process;
use crate::request::{Request, Scope};
use crate::sql::{self, Client, Commit, Inside, Named, Statement, Wait, WaitTime};
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
    driver::recall(&mut handle);
    let (scope, hold) = if handle
        .pooled()
        .and_then(|pooled| pooled.place())
        .is_some_and(QueuePlace::takes_over)
    {
        (Scope::Session, waiting.acquired())
    } else {
        let acquired = on_session(&mut *handle, &mut attempt, waiting);
        driver::keep(&mut handle, acquired.is_err());
        acquired?
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
            if let Some(waiting) = waiting {
                waiting.failed(&error);
            }
            return Err(error);
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

/// How a lock is acquired at the beginning of a transaction.
struct Entry<'a> {
    /// Goes in front of all.
    before: &'a str,
    /// Waits quietly, in front of a BEGIN or behind it.
    wait: Option<&'a str>,
    acquire: &'a Statement,
    commit: &'a dyn Fn() -> Commit,
}

/// Begins a transaction with the lock, anew with each slice.
fn in_own_transaction<S: Session, R>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    run: &mut impl FnMut(&mut S::Transaction<'_>) -> (R, Finish),
) -> Result<Transacted<R>, Error> {
    let lock = &attempt.request.lock;
    let name = process::unique_word();
    let named = Some(Named::Transaction(&name));
    let commit = || sql::commit(&name);
    let (mut client, mut brief) = (Client::Own, true);
    let (mut slice, mut blocks) = (None, true);
    let wait = Wait::new(lock);
    loop {
        attempt.go_on()?;
        let time = match slice {
            None => attempt.first_wait(wait::SLICE),
            Some(slice) => {
                match attempt.later_wait(if blocks { slice } else { attempt.long_slice() }) {
                    Some(millis) => WaitTime::Slice(millis),
                    None => WaitTime::No,
                }
            }
        };
        let quiet = match (slice, time) {
            (Some(_), WaitTime::Slice(millis)) if blocks => Some(wait.in_queue(millis)),
            _ => None,
        };
        let label = attempt.label();
        let block = sql::acquire_target(
            lock,
            time,
            named.map(Named::text).as_deref(),
            true,
            S::HAS_SQLSTATE,
        );
        let done = if let Some(block) = block {
            let before = [attempt.first(), &label, &*block].concat();
            targeted(session, before, commit(), run, || {
                let named = named.map(Named::text);
                let text =
                    sql::acquire_target(lock, time, named.as_deref(), false, S::HAS_SQLSTATE);
                [sql::FIRST, &label, &*text.unwrap_or_default()].concat()
            })
        } else {
            let waits = if quiet.is_some() { WaitTime::No } else { time };
            let acquire = |inside| {
                let acquire = sql::acquire_in_transaction(lock, waits, inside, client, named);
                // In front of a BEGIN a refusal is an error, which can be asked about only once.
                match brief && waits != WaitTime::No && inside == Inside::Own {
                    true => acquire.brief(),
                    false => acquire,
                }
            };
            let entry = Entry {
                before: &[attempt.first(), &label].concat(),
                wait: quiet.as_deref(),
                acquire: &acquire(Inside::Own),
                commit: &commit,
            };
            // Quietly: an acquire that does not wait says in a row that the lock is not free.
            let early = !S::HAS_SQLSTATE && waits == WaitTime::No && quiet.is_none();
            match early.then(|| look(session, &acquire(Inside::Message))) {
                Some(Err(failure)) => Err(failure),
                _ => begin_with(session, &entry, acquire(Inside::Message), run),
            }
        };
        let failure = match done {
            Ok(transacted) => return Ok(transacted),
            Err(Failure::Refused(Refusal::Unexplained)) => {
                brief = false;
                continue;
            }
            Err(Failure::Refused(Refusal::Stranger)) => {
                client = Client::Other;
                continue;
            }
            Err(failure) if quiet.is_some() && failure.is_without_blocks() => {
                blocks = false;
                continue;
            }
            Err(failure) => explained(session, lock, time, attempt.waited(), failure),
        };
        let more = match &failure {
            Failure::Refused(Refusal::Busy) => quiet.is_some() && !attempt.is_over(),
            failure => attempt.goes_on(failure, time),
        };
        if !more {
            return Err(attempt.failed(session, Within::OwnTransaction, failure));
        }
        if slice.is_none() {
            attempt.situation = attempt.ask(session).ok().flatten();
        }
        match attempt.slice_in() {
            Ok(length) => slice = Some(length),
            Err(ended) => return Err(attempt.failed(session, Within::OwnTransaction, ended)),
        }
    }
}

/// Asks whether a lock is free, in a message of its own. Between this and the acquire another may get it.
fn look<S: Session>(session: &mut S, acquire: &Statement) -> Result<(), Failure> {
    answer(session.prepared("", acquire))
}

/// One attempt to begin a transaction with a lock.
fn begin_with<S: Session, R>(
    session: &mut S,
    entry: &Entry<'_>,
    in_front: Statement,
    run: &mut impl FnMut(&mut S::Transaction<'_>) -> (R, Finish),
) -> Result<Transacted<R>, Failure> {
    let raising = in_front.raising();
    let sent = Sent::new(session, &raising);
    let front = match entry.wait {
        Some(wait) => [entry.before, wait.trim_end_matches("; ")].concat(),
        None => [entry.before, &sent.text].concat(),
    };
    let opening = Opening::new(front, Some((entry.commit)()));
    let here = prepared::address(session);
    let again = Cell::new(false);
    let done = session.transact(&opening, |transaction| {
        prepared::in_transaction(here, transaction);
        let acquired = match (entry.wait, opening.was_sent()) {
            (None, true) => Ok(()),
            (Some(_), true) => answer(transaction.query(&entry.acquire.text())),
            (wait, false) => {
                let label = entry.before.replace(sql::FIRST, "");
                let before = [sql::FIRST, &label, wait.unwrap_or_default()].concat();
                inside(transaction, &before, entry.acquire, &again)
            }
        };
        entered(transaction, acquired, run)
    });
    let gone = match entry.wait {
        None if opening.was_sent() => sent.is_gone(&done),
        _ => again.get(),
    };
    if gone {
        return begin_with(session, entry, raising, run);
    }
    flattened(done)
}

/// Runs the body, if the transaction has the lock; if it has not, says how it is to end.
fn entered<T, R>(
    transaction: &mut T,
    acquired: Result<(), Failure>,
    run: &mut impl FnMut(&mut T) -> (R, Finish),
) -> (Result<R, Failure>, Finish) {
    match acquired {
        Ok(()) => {
            let (result, finish) = run(transaction);
            (Ok(result), finish)
        }
        Err(failure) if failure.is_in_transaction() => (Err(failure), Finish::Leave),
        Err(failure) => (Err(failure), Finish::Rollback),
    }
}

/// What came of a transaction that may not have had the lock.
fn flattened<R>(
    done: Result<Transacted<Result<R, Failure>>, Failure>,
) -> Result<Transacted<R>, Failure> {
    let Transacted { result, ended } = done?;
    Ok(Transacted {
        result: result?,
        ended,
    })
}

/// Acquires behind the BEGIN. If the session does not have the statement, the transaction must begin anew.
fn inside<S: Session>(
    transaction: &mut S,
    before: &str,
    acquire: &Statement,
    again: &Cell<bool>,
) -> Result<(), Failure> {
    let sent = Sent::new(transaction, acquire);
    let lines = transaction.query(&[before, &sent.text].concat());
    again.set(sent.is_gone(&lines));
    answer(lines)
}

/// One attempt to begin a transaction with a lock on rows or a table.
fn targeted<S: Session, R>(
    session: &mut S,
    in_front: String,
    commit: Commit,
    run: &mut impl FnMut(&mut S::Transaction<'_>) -> (R, Finish),
    behind: impl FnOnce() -> String,
) -> Result<Transacted<R>, Failure> {
    let opening = Opening::new(in_front, Some(commit));
    let here = prepared::address(session);
    let done = session.transact(&opening, |transaction| {
        prepared::in_transaction(here, transaction);
        let acquired = match opening.was_sent() {
            true => Ok(()),
            false => transaction.send(&behind()),
        };
        entered(transaction, acquired, run)
    });
    flattened(done)
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
        if noted
            && let Some(pooled) = handle.pooled()
            && let Some(database) = pooled.database()
        {
            attempt.note = Some(nesting::enter(database, lock, request.timeout)?);
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
        Scope::Session => wait::session::acquire(session, attempt, lock),
        Scope::Transaction => wait::transaction::acquire(session, attempt, lock),
    };
    match acquired {
        Ok(()) => Ok((scope, waiting.acquired())),
        Err(error) => {
            waiting.failed(&error);
            Err(error)
        }
    }
}
