//! What a failure means for a lock.

use std::time::Duration;

use super::Error;
use crate::answer::{
    Answer, CANCELED, DEADLOCK, Failure, IN_FAILED_TRANSACTION, NO_TRANSACTION, OUT_OF_MEMORY,
    SERIALIZATION_FAILURE, TIMEOUT,
};
use crate::inspect::claim::Culprits;
use crate::request::LockInfo;

impl Error {
    /// A timeout, with the names of those who held the lock.
    pub(crate) fn held_by(mut self, culprits: Option<Culprits>) -> Self {
        if let (Self::Timeout { holders, .. }, Some(culprits)) = (&mut self, culprits) {
            *holders = culprits.holders;
        }
        self
    }

    /// What a failed acquire means.
    pub(crate) fn acquire(lock: LockInfo, waited: Option<Duration>, failure: Failure) -> Self {
        match failure {
            Failure::Refused(answer) => match answer {
                Answer::Busy => Self::Timeout {
                    lock,
                    waited,
                    holders: Vec::new(),
                    source: None,
                },
                Answer::InRecovery => Self::InRecovery { lock },
                Answer::InTransaction => Self::InTransaction { lock },
                Answer::StaleSnapshot => Self::StaleSnapshot { lock },
                Answer::NoSuchRow => Self::NoSuchRow { lock },
                Answer::NotHeld => Self::LockLost { lock, source: None },
            },
            Failure::Lost(source) => Self::ConnectionLost {
                lock,
                committing: false,
                source,
            },
            Failure::Sql { sqlstate, source } => match sqlstate.as_deref() {
                Some(TIMEOUT) => Self::Timeout {
                    lock,
                    waited,
                    holders: Vec::new(),
                    source: Some(source),
                },
                Some(DEADLOCK) => Self::Deadlock { lock, source },
                Some(CANCELED) => Self::Canceled { lock, source },
                Some(OUT_OF_MEMORY) => Self::LockTableFull { lock, source },
                Some(SERIALIZATION_FAILURE) => Self::Changed { lock, source },
                Some(NO_TRANSACTION) => Self::NotInTransaction { lock },
                Some(IN_FAILED_TRANSACTION) => Self::TransactionAborted { lock, source },
                _ => Self::Database { lock, source },
            },
        }
    }

    /// What a failed COMMIT means.
    pub(crate) fn commit(lock: LockInfo, failure: Failure) -> Self {
        match failure {
            Failure::Lost(source) => Self::ConnectionLost {
                lock,
                committing: true,
                source,
            },
            Failure::Sql { source, .. } => Self::NotCommitted { lock, source },
            Failure::Refused(_) => Self::LockLost { lock, source: None },
        }
    }
}
