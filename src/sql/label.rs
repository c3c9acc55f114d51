//! What a wait is called, where that shows.

use std::time::Duration;

use crate::targets::LockInfo;

/// A comment that says how long a wait has lasted before this slice, and for which lock: it shows in
/// `pg_stat_activity`. A question says for how long the lock was held by then. It stands in front of a statement that is planned: of any other, `pg_stat_statements` up
/// to PostgreSQL 15 would have an entry for each comment.
pub(crate) fn label(lock: Option<&LockInfo>, waited: Option<Duration>) -> String {
    let waited = waited.map(|waited| format!("waited {} ms ", millis(waited)));
    labelled(waited.unwrap_or_default(), lock)
}

/// The same for a session that holds the lock: its first key, since the session may hold others too.
pub(crate) fn label_of_holder(lock: &LockInfo, held: Duration) -> String {
    let held = lock.keys().first().map(|key| {
        let (classid, objid, objsubid) = key.pg_locks();
        format!("held {} ms on {classid}.{objid}.{objsubid} ", millis(held))
    });
    labelled(held.unwrap_or_default(), Some(lock))
}

fn millis(time: Duration) -> u128 {
    time.as_millis().min(999_999_999_999)
}

fn labelled(mut label: String, lock: Option<&LockInfo>) -> String {
    if let Some(lock) = lock {
        label = format!("{label}key {}", comment(&lock.target().to_string()));
    }
    match label.is_empty() {
        true => label,
        false => format!("{LABEL} {label}*/ "),
    }
}

/// How a label begins.
pub(crate) const LABEL: &str = "/*pglock";

/// The longest label, in bytes.
const LONGEST: usize = 128;

/// The beginning of a text, in printable ASCII. Comments nest in PostgreSQL, so that a `/` or a `*` at its
/// end would begin another one with the comment's own end: there is none of either.
fn comment(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let character = match character {
            ' '..=')' | '+'..='.' | '0'..='~' => character.to_string(),
            _ => character.escape_unicode().to_string(),
        };
        if shown.len() + character.len() > LONGEST {
            break;
        }
        shown += &character;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::targets::Mode;

    /// Of the whole comment, not only of what is in it.
    fn is_a_comment(name: &str) -> bool {
        let lock = LockInfo::new(Key::from(name.to_owned()).into(), Mode::Exclusive);
        [None, Some(Duration::MAX)].iter().all(|waited| {
            let label = label(Some(&lock), *waited);
            let inside = label.strip_prefix("/*pglock ");
            let inside = inside.and_then(|label| label.strip_suffix("*/ "));
            inside.is_some_and(|inside| {
                let harmless = |c: char| matches!(c, ' '..='~') && !matches!(c, '*' | '/');
                inside.len() < 2 * LONGEST && inside.chars().all(harmless)
            })
        })
    }

    #[test]
    fn no_character_ends_or_begins_a_comment() {
        for character in '\0'..=char::MAX {
            assert!(is_a_comment(&character.to_string()), "{character:?}");
        }
        for length in 0..2 * LONGEST {
            for end in ["/", "*", "/*", "*/", "*/*", "\\", "\u{1F512}"] {
                let name = "a".repeat(length) + end;
                assert!(is_a_comment(&name), "{name:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_ends_or_begins_a_comment(any in "(?s:.){0,140}", ends in "a{0,140}[*/\\\\\"é]{1,9}") {
            proptest::prop_assert!(is_a_comment(&any));
            proptest::prop_assert!(is_a_comment(&ends));
        }
    }

    #[test]
    fn a_name_is_cut_between_two_characters() {
        assert_eq!(comment("a/b*c é"), r"a\u{2f}b\u{2a}c \u{e9}");
        let long = "x".repeat(LONGEST - 1) + "é";
        assert_eq!(comment(&long), "x".repeat(LONGEST - 1));
    }
}
