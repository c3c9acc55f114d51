//! The locks of an election, all derived from its name. Like the hash of names they are part of the
//! crate's contract: every version must contend for the same ones.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::key::{ELECTIONS, Key};
use crate::sql::election as sql;

/// The locks of an election.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Its holder leads, or is about to.
    pub(super) lock: Key,
    /// Every session of the election holds it shared. The pairs count only beside it, since two elections
    /// can have the same class.
    pub(super) member: Key,
    /// Who holds it may wait for the lock.
    pub(super) head: Key,
    /// Fenced transactions hold it shared. A successor takes it once, exclusively, before its term.
    pub(super) fence: Key,
    /// The first number of the pairs that the election's sessions hold. The second is positive for a term:
    /// held shared from the grant, and exclusively while it is on. It is negative for a candidate or leader:
    /// its silence in milliseconds, held shared.
    pub(super) class: i32,
    /// Reads what sessions hold of them.
    pub(super) marks: String,
    id: String,
}

impl Keys {
    pub(super) fn of(name: &Key) -> Self {
        let lock = name.part(ELECTIONS, "");
        let (classid, objid, objsubid) = lock.pg_locks();
        let id = format!("{classid}:{objid}:{objsubid}");
        let member = name.part("pglock.candidate", "").shown_as(&lock);
        let class = Key::namespaced("pglock.term", id.clone()).pg_locks().0 as i32;
        Self {
            marks: sql::marks(&lock, &member, class),
            member,
            head: Key::namespaced("pglock.head", id.clone()),
            fence: Key::namespaced("pglock.fence", id.clone()),
            class,
            id,
            lock,
        }
    }

    /// The lock of the term with that number.
    pub(super) fn term(&self, number: i32) -> Key {
        (self.class, number).into()
    }

    /// Held by the leader of that term, exclusively, once it has resigned.
    pub(super) fn sign(&self, number: i32) -> Key {
        Key::namespaced("pglock.sign", format!("{}:{number}", self.id))
    }

    /// Held shared by the head that will look for that sign.
    pub(super) fn ear(&self, number: i32) -> Key {
        Key::namespaced("pglock.ear", format!("{}:{number}", self.id))
    }

    /// The lock that says what a session's silence is.
    pub(super) fn mark(&self, silence: Duration) -> Key {
        let millis = i32::try_from(silence.as_millis()).unwrap_or(i32::MAX);
        (self.class, -millis).into()
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
            let keys = Keys::of(&name.as_str().into());
            let derived = [
                (&keys.lock, "lock"),
                (&keys.member, "member"),
                (&keys.head, "head"),
                (&keys.fence, "fence"),
                (&keys.sign(1), "sign of 1"),
                (&keys.ear(1), "ear of 1"),
            ];
            for (key, what) in derived {
                assert_eq!(key.as_i64(), locks[what].as_i64(), "{what} of {name}");
            }
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
