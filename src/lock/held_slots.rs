//! Which slots this process holds, on whichever session.
//!
//! PostgreSQL grants a lock again to the session that holds it. So if a permit of this process
//! holds a slot, this very session may hold it: that is looked up before the slot is tried. Other
//! slots need no look.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::key::Key;

type Counts = HashMap<Key, usize>;

static HELD: LazyLock<Mutex<Counts>> = LazyLock::new(Mutex::default);

/// Slots that this process holds, for as long as their session may hold them.
pub(crate) struct HeldSlots(Vec<Key>);

impl HeldSlots {
    pub(super) fn new(keys: &[Key]) -> Self {
        let mut counts = counts();
        for key in keys {
            *counts.entry(key.clone()).or_default() += 1;
        }
        Self(keys.to_vec())
    }
}

impl Drop for HeldSlots {
    fn drop(&mut self) {
        let mut counts = counts();
        for key in &self.0 {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
    }
}

/// Those of the keys that this process holds.
pub(crate) fn held_of(keys: &[Key]) -> Vec<Key> {
    let counts = counts();
    let held = |key: &&Key| counts.contains_key(key);
    keys.iter().filter(held).cloned().collect()
}

fn counts() -> MutexGuard<'static, Counts> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
