//! What comes back when a message is sent: how a driver tells it, and what went wrong.

use std::fmt;

/// An error of the driver, the pool or the body, as `source`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What the server says when it does not do what a statement asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Another session holds the lock.
    Busy,
    /// At a release, or when asked: this session does not hold the lock.
    NotHeld,
    /// A transaction is open in which there should be none.
    InTransaction,
    /// The transaction's snapshot would be older than the lock.
    StaleSnapshot,
    /// The server is a standby.
    InRecovery,
    /// There is no row to lock.
    NoSuchRow,
}

/// Marks, in the text of an error, an answer that came as an error.
pub(crate) const MARK: &str = "pglock:";

impl Answer {
    const ALL: [Self; 6] = [
        Self::Busy,
        Self::NotHeld,
        Self::InTransaction,
        Self::StaleSnapshot,
        Self::InRecovery,
        Self::NoSuchRow,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NotHeld => "not held",
            Self::InTransaction => "in transaction",
            Self::StaleSnapshot => "stale snapshot",
            Self::InRecovery => "in recovery",
            Self::NoSuchRow => "no such row",
        }
    }

    /// Reads the answer at the beginning of a text. `None` is a yes.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|answer| text.starts_with(answer.word()))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a driver lets a statement answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// [`Session::send`](crate::Session::send) reads rows, and its errors have an SQLSTATE. An
    /// answer is the first column of the first row in which it is not empty: see [`Answer::read`].
    Rows,
    /// [`Session::send`](crate::Session::send) can only succeed or fail, with a text: see
    /// [`Failure::from_error`].
    Errors,
}

/// Why a message did not do what it asks for.
#[derive(Debug)]
pub enum Failure {
    /// It ran, and the answer was not a plain yes.
    Refused(Answer),
    /// The server reported an error.
    Sql {
        /// Its SQLSTATE, where the driver or the text tells.
        sqlstate: Option<String>,
        /// The driver's error.
        source: BoxError,
    },
    /// The connection is gone.
    Lost(BoxError),
}

impl Failure {
    /// A server's error, for a driver to report. An answer of pglock's that came as an error is
    /// recognised by its text, and so is an SQLSTATE that was carried in it.
    pub fn from_error(sqlstate: Option<&str>, message: &str, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        let marked = message.split_once(MARK).map(|(_, rest)| rest);
        if let Some(answer) = marked.and_then(Answer::read) {
            return Self::Refused(answer);
        }
        match marked.and_then(|rest| rest.get(..5)).or(sqlstate) {
            Some(state) if is_connection_loss(state) => Self::Lost(source),
            state => Self::Sql {
                sqlstate: state.map(str::to_owned),
                source,
            },
        }
    }

    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Sql { sqlstate: Some(state), .. } if state == TIMEOUT)
    }

    pub(crate) fn is_canceled(&self) -> bool {
        matches!(self, Self::Sql { sqlstate: Some(state), .. } if state == CANCELED)
    }

    /// The failure of a message that needs a transaction, where there was none or it had been
    /// aborted. Drivers that do not tell the SQLSTATE leave it open which.
    pub(crate) fn without_transaction(self, in_transaction: bool) -> Self {
        match self {
            Self::Sql {
                sqlstate: None,
                source,
            } => {
                let state = if in_transaction {
                    IN_FAILED_TRANSACTION
                } else {
                    NO_TRANSACTION
                };
                Self::Sql {
                    sqlstate: Some(state.to_owned()),
                    source,
                }
            }
            failure => failure,
        }
    }

    /// Whether the same message may succeed when it is sent again: not in an aborted transaction.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Sql { sqlstate, .. } if sqlstate.as_deref() != Some(IN_FAILED_TRANSACTION))
    }

    pub(crate) fn into_source(self) -> Option<BoxError> {
        match self {
            Self::Refused(_) => None,
            Self::Sql { source, .. } | Self::Lost(source) => Some(source),
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
pub(crate) const NO_TRANSACTION: &str = "25P01";
pub(crate) const IN_FAILED_TRANSACTION: &str = "25P02";

/// Whether an error is the last that a session says: connection exceptions, shutdowns, and the two
/// timeouts that end an idle session.
fn is_connection_loss(sqlstate: &str) -> bool {
    sqlstate.starts_with("08")
        || matches!(sqlstate, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}
