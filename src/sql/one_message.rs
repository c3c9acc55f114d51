//! A lock and the statements under it, in one message, which is one implicit transaction.
//!
//! Every statement has a snapshot of its own, so those after the lock see what the last holder
//! committed. A refusal must be an error, or the statements would run without the lock.

use super::keys::{self, Client, IDLE, Inside, Named};
use super::line::Wait;
use super::statement::{Conditions, Statement};
use super::{RELEASE, SAVEPOINT, ours, targets};
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
    /// The message around an acquire. The text stands on lines of its own, for it may end with a comment.
    pub(crate) fn around(&self, acquire: &str, label: &str) -> String {
        let (before, after) = match self.inside {
            true => (SAVEPOINT, ["; ", RELEASE].concat()),
            false => ("", String::new()),
        };
        let check = match self.name {
            Some(name) => {
                let trace = ours::trace(self.lock);
                format!("; {}", ours::still_ours(ours::MESSAGE, name, &trace))
            }
            None => String::new(),
        };
        [
            label, before, acquire, ";\n", self.text, "\n", &check, &after,
        ]
        .concat()
    }

    /// How many statements of ours stand in front of the text, where `acquire` is so many, and behind it.
    pub(crate) fn statements_around(&self, acquire: usize) -> (usize, usize) {
        let savepoint = usize::from(self.inside);
        let before = usize::from(self.inside || self.bounded);
        (acquire + before, savepoint + usize::from(self.name.is_some()))
    }

    fn named(&self) -> Option<Named<'_>> {
        self.name.map(Named::Message)
    }

    /// What acquires keys; `None` for a target.
    pub(crate) fn acquire(&self, time: WaitTime, client: Client) -> Option<Statement> {
        let inside = match self.inside {
            true => Inside::Callers,
            false => Inside::Message,
        };
        let keys = !self.lock.keys().is_empty();
        keys.then(|| {
            keys::acquire_in_transaction(self.lock, time, inside, client, self.named()).raising()
        })
    }

    /// The same in a form that marks every error of the acquire, and how many statements it is.
    pub(crate) fn acquire_exactly(&self, time: WaitTime) -> (String, usize) {
        let named = self.named().map(Named::text);
        match targets::acquire(self.lock, time, named.as_deref(), !self.inside, false) {
            Some(block) => (block, 1),
            None => {
                let wait = Wait::new(self.lock).exactly(time, !self.inside);
                match named {
                    Some(named) => (format!("{wait}; SELECT {named}"), 3),
                    None => (wait, 2),
                }
            }
        }
    }
}

/// Does nothing, where no transaction is open.
pub(crate) fn idle() -> Statement {
    let mut idle = Conditions::new();
    idle.and(&[IDLE]);
    Statement::new(idle, "'in transaction'")
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
