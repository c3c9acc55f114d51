//! The release of a session's lock.

use super::persist::insist;
use super::{Failure, Refusal, Session};
use crate::error::Error;
use crate::failure::answer;
use crate::sql;
use crate::targets::LockInfo;

/// Releases a lock of the session's.
pub(crate) fn release<S: Session>(session: &mut S, lock: &LockInfo) -> Result<(), Error> {
    let lock = lock.clone();
    let release = sql::release(&lock);
    let failure = match insist(|| answer(session.prepared("", &release))) {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    if let Failure::Lost(_) | Failure::Refused(Refusal::NotHeld) = failure {
        let source = failure.into_source();
        return Err(Error::LockLost { lock, source });
    }
    let was_open = matches!(failure, Failure::Refused(Refusal::InTransaction))
        || failure.may_be_aborted_transaction();
    let rolled_back = insist(|| session.send("ROLLBACK"));
    let released = rolled_back.and_then(|()| insist(|| answer(session.prepared("", &release))));
    match released {
        Ok(()) if was_open => Err(Error::TransactionLeftOpen {
            lock,
            source: failure.into_source(),
        }),
        Ok(()) => Ok(()),
        Err(Failure::Sql { source, .. }) => {
            session.terminate();
            Err(Error::ReleaseFailed { lock, source })
        }
        Err(failure) => {
            let source = failure.into_source();
            Err(Error::LockLost { lock, source })
        }
    }
}
