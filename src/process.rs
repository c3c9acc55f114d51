//! What tells this process apart from all others.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static WORD: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:016x}", hasher.finish())
});

/// A random word of this process, which nobody else can write.
pub(crate) fn word() -> &'static str {
    &WORD
}

/// A word that is used once in this process. It can be part of an unquoted name.
pub(crate) fn unique_word() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}_{}", word(), NEXT.fetch_add(1, Ordering::Relaxed))
}
