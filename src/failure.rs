//! How a message can fail: refusals by the server, and errors.

use std::fmt;

use crate::process;

/// An error of the driver, the pool or the body, as `source`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why the server did not do what a statement asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Another session holds the lock.
    Busy,
    /// This session does not hold the lock: the answer to a release, or to the question whether it
    /// does.
    NotHeld,
    /// A transaction is open, and none may be.
    InTransaction,
    /// The transaction's snapshot would be older than the lock.
    StaleSnapshot,
    /// The server is a standby.
    InRecovery,
    /// There is no row to lock.
    NoSuchRow,
    /// The session bears the number of another process, which holds the key on it.
    SharedSession,
    /// The server is not PostgreSQL, and grants the lock to everybody.
    NotPostgres,
    /// The session bears another number than this process's, and must be looked at.
    Stranger,
    /// Others stand in line for the lock.
    Line,
    /// The statement does not say why: to say it takes the server time, so it is asked again.
    Unexplained,
    /// No refusal: a message whose last statement fails in this way has been executed to its end.
    Done,
    /// Such a message came back without that: it stopped at a COPY from or to the client.
    Unfinished,
}

impl Refusal {
    const WORDS: [(Self, &str); 13] = [
        (Self::Busy, "busy"),
        (Self::NotHeld, "not held"),
        (Self::InTransaction, "in transaction"),
        (Self::StaleSnapshot, "stale snapshot"),
        (Self::InRecovery, "in recovery"),
        (Self::NoSuchRow, "no such row"),
        (Self::SharedSession, "shared session"),
        (Self::NotPostgres, "not postgres"),
        (Self::Stranger, "stranger"),
        (Self::Line, "line"),
        (Self::Unexplained, "unexplained"),
        (Self::Done, "done"),
        (Self::Unfinished, "unfinished"),
    ];

    /// Reads the refusal at the beginning of a text, where there is one.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let word = |(_, word): &&(Self, &str)| text.starts_with(word);
        Self::WORDS.iter().find(word).map(|(refusal, _)| *refusal)
    }
}

/// Whether a statement did its work: then it has no row.
pub(crate) fn answer(reply: Result<Vec<String>, Failure>) -> Result<(), Failure> {
    match reply?.iter().find_map(|line| Refusal::read(line)) {
        Some(refusal) => Err(Failure::Refused(refusal)),
        None => Ok(()),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(refusal, _)| refusal == self);
        f.write_str(word.map_or("", |(_, word)| word))
    }
}

/// Marks pglock's own words in the text of an error. Nobody else can write the mark: it contains a
/// random word of this process.
pub(crate) fn mark() -> String {
    ["pglock-", process::word(), ":"].concat()
}

/// Why a message failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// One of pglock's own statements refused.
    Refused(Refusal),
    /// The server reported an error.
    #[non_exhaustive]
    Sql {
        /// Its SQLSTATE, if the driver or the text gives it.
        sqlstate: Option<String>,
        /// Whether a statement of pglock's own failed, as far as the text shows.
        marked: bool,
        /// The driver's error.
        source: BoxError,
    },
    /// The connection is gone: it does not answer any more.
    Lost(BoxError),
}

impl Failure {
    /// Classifies an error of the server's, for a driver to report. A refusal that came as an error
    /// is recognised by its text, and so is an SQLSTATE in that text.
    ///
    /// It is never [`Lost`](Failure::Lost): an SQLSTATE does not say that, since any statement can fail
    /// with any of them, and a foreign server's error has that of *its* lost connection. What ends a
    /// session has the severity FATAL or PANIC.
    pub fn from_error(sqlstate: Option<&str>, message: &str, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        let mark = mark();
        let marked = message.split_once(&mark).map(|(_, rest)| rest);
        if let Some(refusal) = marked.and_then(Refusal::read) {
            return Self::Refused(refusal);
        }
        let carried = marked.and_then(state_at_start);
        Self::Sql {
            sqlstate: carried.or(sqlstate).map(str::to_owned),
            marked: carried.is_some(),
            source,
        }
    }

