//! What a wait sends after its first slice: blocks, in which the end of a slice is no error.
//!
//! The text of a block is the same for every wait, so that `pg_stat_statements` has it once: what it is
//! for stands in a setting that is made in front of it, and what has become of it in another.
//!
//! # The line
//!
//! Who has waited for a slice stands in line, as in ZooKeeper's recipe for locks. It takes a *place*, a
//! session lock on (class of the key, n), with n behind the last, and waits for the place just ahead of
//! its own. Who has nobody ahead waits to be the *head*: with the head's mutex it lets its place go, so that
//! the next waits for the mutex already when the head has the key, and the server hands it on without a gap,
//! in which a newcomer would find no line. The head waits for the key, and lets the mutex go in the statement
//! that has the key. A place counts only if its session is a *member*, that is, holds a lock of 64 bits too:
//! 32 bits collide, and the pairs of a user's are no places.
//!
//! A member whose client is frozen or gone would hold up the line. So a member's session has an
//! `idle_session_timeout` of a few slices; and who has waited two whole slices for one place, and found no
//! head after either, tries the key, which costs order, never safety. After one, the next head may be between
//! two slices.

mod blocks;

use std::fmt::Write as _;

use self::blocks::{EXACTLY, IN_LINE, IN_PLACE, IN_QUEUE, LEAVE, TRY_ALL};
use super::conditions::suffix;
use super::time::WaitTime;
use crate::failure::Refusal;
use crate::key::Key;
use crate::process;
use crate::targets::{LockInfo, Mode};

/// What a wait asks for, slice after slice.
pub(crate) struct Wait {
    token: String,
    keys: String,
    /// The class of each key's places, and its head's mutex.
    lines: Vec<(i32, i64)>,
}

/// How long a member of a line may be silent before the server ends its session.
pub(super) const IDLE_MILLIS: i32 = 2_400;

impl Wait {
    pub(crate) fn new(lock: &LockInfo) -> Self {
        let (mut keys, mut lines) = (String::new(), Vec::new());
        for (key, mode) in lock.keys_and_modes() {
            let (classid, objid, objsubid) = key.pg_locks();
            lines.push((key.class(), key.head()));
            let _ = write!(
                keys,
                " {} {} {} {} {} {classid}.{objid}.{objsubid}",
                arguments(key),
                match mode {
                    Mode::Exclusive => "-",
                    Mode::Shared => suffix(Mode::Shared),
                },
                key.head(),
                key.member(),
                key.class(),
            );
        }
        Self {
            token: process::unique_word(),
            keys,
            lines,
        }
    }

