//! What a command line means: the lock of a key, or the slots of a semaphore.

use std::fmt;

use diesel::pg::PgConnection;
use pglock::inspect::{self, Claim};
use pglock::{Error, Key, Slots};

pub(crate) enum Wanted {
    Key(Key),
    Slots(Slots),
}

impl Wanted {
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
