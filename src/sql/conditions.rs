//! What tries, waits for and exchanges locks, as parts of a condition.

use super::Line;
use super::statement::{Conditions, Parameter};
use super::time::WaitTime;
use crate::key::Key;
use crate::targets::{LockInfo, Mode};

/// The keys of a lock, as parameters of a statement.
pub(super) struct Locks {
    /// The arguments and the mode of each key.
    keys: Vec<(String, Mode)>,
    /// The argument of the mutex of the head of each key's line.
    heads: Vec<String>,
}

/// True of a function that returns nothing, once it has returned.
const DONE: &str = " IS NOT NULL";

impl Locks {
    pub(super) fn new(conditions: &mut Conditions, lock: &LockInfo) -> Self {
        let keys = lock.keys_and_modes();
        Self {
            keys: keys
                .map(|(key, mode)| (conditions.key(key), mode))
                .collect(),
            heads: Vec::new(),
        }
    }

    /// The same, where those who stand in line for a key matter.
    pub(super) fn with_lines(conditions: &mut Conditions, lock: &LockInfo) -> Self {
        let locks = Self::new(conditions, lock);
        let heads = lock.keys().iter().map(|key| Parameter::BigInt(key.head()));
        Self {
            heads: heads.map(|head| conditions.parameter(head)).collect(),
            ..locks
        }
    }

    /// The same keys in the modes of another lock on them.
    pub(super) fn in_modes_of(&self, lock: &LockInfo) -> Self {
        let modes = self.keys.iter().zip(lock.keys_and_modes());
        Self {
            keys: modes
                .map(|((key, _), (_, mode))| (key.clone(), mode))
                .collect(),
            heads: self.heads.clone(),
        }
    }

    fn all(&self, condition: impl Fn(&str, Mode) -> String) -> String {
        let all = self.keys.iter().map(|(key, mode)| condition(key, *mode));
        all.collect::<Vec<_>>().join(" AND ")
    }

    /// Tries each of the locks.
    pub(super) fn tries(&self, level: &str) -> String {
        self.all(|key, mode| call(&["pg_try_advisory", level, "_lock"].concat(), mode, key))
    }

    /// Takes for the session what the transaction holds already, so without a wait.
    fn for_session(&self) -> String {
        self.all(|key, mode| call("pg_advisory_lock", mode, key) + DONE)
    }

    /// Nobody stands in line: the head of a line holds its mutex, which is tried *shared*, for exclusive
    /// tries would find each other.
    pub(super) fn nobody_waits(&self) -> String {
        let heads: Vec<_> = self.heads.iter().map(|head| nobody_is_head(head)).collect();
        heads.join(" AND ")
    }

    /// Whether somebody stands in line, as the reason of a refusal.
    pub(super) fn waited_for(&self) -> String {
        format!(" WHEN NOT ({}) THEN 'line'", self.nobody_waits())
    }

    /// Takes the locks if they are free, or else waits, in the server's queue, unless others stand in line
    /// for one. A shared lock does not even try then, or readers would pass a waiting writer in its gaps.
    pub(super) fn acquire_for_session(
        &self,
        conditions: &mut Conditions,
        time: WaitTime,
        line: Line,
    ) -> String {
        let shared = self.keys.iter().zip(&self.heads);
        let shared = shared.filter(|((_, mode), _)| *mode == Mode::Shared);
        let shared: Vec<_> = match line {
            Line::Respect => shared.map(|(_, head)| nobody_is_head(head)).collect(),
            Line::Pass => Vec::new(),
        };
        // Of several, the session takes none until the message has all.
        let alone = self.keys.len() == 1;
        let tries = match alone {
            true => self.tries(""),
            false => self.tries("_xact"),
        };
        let mut acquired = match time {
            WaitTime::No => tries,
            _ => {
                let mut waits = self.waits(conditions, time);
                if line == Line::Respect && shared.len() < self.keys.len() {
                    waits = [&self.nobody_waits(), " AND ", &waits].concat();
                }
                match alone {
                    true => [&tries, " OR ", &waits, " AND ", &self.for_session()].concat(),
                    false => ["(", &tries, " OR ", &waits, ")"].concat(),
                }
            }
        };
        if !alone {
            acquired = [&acquired, " AND ", &self.for_session()].concat();
        }
        if !shared.is_empty() {
            acquired = [&shared.join(" AND "), " AND (", &acquired, ")"].concat();
        }
        acquired
    }

