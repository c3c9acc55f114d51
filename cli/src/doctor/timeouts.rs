//! Timeouts of the session that end waits, statements, transactions and sessions.

use std::time::Duration;

use humantime::format_duration;

use super::facts::Facts;
use super::finding::{Finding, Level};

struct Timeout {
    name: &'static str,
    /// What it means that it is off.
    off: &'static str,
    /// What happens when it fires: the words before and after its time.
    on: (&'static str, &'static str),
}

const TIMEOUTS: [Timeout; 5] = [
    Timeout {
        name: "lock_timeout",
        off: "only the lock's own timeout ends a wait for it",
        on: (
            "a wait for a lock that has no timeout of its own ends after",
            "",
        ),
    },
    Timeout {
        name: "statement_timeout",
        off: "no wait for a lock is cancelled",
        on: (
            "a wait for a lock is cancelled after",
            ", whatever timeout the lock has",
        ),
    },
    Timeout {
        name: "idle_session_timeout",
        off: "a session lock outlasts idle time",
        on: (
            "a session lock is lost as soon as its connection has been idle for",
            ", also while the section works elsewhere",
        ),
    },
    Timeout {
        name: "idle_in_transaction_session_timeout",
        off: "a transaction's lock outlasts idle time",
        on: (
            "a transaction that has been idle for",
            " is ended, its lock lost and its work rolled back",
        ),
    },
    Timeout {
        name: "transaction_timeout",
        off: "a transaction, and its lock, may last for ever",
        on: (
            "a transaction that has lasted",
            " is ended, its lock lost and its work rolled back",
        ),
    },
];

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let judge = |timeout: &Timeout| Some(judge(timeout, facts.number(timeout.name)?, facts));
    TIMEOUTS.iter().filter_map(judge).collect()
}

fn judge(timeout: &Timeout, milliseconds: u64, facts: &Facts) -> Finding {
    let name = timeout.name;
    if milliseconds == 0 {
        return Finding::fine(name, format!("It is off: {}.", timeout.off));
    }
    let time = format_duration(Duration::from_millis(milliseconds));
    let (before, after) = timeout.on;
    let user = facts.text("user");
    Finding::new(
        Level::Warning,
        name,
        format!("It is {time}: {before} {time}{after}."),
        format!(
            "Make it longer than any wait or section, or switch it off: ALTER ROLE {user} SET {name} = 0."
        ),
    )
}
