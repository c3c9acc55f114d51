//! Messages that are sent again until they succeed, within reason.

use std::time::Duration;

use crate::failure::Failure;
use crate::sql;

/// How often such a message is sent at most.
const ATTEMPTS: usize = 100;

/// Ends the session behind `send`.
pub(crate) fn end_session(mut send: impl FnMut(&str) -> Result<(), Failure>) {
    for _ in 0..ATTEMPTS {
        if matches!(send(sql::END_SESSION), Err(Failure::Lost(_))) {
            return;
        }
        // The session's own role may not end it.
        let _ = send(sql::LET_SESSION_END);
        std::thread::sleep(Duration::from_millis(5));
        if matches!(send(""), Err(Failure::Lost(_))) {
            return;
        }
    }
}

/// Sends a message once more if it may succeed then.
pub(crate) fn insist<T>(mut send: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    match while_canceled(&mut send) {
        Err(failure) if failure.is_transient() => while_canceled(send),
        done => done,
    }
}

/// Sends a message again for as long as it is cancelled: several cancels can come in a row.
pub(crate) fn while_canceled<T>(
    mut send: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut done = send();
    for _ in 1..ATTEMPTS {
        match &done {
            Err(failure) if failure.is_canceled() => done = send(),
            _ => break,
        }
    }
    done
}

/// Sends a question again until it is answered. In an aborted transaction it never is.
pub(crate) fn until_answered<T>(
    mut send: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut done = send();
    for _ in 1..ATTEMPTS {
        match &done {
            Err(failure) if failure.is_transient() => done = send(),
            _ => break,
        }
    }
    done
}
