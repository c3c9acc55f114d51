//! What tries, waits for and exchanges locks, as parts of a condition.

use super::Line;
use super::statement::{Conditions, Parameter};
use super::time::WaitTime;
use crate::key::Key;
use crate::targets::{LockInfo, Mode};

/// The keys of a lock, as parameters of a statement.
pub(super) struct Locks {
    keys: Vec<Place>,
}

/// Where a statement has a key.
struct Place {
    /// Its arguments and its mode. Of a slot, all that it may have: those that it has not are NULL, for which
    /// a lock function is not called.
    calls: Vec<(Mode, String)>,
    /// Whether a slot is in use; a key of its own is.
    used: Option<String>,
    /// The argument of the mutex of the head of its line; NULL in a slot that is not in use.
    head: Option<String>,
    /// The same, if the key is to be shared.
    shared_head: Option<String>,
}

/// True of a function that returns nothing, once it has returned.
const DONE: &str = " IS NOT NULL";

/// How a statement has its keys that is for any set of them: in slots, as an array of numbers.
///
/// For each text the server has an entry in `pg_stat_statements`, and a session a plan. So a text serves every
/// set of so many keys and fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) number: usize,
    /// Of numbers that are all to be exclusive, a slot is the key and the head of its line. Of others, a key to be
    /// exclusive, one to be shared, a pair of either, the head, and that once more if the key is to be shared.
    pub(super) exclusive: bool,
}

impl Slots {
    /// More keys than this are too seldom alike.
    const MOST: usize = 16;

    /// `None` of one number, which has a text of its own, and of a set of more keys than any text is for.
    pub(super) fn of(lock: &LockInfo) -> Option<Self> {
        let are_numbers = lock.keys().iter().all(|key| key.as_pair().is_none());
        let number = match lock.keys() {
            [_] if are_numbers => return None,
            keys => [4, Self::MOST]
                .into_iter()
                .find(|slots| keys.len() <= *slots)?,
        };
        Some(Self {
            number,
            exclusive: are_numbers && lock.keys_in(Mode::Shared).is_empty(),
        })
    }

    fn size(self) -> usize {
        if self.exclusive { 2 } else { 8 }
    }

    /// The numbers of all slots. Those that are not used are NULL.
    pub(super) fn numbers(self, lock: &LockInfo) -> Parameter {
        let mut numbers = vec![None; self.number * self.size()];
        for (slot, (key, mode)) in numbers.chunks_mut(self.size()).zip(lock.keys_and_modes()) {
            let (shared, head) = (usize::from(mode == Mode::Shared), Some(key.head()));
            match key.as_pair() {
                Some((first, second)) => {
                    slot[2 + 2 * shared] = Some(first.into());
                    slot[3 + 2 * shared] = Some(second.into());
                }
                None => slot[shared] = key.as_i64(),
            }
            match self.exclusive {
                true => slot[1] = head,
                false => (slot[6], slot[7]) = (head, head.filter(|_| shared == 1)),
            }
        }
        Parameter::BigInts(numbers)
    }

    fn places(self, array: &str) -> impl Iterator<Item = Place> {
        (0..self.number).map(move |slot| {
            let number = |i| format!("({array})[{}]", slot * self.size() + i);
            let pair = |i| format!("{}::int, {}::int", number(i), number(i + 1));
            let mut calls = vec![(Mode::Exclusive, number(1))];
            if self.exclusive {
                return Place {
                    calls,
                    used: Some(number(1)),
                    head: Some(number(2)),
                    shared_head: None,
                };
            }
            calls.push((Mode::Shared, number(2)));
            calls.push((Mode::Exclusive, pair(3)));
            calls.push((Mode::Shared, pair(5)));
            Place {
                calls,
                used: Some(number(7)),
                head: Some(number(7)),
                shared_head: Some(number(8)),
            }
        })
    }
}

impl Place {
    fn new(conditions: &mut Conditions, key: &Key, mode: Mode) -> Self {
        Self {
            calls: vec![(mode, conditions.key(key))],
            used: None,
            head: None,
            shared_head: None,
        }
    }

    /// What a lock function returns of the key; `otherwise` of a slot that is not in use.
    fn call(&self, function: &str, otherwise: Option<&str>) -> String {
        let calls = self.calls.iter();
        let mut calls = calls.map(|(mode, arguments)| call(function, *mode, arguments));
        match self.used {
            None => calls.next().unwrap_or_default(),
            Some(_) => {
                let calls: Vec<_> = calls.chain(otherwise.map(str::to_owned)).collect();
                ["coalesce(", &calls.join(", "), ")"].concat()
            }
        }
    }

    /// Whether a lock function that returns true or false says so of the key.
    fn is(&self, function: &str) -> String {
        self.call(function, Some("true"))
    }

    /// True once a lock function that returns nothing has returned, after what must come before.
    fn done(&self, before: &str, function: &str) -> String {
        let call = [before, &self.call(function, None), DONE].concat();
        match &self.used {
            None => call,
            Some(used) => format!("({used} IS NULL OR {call})"),
        }
    }

    /// Nobody is the head of its line: its mutex is tried *shared*, for exclusive tries would find each other.
    fn nobody_is_head(&self, head: Option<&String>) -> Option<String> {
        let head = head?;
        let (try_it, unlock) = (
            format!("pg_catalog.pg_try_advisory_lock_shared({head})"),
            format!("pg_catalog.pg_advisory_unlock_shared({head})"),
        );
        Some(match self.used {
            None => format!("{try_it} AND {unlock}"),
            Some(_) => format!("coalesce({try_it} AND {unlock}, true)"),
        })
    }
}

