//! The locks of an election, all derived from its name. Like the hash of names they are part of the
//! crate's contract: every version must contend for the same ones.

use std::hash::{BuildHasher, RandomState};

use super::lease::Lease;
use crate::key::Key;

/// Seeds the hash of an election's name, so that it shares no lock with a section of that name.
const ELECTIONS: &str = "pglock.election";
const FENCES: &str = "pglock.fence";
const TERMS: &str = "pglock.term";

/// The locks of an election.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Its holder leads, or is about to.
    pub(super) lock: Key,
    /// Fenced transactions hold it shared. A successor takes it once, exclusively, before its term.
    pub(super) fence: Key,
    /// The first number of the pairs that the election's sessions hold. The second is positive for
    /// a term, and held exclusively. It is negative for a candidate or leader: its lease in
    /// milliseconds, held shared.
    pub(super) class: i32,
}

impl Keys {
    pub(super) fn of(name: &str) -> Self {
        let lock = Key::namespaced(ELECTIONS, name.to_owned());
        let (classid, objid, objsubid) = lock.pg_locks();
        let id = format!("{classid}:{objid}:{objsubid}");
        let class = Key::namespaced(TERMS, id.clone()).pg_locks().0;
        Self {
            lock,
            fence: Key::namespaced(FENCES, id),
            class: class as i32,
        }
    }

    /// The lock of the term with that number.
    pub(super) fn term(&self, number: i32) -> Key {
        (self.class, number).into()
    }

    /// The lock that says what a session's lease is.
    pub(super) fn mark(&self, lease: Lease) -> Key {
        (self.class, -lease.millis()).into()
    }
}

/// A random number for a new term, seldom the same as another's.
pub(super) fn random_number() -> i32 {
    let random = RandomState::new().hash_one(std::process::id());
    i32::try_from(random >> 33).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen. If this fails, two versions of the crate elect two leaders.
    #[test]
    fn names_give_the_published_locks() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/election-vectors.json")).unwrap();
        let vectors = vectors["vectors"].as_object().unwrap();
        assert!(vectors.len() > 3);
        for (name, locks) in vectors {
            let keys = Keys::of(name);
            assert_eq!(keys.lock.as_i64(), locks["lock"].as_i64(), "{name}");
            assert_eq!(keys.fence.as_i64(), locks["fence"].as_i64(), "{name}");
            assert_eq!(Some(i64::from(keys.class)), locks["class"].as_i64());
            assert_ne!(keys.lock, Key::from(name.as_str()));
        }
    }

    #[test]
    fn the_number_of_a_term_is_positive_and_seldom_the_same() {
        let numbers: std::collections::HashSet<_> = (0..1_000).map(|_| random_number()).collect();
        assert!(numbers.len() > 990);
        assert!(numbers.iter().all(|number| *number > 0));
    }
}
