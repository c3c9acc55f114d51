//! A lock and the statements under it, in one message, which is one implicit transaction.
//!
//! Every statement has a snapshot of its own, so those after the lock see what the last holder
//! committed. A refusal must be an error, or the statements would run without the lock.

use super::keys::{Client, IDLE};
use super::line::Wait;
use super::statement::{Conditions, Statement};
use super::time::WaitTime;
use super::transactions::{Inside, Named, acquire_in_transaction};
use super::{RELEASE, ours, raise, targets};
use crate::targets::LockInfo;

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
    /// Whether the driver returns what comes behind a COPY. Without that, a message ends in an error that
    /// shows that it has ended.
    pub(crate) has_rows: bool,
}

impl Message<'_> {
    /// The message around an acquire. The text stands on lines of its own, for it may end with a comment.
    pub(crate) fn around(&self, acquire: &str, before: &str) -> String {
        let begin = match self.copies && !self.inside {
            true => "; BEGIN",
            false => "",
        };
        let after = self.after();
        [before, acquire, begin, ";\n", self.text, "\n", &after].concat()
    }

    fn after(&self) -> String {
        let check = self
            .check()
            .map_or_else(String::new, |check| format!("; {check}"));
        if self.copies && !self.has_rows {
            return format!(
                "{check}; SAVEPOINT pglock_end; {}",
                raise("false", "'done'")
            );
        }
        match self.inside && !self.copies {
            true => [&check, "; ", RELEASE].concat(),
            false => check,
        }
    }

    fn check(&self) -> Option<String> {
        let name = self.name?;
        Some(ours::still_ours(ours::MESSAGE, name))
    }

    /// The second message, after a text that may copy.
    pub(crate) fn finish(&self) -> String {
        let back = match self.has_rows {
            true => "",
            false => "ROLLBACK TO SAVEPOINT pglock_end; ",
        };
        let check = self.check().unwrap_or_default();
        let end = if self.inside { RELEASE } else { "COMMIT" };
        format!("{back}{check}; {end}")
    }

    /// How many statements of ours stand in front of the text, where `acquire` is so many, and behind it.
    pub(crate) fn statements_around(&self, acquire: usize) -> (usize, usize) {
        let begin = usize::from(self.copies && !self.inside);
        let before = usize::from(self.inside || self.bounded);
        let release = usize::from(self.inside && !self.copies);
        (
            acquire + before + begin,
            release + usize::from(self.name.is_some()),
        )
    }

    /// What acquires keys; `None` for a target.
    pub(crate) fn acquire(&self, time: WaitTime, client: Client) -> Option<Statement> {
        let acquire = self.keys(time, client, self.name.map(Named::Message));
        acquire.map(Statement::raising)
    }

    /// Whether the keys are free, in a message of its own; `None` for a target.
    pub(crate) fn tries(&self) -> Option<Statement> {
        self.keys(WaitTime::No, Client::Own, None)
    }

    fn keys(&self, time: WaitTime, client: Client, named: Option<Named<'_>>) -> Option<Statement> {
        let inside = match self.inside {
            true => Inside::Transaction,
            false => Inside::Message,
        };
        let keys = !self.lock.keys().is_empty();
        keys.then(|| acquire_in_transaction(self.lock, time, inside, client, named))
    }

    /// The same in a form that marks every error of the acquire, and how many statements it is.
    pub(crate) fn acquire_exactly(&self, time: WaitTime) -> (String, usize) {
        let named = self.name.map(|name| Named::Message(name).text());
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
