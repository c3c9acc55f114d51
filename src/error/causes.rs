//! What a failure means for a lock.

use std::time::Duration;

use super::Error;
use crate::failure::{
    ACTIVE_TRANSACTION, BoxError, CANCELED, DEADLOCK, Failure, IN_FAILED_TRANSACTION,
    NO_TRANSACTION, OUT_OF_MEMORY, Refusal, SERIALIZATION_FAILURE, TIMEOUT,
};
use crate::targets::LockInfo;

impl Error {
    /// There is no session to acquire the lock on.
    pub(crate) fn no_session(lock: &LockInfo, in_use: bool, source: impl Into<BoxError>) -> Self {
        Self::Checkout {
            lock: lock.clone(),
            in_use,
            source: source.into(),
        }
    }

    /// What a failed acquire means.
    pub(crate) fn acquire(lock: LockInfo, timeout: Option<Duration>, failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => match refusal {
                Refusal::Busy | Refusal::Line => Self::Timeout {
                    lock,
                    timeout,
                    holders: Vec::new(),
                    source: None,
                },
                Refusal::InRecovery => Self::InRecovery { lock },
                Refusal::InTransaction => Self::InTransaction { lock },
                Refusal::StaleSnapshot => Self::StaleSnapshot { lock },
                Refusal::NoSuchRow => Self::NoSuchRow { lock },
                Refusal::NotHeld => Self::LockLost { lock, source: None },
                Refusal::SharedSession | Refusal::Stranger | Refusal::Unexplained => {
                    Self::SharedSession { lock }
                }
                Refusal::NotPostgres => Self::NotPostgres { lock },
                Refusal::Done | Refusal::Unfinished => Self::Database {
                    lock,
                    source: "the server refused the lock, and did not say why".into(),
                },
            },
            Failure::Lost(source) => Self::ConnectionLost {
                lock,
                committing: false,
                source,
            },
            Failure::Sql {
                sqlstate, source, ..
            } => match sqlstate.as_deref() {
                Some(TIMEOUT) => Self::Timeout {
                    lock,
                    timeout,
                    holders: Vec::new(),
                    source: Some(source),
                },
                Some(DEADLOCK) => Self::Deadlock { lock, source },
                Some(CANCELED) => Self::Canceled { lock, source },
                Some(OUT_OF_MEMORY) => Self::LockTableFull { lock, source },
                Some(SERIALIZATION_FAILURE) => Self::Changed { lock, source },
                Some(ACTIVE_TRANSACTION) => Self::InTransaction { lock },
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
            Failure::Sql {
                sqlstate, source, ..
            } => Self::NotCommitted {
                lock,
                contention: matches!(sqlstate.as_deref(), Some(SERIALIZATION_FAILURE | DEADLOCK)),
                source,
            },
            Failure::Refused(_) => Self::LockLost { lock, source: None },
        }
    }
}

/// For bodies that are generic over the driver, and send SQL with
/// [`Session::send`](crate::driver::Session::send).
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Body(failure.into_error())
    }
}
