//! A lock of the session's: at once, or in line; see [`crate::sql::Wait`] for what a line is.

use std::time::Instant;

use super::{Attempt, SLICE, Within, explained, holders};
use crate::driver::{Failure, Refusal, Session, insist};
use crate::error::Error;
use crate::failure::answer;
use crate::sql::{self, Client, KEEP, Line, OUTCOME, PLACE, Statement, WaitTime};
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
            return wait_in_line(session, attempt, lock);
        }
        Err(failure) => explained(session, lock, time, start.elapsed(), failure),
    };
    match attempt.goes_on(&failure, time) {
        true => wait_in_line(session, attempt, lock),
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
    let acquire = |client| sql::acquire_for_session(lock, time, client, line);
    as_client(time, acquire, |acquire| {
        answer(session.prepared(before, acquire))
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

/// Waits in line, for a lock of the session's, slice after slice. Several keys are acquired one after the other,
/// and kept.
fn wait_in_line<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    let wait = sql::Wait::new(lock);
    let (mut joined, mut behind) = (false, None);
    let (mut lock_timeout, mut statement_timeout) = (0, 0); // the session's own
    let ended = loop {
        if let Err(failure) = attempt.within(lock_timeout, statement_timeout) {
            break failure;
        }
        if let Err(stopped) = attempt.go_on() {
            if joined {
                leave_or_end(session, &wait);
            }
            return Err(stopped);
        }
        let Some(slice) = attempt.later_wait(SLICE) else {
            break Failure::Refused(Refusal::Busy);
        };
        if let Some(place) = behind {
            let text = attempt.before() + &wait.in_place(slice, place);
            match session.message(&text, PLACE) {
                Ok(lines) => {
                    let stands = lines.last().is_some_and(|line| wait.stands(line));
                    behind = stands.then_some(place);
                    continue;
                }
                Err(failure) => break failure,
            }
        }
        let most = attempt.left().flatten().unwrap_or(i32::MAX);
        let text = attempt.before() + &wait.in_line(slice, most, !joined);
        let lines = match session.message(&text, OUTCOME) {
            Ok(lines) => lines,
            Err(failure) if failure.is_without_blocks() && !joined => {
                return wait_without_blocks(session, attempt, lock);
            }
            Err(failure) => break failure,
        };
        let outcome = lines.last().and_then(|line| wait.outcome(line));
        match outcome {
            Some(outcome) if outcome.word == "had" => return Ok(()),
            Some(outcome) if outcome.word == "direct" => {
                return wait_in_queue(session, attempt, lock);
            }
            Some(outcome) if outcome.word == "wait" => {
                joined = true;
                behind = outcome.behind;
                lock_timeout = outcome.lock_timeout;
                statement_timeout = outcome.statement_timeout;
            }
            Some(outcome) => break Failure::Refused(outcome.refusal()),
            None => break Failure::Refused(Refusal::SharedSession),
        }
    };
    let wait = joined.then_some(&wait);
    Err(give_up(session, attempt, wait, ended))
}

/// Gives back all that the wait has taken, if it has begun to, and says why it ended.
fn give_up<S: Session>(
    session: &mut S,
    attempt: &Attempt<'_>,
    wait: Option<&sql::Wait>,
    ended: Failure,
) -> Error {
    if matches!(ended, Failure::Lost(_)) {
        return attempt.error(ended, Vec::new());
    }
    let busy = ended.is_timeout() || matches!(ended, Failure::Refused(Refusal::Busy));
    let mut holders = Vec::new();
    let mut left = Err(());
    if busy && attempt.request.names_holders(true) {
        let leave = [
            attempt.first(),
            &wait.map(sql::Wait::leave).unwrap_or_default(),
        ]
        .concat();
        let (sent, claims) = holders::after(session, &leave, &attempt.request.lock);
        (left, holders) = (sent.map_err(drop), claims);
    }
    if let (Err(()), Some(wait)) = (left, wait) {
        leave_or_end(session, wait);
    }
    let ended = match ended {
        Failure::Refused(Refusal::Busy) => Failure::timeout_over(),
        ended => ended,
    };
    attempt.error(ended, holders)
}

/// Nothing may stay: where it cannot be given back, the session ends.
fn leave_or_end<S: Session>(session: &mut S, wait: &sql::Wait) {
    match insist(|| session.send(&wait.leave())) {
        Ok(()) | Err(Failure::Lost(_)) => {}
        Err(_) => session.terminate(),
    }
}

/// Waits in the server's queue, as who holds one of the keys already: the server lets it past the waiters,
/// and finds deadlocks.
fn wait_in_queue<S: Session>(
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
    match outcome {
        Some(outcome) if outcome.word == "had" => {}
        Some(outcome) => return Err(Failure::Refused(outcome.refusal())),
        None => return Err(Failure::Refused(Refusal::SharedSession)),
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
fn wait_without_blocks<S: Session>(
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

/// Sends an acquire. One that waits is brief: if it does not say why it is refused, it is sent once more to be
/// told. If the session bears another process's number, it is sent in the form that looks at what the session
/// holds: that says all reasons, and looks only if it must.
pub(crate) fn as_client<R>(
    time: WaitTime,
    acquire: impl Fn(Client) -> Statement,
    mut send: impl FnMut(&Statement) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let own = match time {
        WaitTime::No => acquire(Client::Own),
        _ => acquire(Client::Own).brief(),
    };
    match send(&own) {
        Err(Failure::Refused(Refusal::Unexplained | Refusal::Stranger)) => {
            send(&acquire(Client::Other))
        }
        done => done,
    }
}