    fn asks(&self, millis: i32, most: i32, state: Option<&str>) -> String {
        let state = match state {
            Some(state) => format!(", pg_catalog.set_config('pglock.line', '{state}', false)"),
            None => String::new(),
        };
        format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{} {millis} {most} {IDLE_MILLIS} {}{}', true){state}; ",
            self.token,
            process::word(),
            self.keys,
        )
    }

    /// The first looks only, and takes nothing: whether the session holds one of the keys, or a pair where
    /// the places would be. So [`leave`](Self::leave) gives back nothing that was held before.
    ///
    /// One slice in the line, of `millis` milliseconds; where the server must look for a deadlock, up to
    /// `most`. [`OUTCOME`] asks what has become of it.
    pub(crate) fn in_line(&self, millis: i32, most: i32, first: bool) -> String {
        let new = format!("{} new 0 0 f 0 f f f 0 0", self.token);
        let asks = self.asks(millis, most, first.then_some(&new));
        [&asks, IN_LINE].concat()
    }

    /// One slice for a member that stands behind another. It is little for the server to read, and most of a
    /// line does nothing else. [`PLACE`] asks what has become of it; whatever is to be done then,
    /// [`in_line`](Self::in_line) does.
    pub(crate) fn in_place(&self, millis: i32, behind: Behind) -> String {
        let (class, head) = self.lines.get(behind.key).copied().unwrap_or_default();
        format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{} {millis} {} {class} {} {head}', true); {IN_PLACE}",
            self.token,
            process::word(),
            behind.place,
        )
    }

    /// Whether the one ahead is still there, and somebody is the head.
    pub(crate) fn stands(&self, line: &str) -> bool {
        line.split_once(' ') == Some((&self.token, "wait"))
    }

    /// Waits at most so long for locks of the transaction, in the server's queue. It takes all of them or
    /// none; an acquire that does not wait tells.
    pub(crate) fn in_queue(&self, millis: i32) -> String {
        [&self.asks(millis, millis, None), IN_QUEUE].concat()
    }

    /// Tries to lock all of several keys for the transaction, or none. [`OUTCOME`] asks what has become of
    /// it.
    pub(crate) fn try_all(&self) -> String {
        [&self.asks(0, 0, None), TRY_ALL].concat()
    }

    /// Acquires locks for the transaction and raises every error itself, with our mark, its SQLSTATE and its
    /// text: for drivers that tell no SQLSTATE, and where an error must be told from those of the
    /// statements behind it. With `idle`, only where the message is its own transaction.
    ///
    /// It costs the server more than the lock.
    pub(crate) fn exactly(&self, time: WaitTime, idle: bool) -> String {
        let kind = match time {
            WaitTime::No => "try",
            WaitTime::InPlace(None) => "place",
            WaitTime::OwnSlice(_) => "own",
            WaitTime::InPlace(Some(_)) | WaitTime::Slice(_) => "wait",
        };
        let millis = time.limit().unwrap_or(0);
        let asks = format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{} {millis} {} {kind} {}{}', true); ",
            self.token,
            u8::from(idle),
            process::word(),
            self.keys,
        );
        [&asks, EXACTLY].concat()
    }

    /// Gives back whatever a wait in line has left in the session, and fails on another session.
    pub(crate) fn leave(&self) -> String {
        [&self.asks(0, 0, None), LEAVE].concat()
    }

    /// Whether an outcome is this wait's.
    pub(crate) fn outcome<'l>(&self, line: &'l str) -> Option<Outcome<'l>> {
        let mut words = line.split(' ');
        let mine = words.next()? == self.token;
        let word = words.next()?;
        let words: Vec<_> = words.collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let is = |at: usize| words.get(at).is_some_and(|word| word.starts_with('t'));
        let mut settings = (7..9).map(|at| number(at).unwrap_or(0));
        // How many keys are had, the place, whether it is the head's, the place ahead, whether the session holds
        // anything else, whether it suspects a deadlock, and whether a slice went by without a head.
        let behind = match (number(0), number(1), number(3)) {
            (Some(key), Some(1..), Some(place @ 1..)) if ![2, 4, 5, 6].into_iter().any(is) => {
                Some(Behind {
                    key: usize::try_from(key).unwrap_or_default(),
                    place,
                })
            }
            _ => None,
        };
        mine.then(|| Outcome {
            word,
            behind,
            lock_timeout: settings.next().unwrap_or(0),
            statement_timeout: settings.next().unwrap_or(0),
        })
    }
}

/// The place that a member waits for, and of which of the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    key: usize,
    place: u64,
}

/// What a slice in line has come to.
pub(crate) struct Outcome<'l> {
    /// `had`, `wait`, `direct` (the session holds one of the keys: it does not stand in line), or why the
    /// lock is refused.
    pub(crate) word: &'l str,
    /// Where nothing is to be done but to wait for the place ahead.
    pub(crate) behind: Option<Behind>,
    /// The session's own, in milliseconds; 0 is none.
    pub(crate) lock_timeout: u64,
    /// The session's own, in milliseconds; 0 is none.
    pub(crate) statement_timeout: u64,
}

impl Outcome<'_> {
    /// Why the lock is refused.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::read(&self.word.replace('_', " ")).unwrap_or(Refusal::SharedSession)
    }
}

/// Asks what has become of a slice in a place.
pub(crate) const PLACE: &str = "SELECT pg_catalog.current_setting('pglock.place') AS line";

/// Asks what has become of a slice in line.
pub(crate) const OUTCOME: &str = "SELECT pg_catalog.current_setting('pglock.line') AS line";

/// Keeps the outcome of a wait in the queue beyond its message.
pub(crate) const KEEP: &str = "SELECT pg_catalog.set_config('pglock.line', pg_catalog.current_setting('pglock.line'), false); ";

/// Arguments of a lock function without a space.
fn arguments(key: &Key) -> String {
    match key.as_pair() {
        Some((first, second)) => format!("({first})::int,({second})::int"),
        None => format!("({})::bigint", key.as_i64().unwrap_or_default()),
    }
}
