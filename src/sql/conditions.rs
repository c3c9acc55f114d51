//! Conditions that are evaluated one after the other, and what waits for a lock.

use crate::key::Key;
use crate::request::{LockInfo, Mode, WaitTime};

/// A conjunction: PostgreSQL evaluates it in order, and stops at the first condition that is false
/// ([Expression Evaluation Rules] promise no order between the parts of a WHERE clause; inside
/// `(…) IS NOT TRUE` they are one part, whose arguments the executor takes from left to right).
///
/// [Expression Evaluation Rules]: https://www.postgresql.org/docs/current/sql-expressions.html#SYNTAX-EXPRESS-EVAL
pub(super) struct Conditions {
    pub(super) text: String,
}

impl Conditions {
    pub(super) fn new() -> Self {
        Self {
            text: String::with_capacity(512), // those of one key
        }
    }

    pub(super) fn and(&mut self, parts: &[&str]) {
        if !self.text.is_empty() {
            self.text.push_str(" AND ");
        }
        for part in parts {
            self.text.push_str(part);
        }
    }

    /// Calls a function for each key: one that says whether it succeeded, or one that has succeeded
    /// when it returns.
    fn calls(&mut self, function: &str, lock: &LockInfo, then: &str) {
        for (key, mode) in lock.keys_and_modes() {
            self.call(function, mode, key, then);
        }
    }

    fn call(&mut self, function: &str, mode: Mode, key: &Key, then: &str) {
        self.and(&[function, suffix(mode), "(", &key.arguments(), ")", then]);
    }

    /// Tries each of the locks.
    pub(super) fn tries(&mut self, level: &str, lock: &LockInfo) {
        self.calls(&["pg_try_advisory", level, "_lock"].concat(), lock, "");
    }

    /// Takes for the session what the transaction holds already, so without a wait.
    pub(super) fn for_session(&mut self, lock: &LockInfo) {
        self.calls("pg_advisory_lock", lock, DONE);
    }

    /// Releases each lock, which the transaction holds too, and takes it again. Stops at one that the
    /// session did not hold.
    pub(super) fn regrips(&mut self, lock: &LockInfo) {
        self.exchanges(lock, lock);
    }

    /// Releases each lock and takes the other, on the same keys. Stops at one that was not held.
    pub(super) fn exchanges(&mut self, lock: &LockInfo, other: &LockInfo) {
        let keys = lock.keys_and_modes().zip(other.keys_and_modes());
        for ((key, mode), (_, other)) in keys {
            self.call("pg_advisory_unlock", mode, key, "");
            self.call("pg_advisory_lock", other, key, DONE);
        }
    }

    /// Waits for the locks of the transaction, one after the other, under `lock_timeout`.
    ///
    /// The timeout applies to each wait, so before each further key it shrinks to what is left. It can
    /// fire in the instant of a grant, which shows when the server next looks for interrupts. A sleep of
    /// no time looks: what comes after it runs only if nothing has fired, and the timeout is off by
    /// then.
    pub(super) fn waits(&mut self, lock: &LockInfo, time: WaitTime) {
        for (i, (key, mode)) in lock.keys_and_modes().enumerate() {
            if let Some(timeout) = timeout(time, i == 0) {
                self.and(&[&timeout, DONE]);
            }
            self.call("pg_advisory_xact_lock", mode, key, DONE);
        }
        self.and(&["pg_sleep(float '0')", DONE]);
    }

    /// Evaluates `inner`, then puts `lock_timeout` back as the text that it was before: RESET would
    /// destroy the caller's value. An array is evaluated in order.
    pub(super) fn puts_timeout_back(&mut self, inner: &Self) {
        self.and(&[
            "set_config('lock_timeout', (ARRAY[current_setting('lock_timeout'), (",
            &inner.text,
            ")::text])[1], true)",
            DONE,
        ]);
    }
}

/// True of a function that returns nothing, once it has returned.
const DONE: &str = " IS NOT NULL";

fn suffix(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "",
        Mode::Shared => "_shared",
    }
}

/// Releases each key, and is true if all were held: `least`, unlike AND, evaluates every argument.
pub(super) fn all_released(lock: &LockInfo) -> String {
    let mut calls = String::with_capacity(64);
    for (key, mode) in lock.keys_and_modes() {
        let separator = if calls.is_empty() { "" } else { ", " };
        for part in [
            separator,
            "pg_advisory_unlock",
            suffix(mode),
            "(",
            &key.arguments(),
            ")",
        ] {
            calls.push_str(part);
        }
    }
    match lock.keys() {
        [_] => calls,
        _ => ["least(", &calls, ")"].concat(),
    }
}

/// Whether the wait sets a `lock_timeout` of its own, to be put back.
pub(super) fn is_timed(time: WaitTime) -> bool {
    timeout(time, true).is_some()
}

/// Sets `lock_timeout` for the wait for a key. `None` leaves it as it is.
///
/// A wait without a limit of its own keeps the session's, where that is shorter than any slice: at most
/// three digits of milliseconds. A further key gets what is left, and never more than the one before:
/// the server's clock may jump.
pub(super) fn timeout(time: WaitTime, first: bool) -> Option<String> {
    let millis = match time {
        WaitTime::No | WaitTime::InPlace(None) => return None,
        WaitTime::InPlace(Some(millis)) | WaitTime::Slice(millis) | WaitTime::OwnSlice(millis) => {
            millis
        }
    };
    Some(match (first, time) {
        (true, WaitTime::OwnSlice(_)) => format!(
            "CASE WHEN current_setting('lock_timeout') ~ '^[0-9]{{1,3}}ms$' THEN '' \
             ELSE set_config('lock_timeout', '{millis}', true) END"
        ),
        (true, _) => format!("set_config('lock_timeout', '{millis}', true)"),
        (false, _) => format!(
            "set_config('lock_timeout', greatest(1, least({}, {millis} - {ELAPSED_MILLIS}))::text, true)",
            setting_millis("lock_timeout")
        ),
    })
}

/// A setting of time in milliseconds: `5s`, `1min` and the like are intervals too.
pub(super) fn setting_millis(name: &str) -> String {
    format!("(extract(epoch FROM current_setting('{name}')::interval) * 1000)::bigint")
}

const ELAPSED_MILLIS: &str = "least(greatest(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000, 0), 2147483647)::int";
