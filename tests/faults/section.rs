//! What the faults hit: a section that inserts a row, in steps.

use pglock::driver::Session;
use pglock::{Error, Key, LockBackend, with_lock, with_transaction_lock};

use crate::oracle::Table;
use crate::proxy::Point;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Session,
    Transaction,
}

/// A request that a section makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Begin,
    Lock,
    Body,
    Commit,
    Unlock,
}

/// The result of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Done,
    LostAtAcquire,
    CanceledAtAcquire,
    ErrorOfTheBody,
    LostAtCommit,
    NotCommitted,
    LockLost,
}

impl Form {
    pub const ALL: [Self; 2] = [Self::Session, Self::Transaction];

    /// Its requests, in order. diesel sends the lock and BEGIN as one request.
    pub fn steps(self, begin_is_a_request: bool) -> Vec<Step> {
        match self {
            Self::Session => vec![Step::Lock, Step::Body, Step::Unlock],
            Self::Transaction if begin_is_a_request => {
                vec![Step::Begin, Step::Lock, Step::Body, Step::Commit]
            }
            Self::Transaction => vec![Step::Lock, Step::Body, Step::Commit],
        }
    }

    pub fn run<B: LockBackend>(
        self,
        backend: &mut B,
        key: &Key,
        body: impl Body,
    ) -> Result<(), Error> {
        match self {
            Self::Session => with_lock(backend, key, |conn| body.run(conn)),
            Self::Transaction => with_transaction_lock(backend, key, |tx| body.run(tx)),
        }
    }

    /// Whether the row is there if a section gets to that point and no further.
    pub fn work_is_done(self, step: Step, point: Point) -> bool {
        match (self, step) {
            (Self::Session, Step::Unlock) => true,
            (Self::Session, Step::Body) | (Self::Transaction, Step::Commit) => {
                point != Point::Before
            }
            _ => false,
        }
    }

    /// Whether the row is there if this is the section's result.
    pub fn work_was_done(self, told: Told) -> bool {
        told == Told::Done || (self, told) == (Self::Session, Told::LockLost)
    }
}

/// What a section does on its session.
pub trait Body {
    fn run<S: Session>(self, session: &mut S) -> Result<(), Error>;
}

/// Inserts a row.
impl Body for &Table {
    fn run<S: Session>(self, session: &mut S) -> Result<(), Error> {
        let inserted = session.send(&self.insert());
        inserted.map_err(|failure| Error::body(format!("{failure:?}")))
    }
}

impl Step {
    /// A text in this request, and in no earlier one.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Begin => "START TRANSACTION",
            Self::Lock => "pg_advisory_xact_lock",
            Self::Body => "INSERT",
            Self::Commit => "COMMIT",
            Self::Unlock => "pg_advisory_unlock(", // of an exclusive lock
        }
    }

    /// The result if this request finds no connection, or gets no reply.
    pub fn told_if_lost(self) -> Told {
        match self {
            Self::Begin | Self::Lock => Told::LostAtAcquire,
            Self::Body => Told::ErrorOfTheBody,
            Self::Commit => Told::LostAtCommit,
            Self::Unlock => Told::LockLost,
        }
    }
}

impl Told {
    pub fn by(outcome: &Result<(), Error>) -> Self {
        match outcome {
            Ok(()) => Self::Done,
            Err(Error::ConnectionLost {
                committing: false, ..
            }) => Self::LostAtAcquire,
            Err(Error::ConnectionLost {
                committing: true, ..
            }) => Self::LostAtCommit,
            Err(Error::Canceled { .. }) => Self::CanceledAtAcquire,
            Err(Error::Body(_)) => Self::ErrorOfTheBody,
            Err(Error::NotCommitted { .. }) => Self::NotCommitted,
            Err(Error::LockLost { .. }) => Self::LockLost,
            Err(error) => panic!("no fault explains {error:?}"),
        }
    }
}
