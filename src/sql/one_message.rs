//! A lock and the statements under it, in one message, which is one implicit transaction.
//!
//! Every statement has a snapshot of its own, so those after the lock see what the last holder
//! committed. A refusal must be an error, or the statements would run without the lock.

use super::conditions::Conditions;
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
    /// The transaction's name, where the text may end the transaction, or may copy.
    pub(crate) name: Option<&'a str>,
    /// Whether the text may copy from or to the client. Drivers return at the COPY, before the end of the
    /// message: with an error, or as if all were done. So the message does not commit, nor does it release
    /// its savepoint: a second one does, once the first has been seen to end.
    pub(crate) copies: bool,
    /// How the driver replies.
    pub(crate) replies: Replies,
}

impl Message<'_> {
    /// The message. The text stands on lines of its own, for it may end with a comment.
    ///
    /// With `exact`, every error of the acquire is marked. That takes a block, which costs the server more
    /// than the lock.
    pub(crate) fn text(&self, time: WaitTime, exact: bool, label: &str) -> String {
        let mut before = String::new();
        if self.inside {
            before = format!("SAVEPOINT {}; ", savepoint());
        }
        let acquire = self.acquire(time, exact);
        let begin = match self.copies && !self.inside {
            true => "; BEGIN",
            false => "",
        };
        let after = self.after();
        [
            label, &before, &acquire, begin, ";\n", self.text, "\n", &after,
        ]
        .concat()
    }

    fn after(&self) -> String {
        let check = self
            .check()
            .map_or_else(String::new, |check| format!("; {check}"));
        let end = match self.replies {
            Replies::Errors if self.copies => {
                format!("; SAVEPOINT {}; {}", end_savepoint(), done())
            }
            _ if self.inside && !self.copies => format!("; RELEASE SAVEPOINT {}", savepoint()),
            _ => String::new(),
        };
        check + &end
    }

    fn check(&self) -> Option<String> {
        let name = self.name?;
        let trace = ours::trace(self.lock);
        Some(ours::still_ours(ours::MESSAGE, name, &trace))
    }

    /// The second message, after a text that may copy.
    pub(crate) fn finish(&self) -> String {
        let back = match self.replies {
            Replies::Errors => format!("ROLLBACK TO SAVEPOINT {}; ", end_savepoint()),
            Replies::Rows => String::new(),
        };
        let check = self.check().unwrap_or_default();
        let end = match self.inside {
            true => format!("RELEASE SAVEPOINT {}", savepoint()),
            false => "COMMIT".to_owned(),
        };
        format!("{back}{check}; {end}")
    }

    /// How many statements of ours stand in front of the text, and behind it.
    pub(crate) fn statements_around(&self) -> (usize, usize) {
        let begin = usize::from(self.copies && !self.inside);
        let before = usize::from(self.inside || self.bounded);
        let release = usize::from(self.inside && !self.copies);
        (
            1 + before + begin,
            release + usize::from(self.name.is_some()),
        )
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

/// Stands before the end of a message that may copy.
fn end_savepoint() -> String {
    savepoint() + "_end"
}

/// Fails: so it shows that a message has been executed to its end.
fn done() -> String {
    let mut never = Conditions::new();
    never.and(&["false"]);
    raise(&never, "'done'")
}

/// Whether a text may copy from or to the client: no function can.
pub(crate) fn may_copy(text: &str) -> bool {
    has_word(text, &["copy"])
}

/// Whether a text may begin or end a transaction: without one of these words it cannot. A CALL can
/// commit only in a message of its own.
pub(crate) fn may_end_transaction(text: &str) -> bool {
    has_word(
        text,
        &[
            "begin", "start", "commit", "end", "rollback", "abort", "prepare",
        ],
    )
}

fn has_word(text: &str, known: &[&str]) -> bool {
    let in_word = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || c == '_' || c == '$';
    let mut words = text.split(|c| !in_word(c));
    words.any(|word| known.iter().any(|known| known.eq_ignore_ascii_case(word)))
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
