//! What is held while a command runs: a lock, or a slot of a semaphore.

use diesel::pg::PgConnection;
use pglock::driver::Owned;
use pglock::{Error, LockGuard, LockInfo, Permit, Scope};

pub(crate) enum Guard {
    Lock(LockGuard<Owned<PgConnection>>),
    Slot(Permit<Owned<PgConnection>>),
}

impl Guard {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Lock(guard) => guard,
            Self::Slot(permit) => permit,
        }
    }

    pub(crate) fn lock_info(&self) -> &LockInfo {
        match self {
            Self::Lock(guard) => LockGuard::lock_info(guard),
            Self::Slot(permit) => Permit::lock_info(permit),
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Lock(guard) => LockGuard::scope(guard),
            Self::Slot(_) => Scope::Session,
        }
    }

    pub(crate) fn slot(&self) -> Option<u32> {
        match self {
            Self::Lock(_) => None,
            Self::Slot(permit) => Some(Permit::slot(permit)),
        }
    }

    pub(crate) fn is_held(&mut self) -> Result<bool, Error> {
        match self {
            Self::Lock(guard) => LockGuard::is_held(guard),
            Self::Slot(permit) => Permit::is_held(permit),
        }
    }

    pub(crate) fn release(self) -> Result<(), Error> {
        match self {
            Self::Lock(guard) => LockGuard::release(guard),
            Self::Slot(permit) => Permit::release(permit),
        }
    }
}
