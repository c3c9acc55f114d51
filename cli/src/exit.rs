//! The exit status. The numbers are those of sysexits(3) and of shells.

use std::fmt;
use std::io;

use pglock::Error;

/// `who`, `kill`: nobody holds the lock.
pub(crate) const NOBODY: u8 = 1;
/// `kill`: the user has said no.
pub(crate) const NOTHING_DONE: u8 = 1;
/// `doctor`: not all forms of locks work on this connection.
pub(crate) const UNFIT: u8 = 1;
pub(crate) const USAGE: u8 = 64;
pub(crate) const UNAVAILABLE: u8 = 69;
pub(crate) const OS: u8 = 71;
/// `run`: somebody else holds the lock.
pub(crate) const BUSY: u8 = 75;
/// `run`: the lock was lost while the command ran.
pub(crate) const LOST: u8 = 76;
/// `run`: so it was, and the command could not be ended.
pub(crate) const RUNS_ON: u8 = 77;
pub(crate) const CANNOT_RUN: u8 = 126;
pub(crate) const NOT_FOUND: u8 = 127;
/// The number of the signal is added.
pub(crate) const SIGNAL: u8 = 128;

/// Why pglock ends here, in one line.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: one_line(&message.to_string()),
        }
    }

    pub(crate) fn of(code: u8, error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            code,
            message: chain(error),
        }
    }
}

/// An error with its sources, `a: b: c`, in one line, without repeating what an earlier one has said.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let reason = unmarked(one_line(&source.to_string()));
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        next = source.source();
    }
    text
}

/// Without the word by which the library recognises its own errors; the SQLSTATE behind it stays.
fn unmarked(text: String) -> String {
    let marked = text.strip_prefix("pglock-");
    match marked.and_then(|marked| marked.split_once(':')) {
        Some((word, rest)) if word.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest.to_owned(),
        _ => text,
    }
}

/// Messages of libpq and the server often have more than one.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.join(" ").trim_end().to_owned()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.is_retryable() {
            BUSY
        } else {
            UNAVAILABLE
        };
        Self::of(code, &error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of(OS, &error)
    }
}
