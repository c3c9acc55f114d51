//! Expressions that are evaluated one after the other, and what waits for a lock.

use crate::key::Key;
use crate::request::{LockInfo, Mode, Wait};

/// The value of the first of several expressions, which are evaluated in order. An array, unlike a
/// select list, takes any number.
pub(super) fn in_order(steps: &Steps) -> String {
    ["(ARRAY[", &steps.text, "::text])[1]"].concat()
}

/// Expressions that are evaluated one after the other.
pub(super) struct Steps {
    pub(super) text: String,
    between: &'static str,
}

impl Steps {
    pub(super) fn new(between: &'static str) -> Self {
        Self {
            text: String::with_capacity(256), // those of one key
            between,
        }
    }

    pub(super) fn in_array() -> Self {
        Self::new("::text, ")
    }

    pub(super) fn push(&mut self, parts: &[&str]) {
        if !self.text.is_empty() {
            self.text.push_str(self.between);
        }
        for part in parts {
            self.text.push_str(part);
        }
    }

    /// What takes the transaction-level locks, one after the other, under `lock_timeout`.
    ///
    /// The timeout applies to each wait, so it is shrunk to what is left before each further key. It
    /// can fire in the instant of a grant, and is seen when the server next looks for interrupts. A
    /// sleep of no time looks: whatever comes after it comes only if nothing has fired, and the
    /// timeout is off by then.
    pub(super) fn wait(&mut self, lock: &LockInfo, wait: Wait) {
        for (i, key) in lock.keys().iter().enumerate() {
            if let Wait::Millis(millis) = wait {
                let left = match i {
                    0 => format!("'{millis}'"),
                    _ => format!("greatest(1, {millis} - {ELAPSED_MILLIS})::text"),
                };
                self.push(&["set_config('lock_timeout', ", &left, ", true)"]);
            }
            self.call("pg_advisory_xact_lock", lock.mode(), key);
        }
        self.push(&["pg_sleep(0)"]);
    }

    /// Calls a lock function, key by key.
    pub(super) fn calls(&mut self, function: &str, lock: &LockInfo) {
        for key in lock.keys() {
            self.call(function, lock.mode(), key);
        }
    }

    fn call(&mut self, function: &str, mode: Mode, key: &Key) {
        let suffix = match mode {
            Mode::Exclusive => "",
            Mode::Shared => "_shared",
        };
        self.push(&[function, suffix, "(", &key.arguments(), ")"]);
    }
}

const ELAPSED_MILLIS: &str =
    "(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000)::int";
