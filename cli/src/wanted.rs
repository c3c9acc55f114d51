//! What a command line means: the lock of a key, or the slots of a semaphore.

use std::fmt;

use diesel::pg::PgConnection;
use pglock::inspect::{self, Claim};
use pglock::{Error, Key, Slots};

use crate::groups::What;
use crate::names::election;

pub(crate) enum Wanted {
    Key(Key),
    Slots(Slots),
}

impl Wanted {
    /// A claim on the key by its name.
    pub(crate) fn naming(&self, claim: Claim) -> Claim {
        let mut claim = claim;
        if let Self::Key(key) = self
            && *key == claim.key
        {
            claim.key = key.clone();
        }
        claim
    }

    /// Whether it is meant: by the name of a lock also the election and the semaphore of that name.
    pub(crate) fn is(&self, what: &What) -> bool {
        match (self, what) {
            (Self::Key(wanted), What::Key(key)) => wanted == key,
            (Self::Key(wanted), What::Range(range)) => range.ends_with(&format!(" of {wanted}")),
            (Self::Key(wanted), What::Election(lock)) => {
                wanted == lock
                    || self
                        .bare_name()
                        .is_some_and(|name| election(name)[0] == *lock)
            }
            (Self::Key(_), What::Semaphore(name)) => self.bare_name() == Some(name),
            (Self::Slots(slots), What::Semaphore(name)) => slots.key().name() == Some(name),
            (Self::Slots(_), _) => false,
        }
    }

    /// Whether it is the lock, or the semaphore, itself.
    pub(crate) fn is_itself(&self, what: &What) -> bool {
        match self {
            Self::Key(_) => matches!(what, What::Key(_)) && self.is(what),
            Self::Slots(_) => self.is(what),
        }
    }

    pub(crate) fn slots(&self) -> Option<u32> {
        match self {
            Self::Key(_) => None,
            Self::Slots(slots) => Some(slots.count()),
        }
    }

    /// Without a namespace, and in pglock's own scheme.
    pub(crate) fn bare_name(&self) -> Option<&str> {
        match self {
            Self::Key(key) => key.name().filter(|name| Key::from(*name) == *key),
            Self::Slots(slots) => slots.key().name(),
        }
    }

    /// Who holds it, and who waits for it.
    pub(crate) fn claims(&self, connection: &mut PgConnection) -> Result<Vec<Claim>, Error> {
        let slots = match self {
            Self::Key(key) => {
                let mut claims = inspect::holders(connection, key)?;
                claims.extend(inspect::waiters(connection, key)?);
                return Ok(claims);
            }
            Self::Slots(slots) => slots,
        };
        let place = |claim: &Claim| match slots.slot_of(&claim.key) {
            None if claim.key == *slots.queue() => Some(Slots::MAX),
            slot => slot,
        };
        let mut claims = inspect::locks(connection)?;
        claims.retain(|claim| place(claim).is_some());
        claims.sort_by_key(place);
        Ok(claims)
    }

    /// Who holds it.
    pub(crate) fn holders(&self, connection: &mut PgConnection) -> Result<Vec<Claim>, Error> {
        if let Self::Key(key) = self {
            return inspect::holders(connection, key);
        }
        let mut claims = self.claims(connection)?;
        claims.retain(|claim| self.is_held_by(claim));
        Ok(claims)
    }

    /// Whether a claim holds it. The key of the queue for slots does not count.
    pub(crate) fn is_held_by(&self, claim: &Claim) -> bool {
        let counts = match self {
            Self::Key(_) => true,
            Self::Slots(slots) => slots.slot_of(&claim.key).is_some(),
        };
        claim.granted && counts
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Slots(slots) => slots.fmt(f),
        }
    }
}
