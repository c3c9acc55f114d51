//! A lock of the caller's transaction.

use super::{Attempt, Within};
use crate::driver::{Failure, Refusal, Session};
use crate::error::Error;
use crate::failure::answer;
use crate::prepared;
use crate::sql::{
    self, Client, Inside, OUTCOME, RELEASE, SAVEPOINT, Situation, Statement, UNDO, Wait, WaitTime,
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
    let behind = |acquire: &str| [SAVEPOINT, label, acquire, "; ", RELEASE].concat();
    let open = |failure| (Within::CallersSavepoint, failure);
    let released = |failure| match failure {
        Failure::Refused(_) => (Within::CallersTransaction, failure),
        failure => open(failure),
    };
    if let Some(block) = sql::acquire_target(lock, time, None, false, S::HAS_SQLSTATE) {
        return session.send(&behind(&block)).map_err(open);
    }
    let acquire =
        |client| sql::acquire_in_transaction(lock, time, Inside::Transaction, client, None);
    // Without SQLSTATEs: of a try, nothing but a cancel can fail, and it would abort the transaction of any
    // statement.
    let by_statement = match time {
        WaitTime::No => lock.keys().len() == 1 && (S::HAS_SQLSTATE || session.in_transaction()),
        _ => S::HAS_SQLSTATE,
    };
    if by_statement {
        let mut send = |statement: &Statement| {
            let mut undo = "";
            answer(match S::HAS_SQLSTATE {
                true => prepared::with(session, statement, |session, text, _| {
                    let undo = std::mem::replace(&mut undo, UNDO);
                    session.query(&[undo, &behind(text)].concat())
                }),
                false => session.prepared("", statement),
            })
        };
        let first = match time {
            WaitTime::No => acquire(Client::Own),
            _ => acquire(Client::Own).brief(),
        };
        let sent = match send(&first) {
            Err(Failure::Refused(Refusal::Unexplained)) => send(&acquire(Client::Own)),
            sent => sent,
        };
        match sent {
            Err(Failure::Refused(Refusal::Stranger)) => {}
            sent if S::HAS_SQLSTATE => return sent.map_err(released),
            sent => return sent.map_err(|failure| (Within::CallersTransaction, failure)),
        }
    }
    if time == WaitTime::No {
        return try_all(session, lock, label).map_err(released);
    }
    let exactly = Wait::new(lock).exactly(time, false);
    let sent = match session.send(&behind(&exactly)) {
        Err(failure) if failure.is_without_blocks() => {
            let acquire = acquire(Client::Other).raising().text();
            session.send(&[UNDO, &behind(&acquire)].concat())
        }
        sent => sent,
    };
    sent.map_err(open)
}

/// All or none, and no error where they are not free.
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
        sql::acquire_in_transaction(lock, WaitTime::No, Inside::Waited, Client::Other, None).text();
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
