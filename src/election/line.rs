//! The line of an election's candidates: its head, who waits for the key, and how long the silences of all
//! members are.
//!
//! A seam: candidates stand in the server's queue for the head's mutex, a slice at a time.

use std::time::Duration;

use super::keys::Keys;
use crate::driver::{Failure, Session};
use crate::key::Key;
use crate::sql::election as sql;

/// How long one message waits. Less than the server's `deadlock_timeout`, and so short that no waiter's
/// snapshot gets old.
pub(super) const SLICE: Duration = Duration::from_millis(800);

/// What a look at the line shows.
pub(super) struct Seen {
    /// The number of the holder's term.
    pub(super) number: Option<i32>,
    /// The longest and the shortest silence of all members.
    pub(super) silences: [Duration; 2],
}

/// Waits to become the head, or, as the head, for the key. Returns whether the session has it.
pub(super) fn wait<S: Session>(
    session: &mut S,
    key: &Key,
    slice: Duration,
) -> Result<bool, Failure> {
    let lines = session.message(&sql::wait(key, slice), sql::HAD)?;
    Ok(lines.last().is_some_and(|had| had == "true"))
}

/// Reads who holds the key, and what the members bring with them.
pub(super) fn look<S: Session>(session: &mut S, keys: &Keys) -> Result<Seen, Failure> {
    let line = session
        .query(&sql::look(&keys.lock, &keys.member, keys.class))?
        .pop();
    let line = line.unwrap_or_default();
    let mut words = line.split(' ').map(|word| word.parse::<u64>().ok());
    let mut next = || words.next().flatten();
    Ok(Seen {
        number: next().and_then(|number| i32::try_from(number).ok()),
        silences: [(); 2].map(|()| next().map_or(Duration::ZERO, Duration::from_millis)),
    })
}