    /// Releases each lock, which the transaction holds too, and takes the other on the same key. Stops at
    /// one that the session did not hold.
    pub(super) fn exchanged_for(&self, other: &LockInfo) -> String {
        let other = self.in_modes_of(other);
        let mut exchanges = Vec::with_capacity(2 * self.keys.len());
        for ((key, mode), (_, other)) in self.keys.iter().zip(&other.keys) {
            exchanges.push(call("pg_advisory_unlock", *mode, key));
            exchanges.push(call("pg_advisory_lock", *other, key) + DONE);
        }
        exchanges.join(" AND ")
    }

    /// Whether the session holds the lock: it releases each key and takes it again, while the transaction holds
    /// it too.
    pub(super) fn held_by_session(&self, lock: &LockInfo) -> String {
        [&self.tries("_xact"), " AND ", &self.exchanged_for(lock)].concat()
    }

    /// Waits for the locks of the transaction, one after the other, under `lock_timeout`.
    ///
    /// The timeout applies to each wait, so before each further key it shrinks to what is left. It can
    /// fire in the instant of a grant, which shows when the server next looks for interrupts. A sleep of
    /// no time looks: what comes after it runs only if nothing has fired, and the timeout is off by
    /// then.
    pub(super) fn waits(&self, conditions: &mut Conditions, time: WaitTime) -> String {
        let limit = time
            .limit()
            .map(|millis| conditions.text_parameter(millis.to_string()));
        let mut waits = Vec::with_capacity(2 * self.keys.len() + 1);
        for (i, (key, mode)) in self.keys.iter().enumerate() {
            if let Some(limit) = &limit {
                waits.push(timeout(time, limit, i == 0) + DONE);
            }
            waits.push(call("pg_advisory_xact_lock", *mode, key) + DONE);
        }
        waits.push("pg_catalog.pg_sleep(float '0') IS NOT NULL".to_owned());
        waits.join(" AND ")
    }

    /// The same, and puts `lock_timeout` back as the text that it was before: RESET would destroy the
    /// caller's value. An array is evaluated in order. It tries first, so as not to set anything.
    pub(super) fn waits_and_puts_timeout_back(
        &self,
        conditions: &mut Conditions,
        time: WaitTime,
    ) -> String {
        let waits = self.waits(conditions, time);
        match time.limit() {
            None => waits,
            Some(_) => format!(
                "({} OR pg_catalog.set_config('lock_timeout', (ARRAY[pg_catalog.current_setting('lock_timeout'), ({waits})::text])[1], true) IS NOT NULL)",
                self.tries("_xact")
            ),
        }
    }
}

fn nobody_is_head(head: &str) -> String {
    format!(
        "pg_catalog.pg_try_advisory_lock_shared({head}) AND pg_catalog.pg_advisory_unlock_shared({head})"
    )
}

fn call(function: &str, mode: Mode, arguments: &str) -> String {
    ["pg_catalog.", function, suffix(mode), "(", arguments, ")"].concat()
}

pub(super) fn suffix(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "",
        Mode::Shared => "_shared",
    }
}

/// Releases each key, and is true if all were held: `least`, unlike AND, evaluates every argument.
pub(super) fn all_released(conditions: &mut Conditions, lock: &LockInfo) -> String {
    let calls = lock.keys_and_modes().map(|(key, mode): (&Key, Mode)| {
        let arguments = conditions.key(key);
        call("pg_advisory_unlock", mode, &arguments)
    });
    let calls: Vec<_> = calls.collect();
    match calls.as_slice() {
        [one] => one.clone(),
        _ => ["least(", &calls.join(", "), ")"].concat(),
    }
}

/// Sets `lock_timeout` for the wait for a key.
///
/// A wait without a limit of its own keeps the session's, where that is shorter than any slice: at most
/// three digits of milliseconds. A further key gets what is left, and never more than the one before:
/// the server's clock may jump.
pub(super) fn timeout(time: WaitTime, millis: &str, first: bool) -> String {
    match (first, time) {
        (true, WaitTime::OwnSlice(_)) => format!(
            "CASE WHEN pg_catalog.current_setting('lock_timeout') ~ '^[0-9]{{1,3}}ms$' THEN '' \
             ELSE pg_catalog.set_config('lock_timeout', {millis}, true) END"
        ),
        (true, _) => format!("pg_catalog.set_config('lock_timeout', {millis}, true)"),
        (false, _) => format!(
            "pg_catalog.set_config('lock_timeout', greatest(1, least({}, {millis}::int - {ELAPSED_MILLIS}))::text, true)",
            setting_millis("lock_timeout")
        ),
    }
}

/// A setting of time in milliseconds: `5s`, `1min` and the like are intervals too.
pub(super) fn setting_millis(name: &str) -> String {
    format!("(extract(epoch FROM pg_catalog.current_setting('{name}')::interval) * 1000)::bigint")
}

const ELAPSED_MILLIS: &str = "least(greatest(extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp()) * 1000, 0), 2147483647)::int";
