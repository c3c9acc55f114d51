//! Conditions that are evaluated one after the other, and what waits for a lock.

use crate::key::Key;
use crate::request::{LockInfo, Mode, WaitTime};

/// A conjunction: PostgreSQL evaluates it in order, and no further than to the first that does not
/// hold ([Expression Evaluation Rules] promise no order between the parts of a WHERE clause; inside
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

    /// Calls a function, key by key: one that says whether it did, or one that has done it when it
    /// returns.
    fn calls(&mut self, function: &str, lock: &LockInfo, then: &str) {
        for key in lock.keys() {
            self.call(function, lock.mode(), key, then);
        }
    }

    fn call(&mut self, function: &str, mode: Mode, key: &Key, then: &str) {
        self.and(&[function, suffix(mode), "(", &key.arguments(), ")", then]);
    }

    /// Tries each of the locks.
    pub(super) fn tries(&mut self, level: &str, lock: &LockInfo) {
        self.calls(&["pg_try_advisory", level, "_lock"].concat(), lock, "");
    }

    /// Takes locks of the session, which the transaction has already: nobody is waited for.
    pub(super) fn for_session(&mut self, lock: &LockInfo) {
        self.calls("pg_advisory_lock", lock, DONE);
    }

    /// Releases each lock and takes it again, which the transaction has too. Stops at one that was not
    /// held.
    pub(super) fn regrips(&mut self, lock: &LockInfo) {
        for key in lock.keys() {
            self.call("pg_advisory_unlock", lock.mode(), key, "");
            self.call("pg_advisory_lock", lock.mode(), key, DONE);
        }
    }

    /// Waits for the locks of the transaction, one after the other, under `lock_timeout`.
    ///
    /// The timeout applies to each wait, so it is shrunk to what is left before each further key. It
    /// can fire in the instant of a grant, and is seen when the server next looks for interrupts. A
    /// sleep of no time looks: whatever comes after it comes only if nothing has fired, and the
    /// timeout is off by then.
    pub(super) fn waits(&mut self, lock: &LockInfo, time: WaitTime) {
        for (i, key) in lock.keys().iter().enumerate() {
            if let Some(timeout) = timeout(time, i == 0) {
                self.and(&["set_config('lock_timeout', ", &timeout, ", true)", DONE]);
            }
            self.call("pg_advisory_xact_lock", lock.mode(), key, DONE);
        }
        self.and(&["pg_sleep(0)", DONE]);
    }

    /// Notes `lock_timeout` as the text that it is: RESET would destroy a value that the caller had
    /// set.
    pub(super) fn note_timeout(&mut self) {
        self.and(&[
            "set_config('pglock.lock_timeout', current_setting('lock_timeout'), true)",
            DONE,
        ]);
    }

    pub(super) fn put_timeout_back(&mut self) {
        self.and(&[
            "set_config('lock_timeout', current_setting('pglock.lock_timeout'), true)",
            DONE,
        ]);
    }
}

/// Of a function that says nothing: it has returned.
const DONE: &str = " IS NOT NULL";

fn suffix(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "",
        Mode::Shared => "_shared",
    }
}

/// Releases each of them, and is true if all were held: `least`, unlike AND, calls each in any case.
pub(super) fn all_released(lock: &LockInfo) -> String {
    let mut calls = String::with_capacity(64);
    for key in lock.keys() {
        let separator = if calls.is_empty() { "" } else { ", " };
        for part in [
            separator,
            "pg_advisory_unlock",
            suffix(lock.mode()),
            "(",
            &key.arguments(),
            ")",
        ] {
            calls.push_str(part);
        }
    }
    ["least(", &calls, ")"].concat()
}

/// Whether the wait sets a `lock_timeout` of its own, which it puts back.
pub(super) fn is_timed(time: WaitTime) -> bool {
    timeout(time, true).is_some()
}

/// The `lock_timeout` for the wait for a key, as an expression of text. `None` leaves it as it is.
///
/// For a further key it is what is left, and never more than for the one before: the server's clock
/// may jump.
fn timeout(time: WaitTime, first: bool) -> Option<String> {
    if time == WaitTime::No || time == WaitTime::Place(None) {
        return None;
    }
    Some(match (first, time) {
        (true, WaitTime::Place(Some(limit))) => format!("'{limit}'"),
        (true, WaitTime::Slice(None, thousandths)) => format!(
            "CASE WHEN current_setting('lock_timeout') = '0' THEN {whole} \
             ELSE least({own}, {whole}) END::text",
            whole = whole(None, thousandths),
            own = setting_millis("lock_timeout"),
        ),
        (true, WaitTime::Slice(limit, thousandths)) => {
            format!("({})::text", whole(limit, thousandths))
        }
        (_, WaitTime::Place(limit)) => left(&limit.unwrap_or_default().to_string()),
        (_, WaitTime::Slice(limit, thousandths)) => left(&whole(limit, thousandths)),
        (_, WaitTime::No) => unreachable!("it has no timeout"),
    })
}

fn left(whole: &str) -> String {
    format!(
        "greatest(1, least({}, {whole} - {ELAPSED_MILLIS}))::text",
        setting_millis("lock_timeout")
    )
}

/// The shorter of a limit and a slice, in milliseconds. With the default of `deadlock_timeout`
/// nothing is computed.
fn whole(limit: Option<i32>, thousandths: u32) -> String {
    let limit = limit.unwrap_or(i32::MAX);
    format!(
        "CASE WHEN current_setting('deadlock_timeout') = '1s' THEN {} \
         ELSE least({limit}, greatest(1, {} * {thousandths} / 1000)) END",
        thousandths.min(limit.unsigned_abs()),
        setting_millis("deadlock_timeout"),
    )
}

/// A setting of time in milliseconds: `5s`, `1min` and the like are intervals too.
pub(super) fn setting_millis(name: &str) -> String {
    format!("(extract(epoch FROM current_setting('{name}')::interval) * 1000)::bigint")
}

const ELAPSED_MILLIS: &str = "least(greatest(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000, 0), 2147483647)::int";
