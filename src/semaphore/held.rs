//! Which slots this process holds, on whichever session.
//!
//! PostgreSQL grants a session again what it holds already. So a slot that a permit of this process
//! holds may be this very session's, and is looked at before it is taken; all others need no look.
//! Which database a slot is in nobody knows here: of another's, the look says that it is not held.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::key::Key;

type Counts = HashMap<Key, usize>;

static HELD: LazyLock<Mutex<Counts>> = LazyLock::new(Mutex::default);

/// One of them, for as long as its session may hold it. It must go before the slot is released: a look
/// at one that is free costs the server a warning.
pub(super) struct Held(Vec<Key>);

impl Held {
    pub(super) fn new(keys: &[Key]) -> Self {
        let mut counts = counts();
        for key in keys {
            *counts.entry(key.clone()).or_default() += 1;
        }
        Self(keys.to_vec())
    }
}

impl Drop for Held {
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
pub(super) fn held_of(keys: &[Key]) -> Vec<Key> {
    let counts = counts();
    let held = |key: &&Key| counts.contains_key(key);
    keys.iter().filter(held).cloned().collect()
}

fn counts() -> MutexGuard<'static, Counts> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
