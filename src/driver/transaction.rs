//! How a transaction that pglock opens begins and ends.

use std::cell::Cell;

use crate::failure::Failure;
use crate::sql::Commit;

/// What to send at the beginning and at the end of a transaction that pglock opens.
#[derive(Debug)]
pub struct Opening {
    front: String,
    /// `None`: in a transaction of the caller's, which pglock does not commit.
    pub(super) commit: Option<Commit>,
    sent: Cell<bool>,
}

impl Opening {
    pub(crate) fn new(front: String, commit: Option<Commit>) -> Self {
        Self {
            front,
            commit,
            sent: Cell::new(false),
        }
    }

    /// Returns what acquires the lock and begins a transaction, to be sent as one message. A driver that
    /// begins its transactions in its own way does not call it: then pglock acquires the lock inside.
    #[must_use]
    pub fn begin(&self) -> String {
        self.sent.set(true);
        [&self.front, "; BEGIN"].concat()
    }

    pub(crate) fn was_sent(&self) -> bool {
        self.sent.get()
    }
}

/// How a body wants its transaction to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By COMMIT.
    Commit,
    /// By ROLLBACK.
    Rollback,
    /// Not at all: the transaction is the caller's, by a raw `BEGIN` that the driver has not seen.
    Leave,
}

/// What a body returned, and how its transaction ended.
#[derive(Debug)]
pub struct Transacted<R> {
    /// What the body returned.
    pub result: R,
    /// Whether the transaction ended as the body wanted.
    pub ended: Result<(), Failure>,
}
