//! A lock of the caller's transaction.

use super::session::as_client;
use super::{Attempt, Within};
use crate::driver::{Failure, Refusal, Session};
use crate::error::Error;
use crate::failure::answer;
use crate::prepared;
use crate::sql::{
    self, Client, Inside, OUTCOME, RELEASE, SAVEPOINT, Situation, UNDO, Wait, WaitTime,
};
use crate::targets::LockInfo;

/// Acquires a lock for the caller's transaction, which stays usable whatever happens.
pub(crate) fn acquire<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    attempt.go_on()?;
    let time = attempt.first_wait(attempt.long_slice());
    let label = attempt.label();
    let (within, failure) = match once(session, lock, time, &label) {
        Ok(()) => return Ok(()),
        Err(ended) => ended,
    };
    match attempt.goes_on(&failure, time) {
        true => wait(session, attempt, lock),
        false => Err(attempt.failed(session, within, failure)),
    }
}

/// One message, behind a savepoint. Of a failure, it says whether that is still there.
fn once<S: Session>(
    session: &mut S,
    lock: &LockInfo,
    time: WaitTime,
    label: &str,
) -> Result<(), (Within, Failure)> {
    let open = |failure| (Within::CallersSavepoint, failure);
    let released = |failure| match failure {
        Failure::Refused(_) => (Within::CallersTransaction, failure),
        failure => open(failure),
    };
    let behind = |acquire: &str| [SAVEPOINT, label, acquire, "; ", RELEASE].concat();
    if let Some(block) = sql::acquire_target(lock, time, None, false, S::HAS_SQLSTATE) {
        return session.send(&behind(&block)).map_err(open);
    }
    if time == WaitTime::No && lock.keys().len() > 1 {
        return try_all(session, lock, label).map_err(released);
    }
    let acquire = |client| sql::acquire_in_transaction(lock, time, Inside::Callers, client, None);
    if S::HAS_SQLSTATE {
        let sent = as_client(time, acquire, |acquire| {
            let mut undo = "";
            answer(prepared::with(session, acquire, |session, text, _| {
                let undo = std::mem::replace(&mut undo, UNDO);
                session.query(&[undo, &behind(text)].concat())
            }))
        });
        return sent.map_err(released);
    }
    match time {
        // Nothing but a cancel can fail here, and it would abort the transaction of any statement.
        WaitTime::No if session.in_transaction() => {
            let sent = as_client(time, acquire, |acquire| {
                answer(session.prepared("", acquire))
            });
            sent.map_err(|failure| (Within::CallersTransaction, failure))
        }
        _ => {
            let exactly = Wait::new(lock).exactly(time, false);
            let sent = session.send(&behind(&exactly));
            let sent = match sent {
                Err(failure) if failure.is_without_blocks() => {
                    let text = [UNDO, &behind(&acquire(Client::Other).raising().text())].concat();
                    session.send(&text)
                }
                sent => sent,
            };
            sent.map_err(open)
        }
    }
}

/// Several keys at once, all or none, and no error where they are not free.
fn try_all<S: Session>(session: &mut S, lock: &LockInfo, label: &str) -> Result<(), Failure> {
    let wait = Wait::new(lock);
    let text = [SAVEPOINT, label, &wait.try_all(), RELEASE, "; "].concat();
    let lines = session.message(&text, OUTCOME)?;
    let outcome = lines.last().and_then(|line| wait.outcome(line));
    match outcome {
        Some(outcome) if outcome.word == "had" => Ok(()),
        Some(outcome) => Err(Failure::Refused(outcome.refusal())),
        None => Err(Failure::Refused(Refusal::SharedSession)),
    }
}

/// Waits on after the first slice, quietly. A savepoint stands all the while.
fn wait<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    let wait = Wait::new(lock);
    let acquire =
        sql::acquire_in_transaction(lock, WaitTime::No, Inside::Callers, Client::Other, None)
            .text();
    let asked = session.message(&[UNDO, SAVEPOINT].concat(), &Situation::question());
    let ended = match asked {
        Err(failure) => failure,
        Ok(lines) => loop {
            let own = Situation::read(&lines);
            let own = own.map_or(Ok(()), |own| {
                attempt.within(own.lock_timeout, own.statement_timeout)
            });
            if let Err(failure) = own {
                break failure;
            }
            if let Err(stopped) = attempt.go_on() {
                let _ = session.send(UNDO);
                return Err(stopped);
            }
            let Some(millis) = attempt.later_wait(attempt.long_slice()) else {
                break Failure::timeout_over();
            };
            let text = [&attempt.label(), &*wait.in_queue(millis)].concat();
            match answer(session.message(&text, &acquire)) {
                Ok(()) => match session.send(RELEASE) {
                    Ok(()) => return Ok(()),
                    Err(failure) => break failure,
                },
                Err(Failure::Refused(Refusal::Busy)) => {}
                Err(failure) => break failure,
            }
        },
    };
    Err(attempt.failed(session, Within::CallersSavepoint, ended))
}
