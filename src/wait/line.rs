//! Waiting in line: see [`crate::sql::Wait`] for what a line is.

use super::{Attempt, SLICE, holders, session};
use crate::driver::{Failure, Refusal, Session, insist};
use crate::error::Error;
use crate::sql::{OUTCOME, PLACE, Wait};
use crate::targets::LockInfo;

/// Waits for a lock of the session's, slice after slice. Several keys are acquired one after the other,
/// and kept.
pub(super) fn wait<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    lock: &LockInfo,
) -> Result<(), Error> {
    let wait = Wait::new(lock);
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
                return session::wait_without_blocks(session, attempt, lock);
            }
            Err(failure) => break failure,
        };
        let outcome = lines.last().and_then(|line| wait.outcome(line));
        match outcome {
            Some(outcome) if outcome.word == "had" => return Ok(()),
            Some(outcome) if outcome.word == "direct" => {
                return session::wait_in_queue(session, attempt, lock);
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
    wait: Option<&Wait>,
    ended: Failure,
) -> Error {
    if matches!(ended, Failure::Lost(_)) {
        return attempt.error(ended, Vec::new());
    }
    let busy = ended.is_timeout() || matches!(ended, Failure::Refused(Refusal::Busy));
    let mut holders = Vec::new();
    let mut left = Err(());
    if busy && attempt.request.names_holders(true) {
        let leave = [attempt.first(), &wait.map(Wait::leave).unwrap_or_default()].concat();
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
fn leave_or_end<S: Session>(session: &mut S, wait: &Wait) {
    match insist(|| session.send(&wait.leave())) {
        Ok(()) | Err(Failure::Lost(_)) => {}
        Err(_) => session.terminate(),
    }
}
