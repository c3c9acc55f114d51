//! A target and the mode in which it is locked.

use std::fmt;
use std::sync::Arc;

use super::mode::{Mode, TableMode};
use super::table::Table;
use super::target::Target;
use crate::key::Key;

/// Which lock: its target and its mode. Errors name it, and guards return it.
///
/// ```
/// # #[cfg(feature = "postgres")]
/// fn describe(lock: &pglock::Lock<postgres::Client>) -> String {
///     let lock = lock.lock_info();
///     format!("{} keys, {}: {lock}", lock.keys().len(), lock.mode())
/// }
/// ```
///
/// With the feature `serde`, it is written as its text, its keys and its mode:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// let lock = pglock::Lock::new((), ["seat:12B", "seat:12A"]).shared();
/// assert_eq!(
///     serde_json::to_value(lock.lock_info())?,
///     serde_json::json!({
///         "lock": "\"seat:12A\", \"seat:12B\" (shared)",
///         "keys": ["seat:12A", "seat:12B"],
///         "mode": "shared",
///     }),
/// );
/// # }
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockInfo {
    target: Target,
    mode: Mode,
}

#[cfg(feature = "serde")]
impl serde::Serialize for LockInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("LockInfo", 3)?;
        fields.serialize_field("lock", &self.to_string())?;
        fields.serialize_field("keys", self.keys())?;
        fields.serialize_field("mode", &self.mode)?;
        fields.end()
    }
}

impl LockInfo {
    pub(crate) fn new(target: Target, mode: Mode) -> Self {
        Self { target, mode }
    }

    /// The same target in another mode.
    pub(crate) fn with_mode(self, mode: Mode) -> Self {
        let target = match self.target {
            Target::Range(range) => Target::Range(Arc::new(range.in_mode(mode))),
            target => target,
        };
        Self { target, mode }
    }

    /// What is locked.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The keys, in the order in which they are acquired. A range has those of its nodes. A
    /// semaphore has those of its slots, of which it takes one. A row or a table has none.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        match &self.target {
            Target::Keys(keys) => keys,
            Target::Range(range) => range.nodes(),
            Target::Slots(slots) => slots.claimed(),
            _ => &[],
        }
    }

    /// The keys, each with the mode in which it is acquired.
    pub(crate) fn keys_and_modes(&self) -> impl Iterator<Item = (&Key, Mode)> {
        let of_range = match &self.target {
            Target::Range(range) => range.modes(),
            _ => &[],
        };
        let all_alike = self.keys().len() - of_range.len();
        let modes = of_range.iter().copied();
        let modes = modes.chain(std::iter::repeat_n(self.mode, all_alike));
        self.keys().iter().zip(modes)
    }

    /// The keys that are acquired in this mode.
    pub(crate) fn keys_in(&self, mode: Mode) -> Vec<Key> {
        let keys = self.keys_and_modes().filter(|(_, taken)| *taken == mode);
        keys.map(|(key, _)| key.clone()).collect()
    }

    /// Exclusive or shared.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether two sessions cannot hold it at the same time.
    pub(crate) fn is_self_conflicting(&self) -> bool {
        match &self.target {
            Target::Keys(_) | Target::Range(_) | Target::Row(_) => self.mode == Mode::Exclusive,
            Target::Table(table) => self.table_mode(table).is_self_conflicting(),
            Target::FirstFree(_) | Target::Slots(_) => false, // it takes another row, or slot
        }
    }

    /// Whether a session that asks for this lock may have to wait until another session releases
    /// `held`: for keys, for the same row, and for the same table.
    ///
    /// Two shared locks do not conflict, but the server makes the second wait behind an exclusive
    /// waiter. Only a shared lock on a row goes past waiters.
    pub(crate) fn may_wait_for(&self, held: &Self) -> bool {
        match (&self.target, &held.target) {
            (Target::Keys(_) | Target::Range(_), Target::Keys(_) | Target::Range(_)) => {
                let held = held.keys();
                self.keys()
                    .iter()
                    .any(|key| held.binary_search(key).is_ok())
            }
            (Target::Table(table), Target::Table(held)) => table.name == held.name,
            (Target::Row(row), Target::Row(held_row)) => {
                row == held_row && (self.is_self_conflicting() || held.is_self_conflicting())
            }
            _ => false, // FirstFree takes another row, a semaphore another slot
        }
    }

    /// Whether it takes all of its keys: a semaphore takes one of them.
    pub(crate) fn is_on_keys(&self) -> bool {
        matches!(self.target, Target::Keys(_) | Target::Range(_))
    }

    /// Whether two sessions cannot hold the two at the same time: for keys.
    pub(crate) fn conflicts_with(&self, held: &Self) -> bool {
        self.is_on_keys()
            && held.is_on_keys()
            && self.keys_and_modes().any(|(key, mode)| {
                held.keys_and_modes().any(|(held, held_mode)| {
                    key == held && (mode == Mode::Exclusive || held_mode == Mode::Exclusive)
                })
            })
    }

    /// The slot of a semaphore that is held.
    pub(crate) fn slot(&self) -> Option<u32> {
        match &self.target {
            Target::Slots(slots) => slots.taken(),
            _ => None,
        }
    }

    pub(crate) fn table_mode(&self, table: &Table) -> TableMode {
        table.mode.unwrap_or(match self.mode {
            Mode::Exclusive => TableMode::Exclusive,
            Mode::Shared => TableMode::Share,
        })
    }
}

/// `"stock:ABC" (exclusive)`, `row id = 42 of "seat" (shared)`: the target as the user named it.
impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Target::Slots(slots) = &self.target {
            return slots.fmt(f);
        }
        write!(f, "{} (", self.target)?;
        match (&self.target, self.mode) {
            (Target::Table(table), _) if table.mode.is_some() => {
                write!(f, "{}", self.table_mode(table))?;
            }
            (_, mode) => write!(f, "{mode}")?,
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(keys: Vec<Key>) -> LockInfo {
        LockInfo::new(keys.into(), Mode::Exclusive)
    }

    proptest! {
        /// Whatever the order and however often each is given.
        #[test]
        fn key_sets_have_one_order(
            names in proptest::collection::vec(".{0,3}", 0..9),
            numbers in proptest::collection::vec(-3..3_i64, 0..9),
            seed: u64,
        ) {
            let names = names.iter().map(|name| Key::from(name.as_str()));
            let keys: Vec<Key> = names.chain(numbers.into_iter().map(Key::from)).collect();
            let mut shuffled: Vec<Key> = keys.iter().chain(&keys).cloned().collect();
            shuffled.sort_by_key(|key| key.as_i64().map(|number| number.rotate_left(7) ^ seed as i64));
            let (one, other) = (of(keys), of(shuffled));
            prop_assert_eq!(&one, &other);
            prop_assert!(one.keys().is_sorted());
            prop_assert!(one.keys().windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn keys_are_sorted_and_taken_once() {
        let one = of(vec![
            Key::from(2),
            Key::from(1),
            Key::from(2),
            Key::from((0, 1)),
        ]);
        let other = of(vec![Key::from((0, 1)), Key::from(1), Key::from(2)]);
        assert_eq!(one, other);
        assert_eq!(one.keys().len(), 3);
    }
}
