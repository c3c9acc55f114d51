//! A lock of the session's.

use std::time::Instant;

use super::{Attempt, SLICE, Within, explained, line};
use crate::driver::{Failure, Refusal, Session};
use crate::error::Error;
use crate::failure::answer;
use crate::sql::{self, Client, KEEP, Line, OUTCOME, WaitTime};
use crate::targets::LockInfo;

/// Acquires a lock for the session: at once, in the server's queue for a slice, and then in line.
pub(crate) fn acquire<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    attempt.go_on()?;
    let time = attempt.first_wait(SLICE);
    let line = match attempt.request.keep_place {
        true => Line::Pass,
        false => Line::Respect,
    };
    let before = attempt.before();
    let start = Instant::now();
    let sent = send(session, lock, &before, time, line);
    let failure = match sent {
        Ok(()) => return Ok(()),
        Err(Failure::Refused(Refusal::Line)) if time == WaitTime::No => {
            match try_past_line(session, lock) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            }
        }
        // Busy, where the line has gone before the statement said why.
        Err(Failure::Refused(Refusal::Line | Refusal::Busy)) if time != WaitTime::No => {
            return line::wait(session, attempt, lock);
        }
        Err(failure) => explained(session, lock, time, start.elapsed(), failure),
    };
    match attempt.goes_on(&failure, time) {
        true => line::wait(session, attempt, lock),
        false => Err(attempt.failed(session, Within::Session, failure)),
    }
}

/// Sends an acquire, and once more if the session must be looked at.
fn send<S: Session>(
    session: &mut S,
    lock: &LockInfo,
    before: &str,
    time: WaitTime,
    line: Line,
) -> Result<(), Failure> {
    as_client(|client, brief| {
        let mut acquire = sql::acquire_for_session(lock, time, client, line);
        if brief && time != WaitTime::No {
            acquire = acquire.brief();
        }
        answer(session.prepared(before, &acquire))
    })
}

/// Who holds the key already never stands in line.
fn try_past_line<S: Session>(session: &mut S, lock: &LockInfo) -> Result<(), Failure> {
    let held = session.query(&sql::held_in_any_mode(lock))?;
    match held.first().is_some_and(|held| held == "true") {
        true => send(session, lock, "", WaitTime::No, Line::Pass),
        false => Err(Failure::Refused(Refusal::Busy)),
    }
}

/// Waits in the server's queue, as who holds one of the keys already: the server lets it past the waiters,
/// and finds deadlocks.
pub(super) fn wait_in_queue<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    let wait = sql::Wait::new(lock);
    let failed = loop {
        attempt.go_on()?;
        match one_slice(session, attempt, &wait, lock) {
            Ok(()) => return Ok(()),
            Err(Failure::Refused(Refusal::Busy)) if !attempt.is_over() => {}
            Err(failure) => break failure,
        }
    };
    Err(attempt.failed(session, Within::Session, failed))
}

/// The block waits quietly. Only when it had the lock, which it does not keep, the acquire waits too, for no
/// time: before PostgreSQL 17, the server lets no try past the waiters.
fn one_slice<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    wait: &sql::Wait,
    lock: &LockInfo,
) -> Result<(), Failure> {
    if attempt.situation.is_none() {
        attempt.situation = attempt.ask(session)?;
    }
    let own = attempt.own_limit()?;
    let Some(millis) = attempt.later_wait(attempt.long_slice().min(own)) else {
        return Err(Failure::Refused(Refusal::Busy));
    };
    let queue = [&attempt.before(), &*wait.in_queue(millis), KEEP].concat();
    let lines = session.message(&queue, OUTCOME)?;
    let outcome = lines.last().and_then(|line| wait.outcome(line));
    if outcome.is_none_or(|outcome| outcome.word != "had") {
        return Err(Failure::Refused(Refusal::Busy));
    }
    let (time, start) = (WaitTime::InPlace(Some(1)), Instant::now());
    let sent = send(session, lock, attempt.first(), time, Line::Pass);
    sent.map_err(|failure| {
        let failure = explained(session, lock, time, start.elapsed(), failure);
        match failure.is_timeout() {
            true => Failure::Refused(Refusal::Busy),
            false => failure,
        }
    })
}

/// Waits in the server's queue where no block can be run: in long slices, each of which ends as an error.
pub(super) fn wait_without_blocks<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    attempt.situation = attempt.ask(session).ok().flatten();
    loop {
        attempt.go_on()?;
        let time = match attempt.later_wait(attempt.long_slice()) {
            Some(millis) => WaitTime::Slice(millis),
            None => WaitTime::No,
        };
        let (before, start) = (attempt.before(), Instant::now());
        let failure = match send(session, lock, &before, time, Line::Pass) {
            Ok(()) => return Ok(()),
            Err(failure) => explained(session, lock, time, start.elapsed(), failure),
        };
        let failure = match attempt.slice_in() {
            Ok(_) if attempt.goes_on(&failure, time) => continue,
            Err(over) if failure.is_timeout() => over,
            _ => failure,
        };
        return Err(attempt.failed(session, Within::Session, failure));
    }
}

/// Sends a message with an acquire that may be brief. If it does not say why it is refused, sends it once more
/// to be told. If the session bears another process's number, sends it in the form that looks at what the
/// session holds.
pub(crate) fn as_client<R>(
    mut send: impl FnMut(Client, bool) -> Result<R, Failure>,
) -> Result<R, Failure> {
    match send(Client::Own, true) {
        // The form that looks at the session says all reasons, and looks only if it must.
        Err(Failure::Refused(Refusal::Unexplained | Refusal::Stranger)) => {
            send(Client::Other, false)
        }
        done => done,
    }
}
