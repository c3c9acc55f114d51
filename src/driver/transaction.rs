//! How a transaction that pglock opens begins and ends.

use crate::failure::{Failure, Replies};
use crate::request::{LockInfo, WaitTime};
use crate::sql;

/// What to send at the beginning and at the end of a transaction that pglock opens.
#[derive(Debug)]
pub struct Opening<'a> {
    pub(crate) entry: Entry<'a>,
    pub(crate) name: &'a str,
    pub(crate) replies: Replies,
    pub(crate) label: &'a str,
}

/// What a transaction must acquire or check before anything else.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// A lock, and the wait for it.
    Lock(&'a LockInfo, WaitTime),
    /// A term of an election that is not over.
    Fence(&'a sql::election::Fence),
}

impl Opening<'_> {
    /// Returns what acquires the lock, to be sent before `BEGIN` in the same message.
    #[must_use]
    pub fn before_begin(&self) -> String {
        self.acquire(true)
    }

    /// Returns what acquires the lock, to be sent after the `BEGIN`.
    #[must_use]
    pub fn after_begin(&self) -> String {
        self.acquire(false)
    }

    fn acquire(&self, before_begin: bool) -> String {
        let acquire = match self.entry {
            Entry::Lock(lock, time) => {
                sql::acquire_at_begin(lock, time, self.name, before_begin, self.replies)
            }
            Entry::Fence(fence) => fence.at_begin(self.name, before_begin, self.replies),
        };
        let bounded = matches!(self.entry, Entry::Lock(_, time) if time.is_bounded());
        [self.label, sql::first(bounded || !before_begin), &acquire].concat()
    }

    /// Returns what commits. It fails if the transaction has been aborted, or is no longer pglock's.
    #[must_use]
    pub fn commit(&self) -> String {
        let trace = match self.entry {
            Entry::Lock(lock, _) => sql::trace(lock),
            Entry::Fence(fence) => fence.trace(),
        };
        sql::commit(self.name, &trace)
    }
}

/// How a body wants its transaction to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By COMMIT.
    Commit,
    /// By ROLLBACK.
    Rollback,
}

/// What a body returned, and how its transaction ended.
#[derive(Debug)]
pub struct Transacted<R> {
    /// What the body returned.
    pub result: R,
    /// Whether the transaction ended as the body wanted.
    pub ended: Result<(), Failure>,
}