    /// The same, with the error's context and its internal query (`PG_DIAG_CONTEXT`,
    /// `PG_DIAG_INTERNAL_QUERY`), if the driver provides them. They show that a statement of
    /// pglock's own failed where the error's text cannot.
    #[must_use]
    pub fn in_context(mut self, context: &str) -> Self {
        if let Self::Sql { marked, .. } = &mut self {
            *marked |= context.contains(&mark());
        }
        self
    }

    /// Whether a statement failed because it must be the first of its transaction: a raw `BEGIN` of
    /// the caller's came before it (SQLSTATE 25001).
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        matches!(self, Self::Refused(Refusal::InTransaction)) || self.has_state(ACTIVE_TRANSACTION)
    }

    /// Whether two messages failed in the same words.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sql { source, .. }, Self::Sql { source: other, .. }) => {
                words(&**source) == words(&**other)
            }
            _ => false,
        }
    }

    pub(crate) fn is_marked(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Sql { marked: true, .. })
    }

    /// Whether the message found no transaction, as far as its SQLSTATE shows.
    pub(crate) fn may_be_without_transaction(&self) -> bool {
        self.has_state(NO_TRANSACTION)
    }

    /// There is no time left to wait.
    pub(crate) fn timeout_over() -> Self {
        Self::timed_out("the timeout of the lock is over")
    }

    /// A timeout that pglock itself has kept.
    pub(crate) fn timed_out(why: &str) -> Self {
        Self::from_error(Some(TIMEOUT), "", why)
    }

    /// A cancel that pglock itself has kept.
    pub(crate) fn canceled(why: &str) -> Self {
        Self::from_error(Some(CANCELED), "", why)
    }

    /// A deadlock that the server cannot see.
    pub(crate) fn deadlock(why: &str) -> Self {
        Self::from_error(Some(DEADLOCK), "", why)
    }

    /// Which other slot is free, where a statement that raises says so.
    #[cfg(feature = "diesel")]
    pub(crate) fn free(&self) -> Option<String> {
        let Self::Sql { source, .. } = self else {
            return None;
        };
        let text = source.to_string();
        let (_, place) = text.split_once(&(mark() + "free "))?;
        let digits = place.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then(|| format!("free {}", &place[..digits]))
    }

    /// Whether it is an error of which nothing is known.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Sql { sqlstate: None, .. })
    }

    pub(crate) fn with_state(self, state: &str) -> Self {
        match self {
            Self::Sql { marked, source, .. } => Self::Sql {
                sqlstate: Some(state.to_owned()),
                marked,
                source,
            },
            failure => failure,
        }
    }

    /// Whether a session does not have the prepared statement of this name.
    pub(crate) fn is_missing(&self, name: &str) -> bool {
        self.is_or_says(&[NO_STATEMENT], name)
    }

    /// Whether a block of PL/pgSQL cannot be run: there is no such language, or not for this user.
    pub(crate) fn is_without_blocks(&self) -> bool {
        self.is_or_says(&["42704", "42501"], "plpgsql")
    }

    /// Whether it has one of the SQLSTATEs; if the driver gives none, whether it says the text.
    fn is_or_says(&self, states: &[&str], text: &str) -> bool {
        match self {
            Self::Sql {
                sqlstate: None,
                source,
                ..
            } => source.to_string().contains(text),
            failure => states.iter().any(|state| failure.has_state(state)),
        }
    }

    fn has_state(&self, state: &str) -> bool {
        matches!(self, Self::Sql { sqlstate, .. } if sqlstate.as_deref() == Some(state))
    }

    pub(crate) fn is_timeout(&self) -> bool {
        self.has_state(TIMEOUT)
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.has_state(CANCELED)
    }

    /// Whether an earlier error is known to have aborted the transaction.
    pub(crate) fn is_aborted_transaction(&self) -> bool {
        self.has_state(IN_FAILED_TRANSACTION)
    }

    /// Whether the message failed, or may have failed if the driver gives no SQLSTATE, because an
    /// earlier error had aborted the transaction.
    pub(crate) fn may_be_aborted_transaction(&self) -> bool {
        matches!(self, Self::Sql { sqlstate, .. }
            if sqlstate.as_deref().is_none_or(|state| state == IN_FAILED_TRANSACTION))
    }

    /// The failure of a message that needs a transaction, and found none or an aborted one. Adds
    /// the SQLSTATE if the driver gives none.
    pub(crate) fn without_transaction(self, in_transaction: bool) -> Self {
        match in_transaction {
            _ if !self.is_unknown() => self,
            true => self.with_state(IN_FAILED_TRANSACTION),
            false => self.with_state(NO_TRANSACTION),
        }
    }

    /// Whether the same message may succeed when it is sent again: not in an aborted transaction.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Sql { .. }) && !self.has_state(IN_FAILED_TRANSACTION)
    }

    pub(crate) fn into_source(self) -> Option<BoxError> {
        match self {
            Self::Refused(_) => None,
            Self::Sql { source, .. } | Self::Lost(source) => Some(source),
        }
    }

    /// The error that it is reported as, where a refusal is one.
    pub(crate) fn into_error(self) -> BoxError {
        match self {
            Self::Refused(refusal) => refusal.to_string().into(),
            Self::Sql { source, .. } | Self::Lost(source) => source,
        }
    }
}