impl Locks {
    pub(super) fn new(conditions: &mut Conditions, lock: &LockInfo) -> Self {
        let keys = lock.keys_and_modes();
        let keys = keys.map(|(key, mode)| Place::new(conditions, key, mode));
        Self {
            keys: keys.collect(),
        }
    }

    /// The same, where those who stand in line for a key matter.
    pub(super) fn with_lines(conditions: &mut Conditions, lock: &LockInfo) -> Self {
        let mut locks = Self::new(conditions, lock);
        for (place, (key, mode)) in locks.keys.iter_mut().zip(lock.keys_and_modes()) {
            let head = conditions.parameter(Parameter::BigInt(key.head()));
            place.shared_head = (mode == Mode::Shared).then(|| head.clone());
            place.head = Some(head);
        }
        locks
    }

    /// The same, in [`Slots`] where a statement is for any set of keys.
    pub(super) fn of_any(conditions: &mut Conditions, lock: &LockInfo, lines: bool) -> Self {
        match Slots::of(lock) {
            Some(slots) => {
                let array = conditions.parameter(slots.numbers(lock));
                Self {
                    keys: slots.places(&array).collect(),
                }
            }
            None if lines => Self::with_lines(conditions, lock),
            None => Self::new(conditions, lock),
        }
    }

    /// The same keys, all of which are in one mode, in another.
    pub(super) fn in_mode(&self, mode: Mode, other: Mode) -> Self {
        let keys = self.keys.iter().map(|place| {
            let calls = place.calls.iter().filter(|(of, _)| *of == mode);
            Place {
                calls: calls.map(|(_, key)| (other, key.clone())).collect(),
                used: place.used.clone(),
                head: None,
                shared_head: None,
            }
        });
        Self {
            keys: keys.collect(),
        }
    }

    fn all(&self, condition: impl Fn(&Place) -> String) -> String {
        let all = self.keys.iter().map(condition);
        all.collect::<Vec<_>>().join(" AND ")
    }

    /// Tries each of the locks.
    pub(super) fn tries(&self, level: &str) -> String {
        let function = ["pg_try_advisory", level, "_lock"].concat();
        self.all(|place| place.is(&function))
    }

    /// Takes for the session what the transaction holds already, so without a wait.
    fn for_session(&self) -> String {
        self.all(|place| place.done("", "pg_advisory_lock"))
    }

    /// Nobody stands in line.
    pub(super) fn nobody_waits(&self) -> String {
        let heads = self.keys.iter();
        let heads = heads.filter_map(|place| place.nobody_is_head(place.head.as_ref()));
        heads.collect::<Vec<_>>().join(" AND ")
    }

    /// The same of those keys that are to be shared.
    fn nobody_waits_for_shared(&self) -> Vec<String> {
        let heads = self.keys.iter();
        let heads = heads.filter_map(|place| place.nobody_is_head(place.shared_head.as_ref()));
        heads.collect()
    }

    /// Whether somebody stands in line, as the reason of a refusal.
    pub(super) fn waited_for(&self) -> String {
        format!(" WHEN NOT ({}) THEN 'line'", self.nobody_waits())
    }

    /// Releases each lock, and is true if all were held: `least`, unlike AND, evaluates every argument.
    pub(super) fn all_released(&self) -> String {
        let calls = self.keys.iter();
        let calls: Vec<_> = calls.map(|place| place.is("pg_advisory_unlock")).collect();
        match calls.as_slice() {
            [one] => one.clone(),
            _ => ["least(", &calls.join(", "), ")"].concat(),
        }
    }

    /// Takes the locks if they are free, or else waits, in the server's queue, unless others stand in line
    /// for one. A shared lock does not even try then, or readers would pass a waiting writer in its gaps.
    pub(super) fn acquire_for_session(
        &self,
        conditions: &mut Conditions,
        time: WaitTime,
        line: Line,
    ) -> String {
        let shared = match line {
            Line::Respect => self.nobody_waits_for_shared(),
            Line::Pass => Vec::new(),
        };
        // Of several, the session takes none until the message has all.
        let alone = match self.keys.as_slice() {
            [one] => one.used.is_none(),
            _ => false,
        };
        let tries = match alone {
            true => self.tries(""),
            false => self.tries("_xact"),
        };
        let mut acquired = match time {
            WaitTime::No => tries,
            _ => {
                let mut waits = self.waits(conditions, time);
                if line == Line::Respect && !(alone && shared.len() == 1) {
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
    pub(super) fn exchanged_for(&self, other: &Self) -> String {
        let mut exchanges = Vec::with_capacity(2 * self.keys.len());
        for (place, other) in self.keys.iter().zip(&other.keys) {
            exchanges.push(place.is("pg_advisory_unlock"));
            exchanges.push(other.done("", "pg_advisory_lock"));
        }
        exchanges.join(" AND ")
    }

    /// Whether the session holds the lock: it releases each key and takes it again, while the transaction holds
    /// it too.
    pub(super) fn held_by_session(&self) -> String {
        [&self.tries("_xact"), " AND ", &self.exchanged_for(self)].concat()
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
        let mut waits = Vec::with_capacity(self.keys.len() + 1);
        for (i, place) in self.keys.iter().enumerate() {
            let limited = limit.as_ref().map_or_else(String::new, |limit| {
                [&timeout(time, limit, i == 0), DONE, " AND "].concat()
            });
            waits.push(place.done(&limited, "pg_advisory_xact_lock"));
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

fn call(function: &str, mode: Mode, arguments: &str) -> String {
    ["pg_catalog.", function, suffix(mode), "(", arguments, ")"].concat()
}

pub(super) fn suffix(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "",
        Mode::Shared => "_shared",
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
