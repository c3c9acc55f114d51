//! The texts of errors that depend on what they hold.

use std::time::Duration;

use crate::answer::BoxError;
use crate::inspect::claim::Claim;
use crate::request::LockInfo;

/// An error and its sources: the postgres crate says just "db error", and the reason in the source.
pub(crate) fn all_of(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let reason = source.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        next = source.source();
    }
    text
}

pub(super) fn timeout_text(lock: &LockInfo, waited: Option<Duration>, holders: &[Claim]) -> String {
    let held = if holders.is_empty() {
        "another session holds it".to_owned()
    } else {
        let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
        format!("held by {}", names.join(" and "))
    };
    match waited {
        Some(Duration::ZERO) => {
            format!(
                "{lock} is held by another session, and this attempt does not wait; try again later"
            )
        }
        Some(waited) => format!(
            "timed out after {waited:?} waiting for {lock}: {held}; try again, or allow a longer timeout"
        ),
        None => format!(
            "timed out waiting for {lock}, by the session's own lock_timeout: {held}; try again, or set a timeout on the lock"
        ),
    }
}

pub(super) fn connection_lost_text(lock: &LockInfo, committing: bool) -> String {
    if committing {
        format!(
            "the connection was lost at the COMMIT under {lock}: whether the work was committed is not known; look before doing it again"
        )
    } else {
        format!(
            "the connection was lost while acquiring {lock}: nothing is held; reconnect and try again"
        )
    }
}