// The SQLSTATEs that pglock tells apart:
// https://www.postgresql.org/docs/current/errcodes-appendix.html
pub(crate) const TIMEOUT: &str = "55P03";
pub(crate) const SERIALIZATION_FAILURE: &str = "40001";
pub(crate) const DEADLOCK: &str = "40P01";
pub(crate) const CANCELED: &str = "57014";
pub(crate) const OUT_OF_MEMORY: &str = "53200";
pub(crate) const ACTIVE_TRANSACTION: &str = "25001";
pub(crate) const NO_STATEMENT: &str = "26000";
pub(crate) const NO_TRANSACTION: &str = "25P01";
pub(crate) const IN_FAILED_TRANSACTION: &str = "25P02";

/// What an error and its causes say: some drivers' own text is the same for all errors of the server.
fn words(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect()
}

/// Reads the SQLSTATE that a `DO` block puts in front of an error's text. Its form is checked,
/// because the text of a syntax error may quote ours.
fn state_at_start(text: &str) -> Option<&str> {
    let (state, _) = text.split_once(' ')?;
    let is_state = state.len() == 5
        && state
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    is_state.then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(sqlstate: Option<&str>, message: &str) -> Failure {
        Failure::from_error(sqlstate, message, "the driver's error")
    }

    #[test]
    fn an_sqlstate_alone_loses_no_connection() {
        let carried = format!("{}08006 could not connect", mark());
        for (state, message) in [
            (Some("08006"), "gone"),
            (Some("57P01"), "gone"),
            (None, &carried),
        ] {
            let failure = failure_of(state, message);
            assert!(matches!(failure, Failure::Sql { .. }), "{failure:?}");
        }
    }

    #[test]
    fn only_the_words_of_this_process_count() {
        let ours = failure_of(None, &format!("invalid input: \"{}busy\"", mark()));
        assert!(matches!(ours, Failure::Refused(Refusal::Busy)), "{ours:?}");
        let carried = failure_of(None, &format!("{}55P03 canceling", mark()));
        assert!(carried.is_timeout() && carried.is_marked(), "{carried:?}");
        let quoted = failure_of(
            None,
            &format!("unterminated at \"$$; '{}', 'busy'\"", mark()),
        );
        assert!(!quoted.is_marked(), "{quoted:?}");
        let inside = failure_of(Some("40P01"), "deadlock").in_context(&mark());
        assert!(inside.is_marked(), "{inside:?}");
        for words in ["pglock:busy", "pglock-0123456789abcdef:busy", "busy"] {
            let theirs = failure_of(Some("P0001"), words);
            assert!(matches!(theirs, Failure::Sql { .. }), "{theirs:?}");
        }
    }
}
