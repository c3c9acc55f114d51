//! What tells this process apart from all others.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// The number of a process, and its word. A fork has a number of its own, and so a word of its own; there
/// is one text for each.
static WORD: RwLock<(u32, &str)> = RwLock::new((0, ""));

/// A random word of this process, which nobody else can write.
pub(crate) fn word() -> &'static str {
    let me = std::process::id();
    let (process, word) = *WORD.read().unwrap_or_else(PoisonError::into_inner);
    if process == me {
        return word;
    }
    let mut known = WORD.write().unwrap_or_else(PoisonError::into_inner);
    if known.0 != me {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(me);
        *known = (me, format!("{:016x}", hasher.finish()).leak());
    }
    known.1
}

/// A word that is used once in this process. It can be part of an unquoted name.
pub(crate) fn unique_word() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}_{}", word(), NEXT.fetch_add(1, Ordering::Relaxed))
}
