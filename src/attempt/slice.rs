//! One slice of a wait: how long it is, what it is called, and what it learns when it ends.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, SystemTime};

use crate::request::LockInfo;

/// The shortest that any server has had, in milliseconds; PostgreSQL's default until one tells.
static DEADLOCK_TIMEOUT: AtomicI32 = AtomicI32::new(1_000);

/// How long the next slice is, in milliseconds: three to four fifths of `deadlock_timeout`, at random,
/// so that two sessions do not keep step.
pub(super) fn slice() -> i32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let fifths = i64::from(now.unwrap_or_default().subsec_micros() % 200);
    let millis = i64::from(DEADLOCK_TIMEOUT.load(Ordering::Relaxed)) * (600 + fifths) / 1_000;
    i32::try_from(millis).unwrap_or(i32::MAX).max(1)
}

/// A comment that says how long a wait has lasted before this slice, and for which lock: it shows in
/// `pg_stat_activity`.
pub(crate) fn label(lock: Option<&LockInfo>, waited: Option<Duration>) -> String {
    let mut label = String::new();
    if let Some(waited) = waited {
        label = format!("waited {} ms ", waited.as_millis().min(999_999_999));
    }
    if let Some(lock) = lock {
        label = format!("{label}key {}", comment(&lock.target().to_string()));
    }
    match label.is_empty() {
        true => label,
        false => format!("/*pglock {label}*/ "),
    }
}

/// At most 64 characters of a text, none of which ends a comment or is missing from an encoding.
fn comment(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_unicode()),
        }
    }
    shown.truncate(64); // each is one byte
    shown.replace("/*", "/ *").replace("*/", "* /")
}

/// What the question between two slices learns.
pub(super) struct Look {
    pub(super) lock_timeout: Option<Duration>,
    pub(super) statement_timeout: Option<Duration>,
    pub(super) deadlock: bool,
}

impl Look {
    /// Also notes the server's `deadlock_timeout`, for the next slices.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        DEADLOCK_TIMEOUT.fetch_min(words.next()?.parse().ok()?, Ordering::Relaxed);
        let mut time = || {
            let millis = words.next()?.parse().ok()?;
            Some((millis > 0).then(|| Duration::from_millis(millis)))
        };
        Some(Self {
            lock_timeout: time()?,
            statement_timeout: time()?,
            deadlock: words.next()? == "t",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_a_comment() {
        for name in [
            "*/ DROP TABLE seat",
            "/*/",
            "*/*",
            "/*",
            "**//",
            "\0\n\u{1F512}é",
        ] {
            let text = comment(name);
            assert!(!text.contains("*/") && !text.contains("/*"), "{text}");
            assert!(
                text.bytes().all(|byte| (b' '..127).contains(&byte)),
                "{text}"
            );
        }
        assert!(comment(&"*/".repeat(99)).len() <= 128);
    }

    #[test]
    fn a_look_is_read() {
        let look = Look::read("1000 300 0 t").unwrap();
        assert_eq!(look.lock_timeout, Some(Duration::from_millis(300)));
        assert_eq!((look.statement_timeout, look.deadlock), (None, true));
        assert!(Look::read("300").is_none());
    }
}
