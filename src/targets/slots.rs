//! The slots of a semaphore, and the keys behind them. Like the hash of names they are part of the
//! crate's contract: every version must contend for the same ones.

use std::fmt;
use std::sync::Arc;

use crate::key::{IntoKey, Key};

/// The slots of a [`Semaphore`](crate::Semaphore), and the keys that stand for them.
///
/// | what | key |
/// | --- | --- |
/// | slot `i`, from 0 on | `Key::namespaced("pglock.slot", "{i}:{name}")` |
/// | the queue for one of `n` slots | `Key::namespaced("pglock.queue", "{n}:{name}")` |
///
/// If the semaphore's key is no plain name but a number, a pair or a name in a namespace, the namespaces are
/// `pglock.slot.key` and `pglock.queue.key`, and the name is `C:O:S`, what [`Key::pg_locks`] gives for that key.
///
/// So another language, or a look into `pg_locks`, finds them.
///
/// ```
/// use pglock::{Key, Slots};
///
/// let slots = Slots::new("mail-api", 3);
/// assert_eq!(slots.keys()[2], Key::namespaced("pglock.slot", "2:mail-api"));
/// assert_eq!(slots.slot_of(&slots.keys()[2]), Some(2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slots {
    key: Key,
    count: u32,
    /// Empty if there are too many.
    keys: Arc<[Key]>,
    queue: Key,
    taken: Option<u32>,
}

/// Namespaces, so that a section of the same name does not conflict.
const SLOT: &str = "pglock.slot";
const QUEUE: &str = "pglock.queue";

impl Slots {
    /// The most slots that a semaphore can have: one statement tries them all.
    pub const MAX: u32 = 1_000;

    /// The slots of a semaphore of that name.
    #[must_use]
    pub fn new(name: impl IntoKey, count: u32) -> Self {
        let key = name.into();
        let keys = if count > Self::MAX { 0 } else { count };
        let keys = (0..keys).map(|slot| key.part(SLOT, &format!("{slot}:")));
        Self {
            count,
            keys: keys.collect(),
            queue: key.part(QUEUE, &format!("{count}:")),
            key,
            taken: None,
        }
    }

    /// What the semaphore is called.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How many slots there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The keys of the slots, from slot 0 on; none if there are more than [`Slots::MAX`].
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The key of the queue: the first waiter holds it while it looks for a slot, and the others
    /// wait for it.
    #[must_use]
    pub fn queue(&self) -> &Key {
        &self.queue
    }

    /// Which slot a key stands for.
    #[must_use]
    pub fn slot_of(&self, key: &Key) -> Option<u32> {
        let slot = self.keys.iter().position(|slot| slot == key)?;
        u32::try_from(slot).ok()
    }

    /// The same slots, with one that is held.
    pub(crate) fn with_taken(&self, slot: u32) -> Self {
        Self {
            taken: Some(slot),
            ..self.clone()
        }
    }

    pub(crate) fn taken(&self) -> Option<u32> {
        self.taken
    }

    /// The keys that are claimed: that of the slot that is held, or all.
    pub(crate) fn claimed(&self) -> &[Key] {
        let taken = self.taken.and_then(|slot| usize::try_from(slot).ok());
        match taken.and_then(|slot| self.keys.get(slot)) {
            Some(key) => std::slice::from_ref(key),
            None => &self.keys,
        }
    }
}

/// `semaphore "mail-api" (3 slots)`, or `slot 2 of semaphore "mail-api" (3 slots)`.
impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(slot) = self.taken {
            write!(f, "slot {slot} of ")?;
        }
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "semaphore {} ({} slot{plural})", self.key, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen. If this fails, two versions of the crate let in more than they should.
    #[test]
    fn names_give_the_published_keys() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/semaphore-vectors.json")).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert!(vectors.len() > 3);
        for vector in vectors {
            let name = vector["name"].as_str().unwrap();
            let keys = vector["slots"].as_array().unwrap();
            let slots = Slots::new(name, u32::try_from(keys.len()).unwrap());
            for (slot, key) in slots.keys().iter().zip(keys) {
                assert_eq!(slot.as_i64(), key.as_i64(), "{name}");
                assert_ne!(slot, &Key::from(name));
            }
            assert_eq!(slots.queue().as_i64(), vector["queue"].as_i64(), "{name}");
        }
    }

    /// Frozen too: what is no plain name.
    #[test]
    fn other_keys_have_namespaces_of_their_own() {
        let slot = |key: Key| Slots::new(key, 1).keys()[0].clone();
        let numbers = |numbers: &str| Key::namespaced("pglock.slot.key", format!("0:{numbers}"));
        assert_eq!(slot(Key::from(42)), numbers("0:42:1"));
        assert_eq!(slot(Key::from((1, 2))), numbers("1:2:2"));
        assert_ne!(slot(Key::from(42)), slot(Key::from("0:42:1")));
        assert_ne!(slot(Key::namespaced("mail", "api")), slot(Key::from("api")));
        assert_eq!(slot(crate::key!("a{}", 1)), slot(Key::from("a1")));
    }

    #[test]
    fn any_number_of_slots_is_a_number() {
        assert_eq!(Slots::new("x", 0).keys(), []);
        assert_eq!(Slots::new("x", u32::MAX).keys(), []);
        assert_eq!(Slots::new("x", Slots::MAX).keys().len(), 1_000);
    }

    #[test]
    fn slots_are_shown_with_their_number() {
        let slots = Slots::new("mail\n", 3);
        assert_eq!(slots.to_string(), r#"semaphore "mail\n" (3 slots)"#);
        let one = Slots::new("x", 1).with_taken(0);
        assert_eq!(one.to_string(), r#"slot 0 of semaphore "x" (1 slot)"#);
        assert_eq!(one.claimed(), one.keys());
    }
}
