//! A lock and the statements under it, in one message, which is one implicit transaction.
//!
//! Every statement has a snapshot of its own, so those after the lock see what the last holder
//! committed. A refusal must be an error, or the statements would run without the lock.

use super::{IDLE, carry, keys, ours, raise, savepoint, targets};
use crate::failure::Replies;
use crate::request::{LockInfo, WaitTime};

/// What stands in a message.
pub(crate) struct Message<'a> {
    pub(crate) lock: &'a LockInfo,
    /// The caller's statements.
    pub(crate) text: &'a str,
    /// Whether a savepoint of the caller's transaction goes in front.
    pub(crate) inside: bool,
    /// Whether the caller's timeout bounds the wait, which takes a statement in front.
    pub(crate) bounded: bool,
    /// The transaction's name, where the text may end the transaction.
    pub(crate) name: Option<&'a str>,
}

impl Message<'_> {
    /// The message. The text stands on lines of its own, for it may end with a comment.
    ///
    /// With `exact`, every error of the acquire is marked. That takes a block, which costs the server more
    /// than the lock.
    pub(crate) fn text(&self, time: WaitTime, exact: bool, label: &str) -> String {
        let (before, after) = match self.inside {
            true => (
                format!("SAVEPOINT {}; ", savepoint()),
                format!("; RELEASE SAVEPOINT {}", savepoint()),
            ),
            false => Default::default(),
        };
        let check = match self.name {
            Some(name) => {
                let trace = ours::trace(self.lock);
                format!("; {}", ours::still_ours(ours::MESSAGE, name, &trace))
            }
            None => String::new(),
        };
        let acquire = self.acquire(time, exact);
        [
            label, &before, &acquire, ";\n", self.text, "\n", &check, &after,
        ]
        .concat()
    }

    /// How many statements of ours stand in front of the text, and behind it.
    pub(crate) fn statements_around(&self) -> (usize, usize) {
        let savepoint = usize::from(self.inside);
        let before = usize::from(self.inside || self.bounded);
        (1 + before, savepoint + usize::from(self.name.is_some()))
    }

    fn acquire(&self, time: WaitTime, exact: bool) -> String {
        let named = self.name.map(ours::named_message);
        let replies = match exact {
            true => Replies::Errors,
            false => Replies::Rows,
        };
        let idle = !self.inside;
        if let Some(block) = targets::acquire(self.lock, time, named.as_deref(), idle, replies) {
            return block;
        }
        let (mut conditions, why) = keys::for_transaction(self.lock, time, idle);
        if let Some(named) = named {
            conditions.and(&[&named, " IS NOT NULL"]);
        }
        match exact {
            true => carry(&conditions, &why),
            false => raise(&conditions, &why),
        }
    }
}

/// Whether no transaction is open: `true` or `false`.
pub(crate) fn idle() -> String {
    format!("SELECT ({IDLE})::text AS line")
}

/// Whether a text may begin or end a transaction: without one of these words it cannot. A CALL can
/// commit only in a message of its own.
pub(crate) fn may_end_transaction(text: &str) -> bool {
    const WORDS: [&str; 7] = [
        "begin", "start", "commit", "end", "rollback", "abort", "prepare",
    ];
    let in_word = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || c == '_' || c == '$';
    let mut words = text.split(|c| !in_word(c));
    words.any(|word| WORDS.iter().any(|known| known.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_ends_a_transaction_is_found() {
        for text in [
            "COMMIT",
            "UPDATE a SET b = 1;commit",
            "x; /**/Begin/**/",
            "a;END;b",
            "Start\tTRANSACTION",
            "abort\n",
            "(rollback)",
            "PREPARE TRANSACTION 'x'",
        ] {
            assert!(may_end_transaction(text), "{text}");
        }
        for text in [
            "",
            "UPDATE a SET weekend = 1, committed = 2, end_at = 3",
            "UPDATE a SET \u{e9}end = 1, $end = 2",
            "VACUUM",
        ] {
            assert!(!may_end_transaction(text), "{text}");
        }
    }
}
