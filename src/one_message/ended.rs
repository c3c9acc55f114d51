//! What has become of the section: whether it was committed, and what the text has left behind.

use crate::driver::{Failure, Refusal, Session, insist, until_answered, while_canceled};
use crate::error::Error;
use crate::failure::answer;
use crate::request::Request;
use crate::sql::{self, Message, UNDO};
use crate::targets::LockInfo;

/// Checks, after a message that succeeded, that the text has left no transaction open. It can do so
/// only with certain words.
pub(super) fn settled<S: Session>(
    session: &mut S,
    request: &Request,
    message: &Message<'_>,
) -> Result<(), Error> {
    if message.inside || message.name.is_none() {
        return Ok(());
    }
    let lock = request.lock.clone();
    let idle = sql::idle();
    let source = match until_answered(|| answer(session.prepared("", &idle))) {
        Ok(()) => return Ok(()),
        Err(Failure::Refused(_)) => None,
        Err(failure) if failure.is_aborted_transaction() => failure.into_source(),
        Err(failure) => {
            let _ = insist(|| session.send("ROLLBACK"));
            return Err(unknown(lock, failure));
        }
    };
    let _ = insist(|| session.send("ROLLBACK"));
    Err(Error::TransactionLeftOpen { lock, source })
}

/// What to say where the last question was not answered.
fn unknown(lock: LockInfo, failure: Failure) -> Error {
    match failure {
        Failure::Lost(source) => Error::ConnectionLost {
            lock,
            committing: true,
            source,
        },
        failure => Error::CommitUnknown {
            lock,
            source: failure.into_source().unwrap_or_else(|| "a refusal".into()),
        },
    }
}

/// Asks until there is an answer: a cancel or a timeout that hits the question is none.
fn was_committed<S: Session>(session: &mut S, name: &str) -> Result<bool, Failure> {
    let question = sql::was_committed(name);
    until_answered(|| match session.query(&question)?.first() {
        Some(line) => Ok(line == "true"),
        None => {
            let none = "the server's reply has no row";
            Err(Failure::from_error(None, "", none))
        }
    })
}

/// Cleans up after a message that failed in its text or after it, and returns the error.
pub(super) fn after<S: Session>(session: &mut S, message: &Message<'_>, failure: Failure) -> Error {
    let failure = match failure {
        Failure::Lost(source) if session.is_broken() || session.send("").is_err() => {
            return Error::ConnectionLost {
                lock: message.lock.clone(),
                committing: !message.inside,
                source,
            };
        }
        // The driver did not know what to do with a COPY.
        Failure::Lost(_) if message.copies => Failure::Refused(Refusal::Unfinished),
        Failure::Lost(source) => Failure::from_error(None, "", source),
        failure => failure,
    };
    let left = match message.inside {
        true => while_canceled(|| session.send(UNDO)),
        false => insist(|| session.send("SELECT 1")),
    };
    let undo_failed = message.inside && left.is_err();
    // The text could not have ended the transaction: so it was not open when the savepoint was to be set.
    let none_open = undo_failed && message.name.is_none() && failure.may_be_without_transaction();
    // The server answers once it has released the lock, unless a transaction is aborted: by the
    // text, or one of the caller's before it. In the latter it says no more than that, each time.
    let aborted = match &left {
        Err(_) if message.inside => session.send("SELECT 1").err(),
        Err(_) | Ok(()) => left.err(),
    };
    let before = aborted
        .as_ref()
        .is_some_and(|left| failure.says_the_same(left));
    if before || none_open {
        let lock = message.lock.clone();
        return Error::acquire(lock, None, failure.without_transaction(true));
    }
    let left_aborted = aborted
        .as_ref()
        .is_some_and(Failure::may_be_aborted_transaction);
    if left_aborted && !message.inside && message.name.is_none() {
        // The text has opened none, so the caller has, with a raw BEGIN: it is not ours to roll
        // back.
        let lock = message.lock.clone();
        return Error::InTransaction { lock };
    }
    if !message.inside && (message.copies || aborted.is_some()) {
        let _ = insist(|| session.send("ROLLBACK"));
    }
    let lock = message.lock.clone();
    let ended = match message.name {
        _ if matches!(failure, Failure::Refused(Refusal::NotHeld)) => Ok(true),
        None => Ok(false),
        Some(_) if message.inside => Ok(undo_failed && aborted.is_none()),
        Some(name) => was_committed(session, name),
    };
    match ended {
        Ok(false) if matches!(failure, Failure::Refused(_)) => Error::ClientCopy { lock },
        Ok(false) => failure.into(),
        // The text has ended the transaction: what came before that is as the text says.
        Ok(true) => Error::LockLost {
            lock,
            source: failure.into_source(),
        },
        Err(unanswered) => unknown(lock, unanswered),
    }
}
