//! What is asked for: which lock, in which mode and scope, and for how long to wait.

use std::fmt;
use std::time::Duration;

use crate::key::Key;
use crate::target::{Table, TableMode, Target};

/// Whether a lock keeps everybody out, or only those who want it exclusively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// One holder at a time. The default.
    #[default]
    Exclusive,
    /// Any number of shared holders, and no exclusive one beside them.
    Shared,
}

/// How long a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Until it is released, or its connection ends. What a lock outside a transaction is.
    Session,
    /// Until the transaction ends by COMMIT or ROLLBACK. What a lock inside a transaction is.
    Transaction,
}

/// Which lock: its target and its mode. Every error names it, and a guard has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockInfo {
    target: Target,
    mode: Mode,
}

impl LockInfo {
    pub(crate) fn new(target: Target, mode: Mode) -> Self {
        Self { target, mode }
    }

    /// The same target in another mode.
    pub(crate) fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// What is locked.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The keys, in the order in which they are taken. A lock on a row or a table has none.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        match &self.target {
            Target::Keys(keys) => keys,
            _ => &[],
        }
    }

    /// Exclusive or shared.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether two sessions cannot hold it at the same time.
    #[cfg(feature = "r2d2")]
    pub(crate) fn is_self_conflicting(&self) -> bool {
        match &self.target {
            Target::Keys(_) | Target::Row(_) => self.mode == Mode::Exclusive,
            Target::Table(table) => self.table_mode(table).is_self_conflicting(),
            Target::FirstFree(_) => false, // it takes another row
        }
    }

    /// Whether a session that asks for this one can come to wait until another session lets go of
    /// `held`, as far as both are on keys, on the same row or on the same table.
    ///
    /// Two shared locks do not conflict, but the server lets the second wait behind an exclusive one
    /// that waits for the first. Only a row is shared past those who wait for it.
    #[cfg(feature = "r2d2")]
    pub(crate) fn may_wait_for(&self, held: &Self) -> bool {
        match (&self.target, &held.target) {
            (Target::Keys(keys), Target::Keys(held)) => {
                keys.iter().any(|key| held.binary_search(key).is_ok())
            }
            (Target::Table(table), Target::Table(held)) => table.name == held.name,
            (Target::Row(row), Target::Row(held_row)) => {
                row == held_row && (self.is_self_conflicting() || held.is_self_conflicting())
            }
            _ => false, // FirstFree takes another row
        }
    }

    pub(crate) fn table_mode(&self, table: &Table) -> TableMode {
        table.mode.unwrap_or(match self.mode {
            Mode::Exclusive => TableMode::Exclusive,
            Mode::Shared => TableMode::Share,
        })
    }
}

/// `"stock:ABC" (exclusive)`, `row id = 42 of "seat" (shared)`: the target as the user named it.
impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.target)?;
        match (&self.target, self.mode) {
            (Target::Table(table), _) if table.mode.is_some() => {
                write!(f, "{}", self.table_mode(table))?;
            }
            (_, Mode::Exclusive) => f.write_str("exclusive")?,
            (_, Mode::Shared) => f.write_str("shared")?,
        }
        f.write_str(")")
    }
}

/// All that is set on a [`Lock`](crate::Lock).
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) lock: LockInfo,
    pub(crate) scope: Option<Scope>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) rollback_on_error: bool,
    pub(crate) name_holders: Option<bool>,
    /// How much of the timeout is gone before the server is asked.
    pub(crate) spent: Duration,
}

/// How an acquire waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// As long as the session's own `lock_timeout` says, which is for ever unless somebody has set
    /// it.
    Session,
    /// At most this many milliseconds.
    Millis(i32),
}

impl Request {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            lock: LockInfo::new(target, Mode::default()),
            scope: None,
            timeout: None,
            rollback_on_error: true,
            name_holders: None,
            spent: Duration::ZERO,
        }
    }

    /// On several keys, in one order and each of them once.
    pub(crate) fn on_keys(mut keys: Vec<Key>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self::new(Target::Keys(keys.into()))
    }

    /// Whether a timeout asks who held the lock. Of a row or a table, nobody can tell.
    pub(crate) fn names_holders(&self, by_default: bool) -> bool {
        !self.lock.keys().is_empty() && self.name_holders.unwrap_or(by_default)
    }

    /// How to wait at the server, with what is left of the timeout. Less than a millisecond that was
    /// spent counts for nothing, or the shortest timeouts would not wait at all.
    pub(crate) fn wait(&self) -> Wait {
        let spent = Duration::new(self.spent.as_secs(), self.spent.subsec_millis() * 1_000_000);
        self.timeout.map_or(Wait::Session, |timeout| {
            Wait::at_most(timeout.saturating_sub(spent))
        })
    }

    /// The same on a session that was found, with that much of the timeout gone.
    pub(crate) fn after(&self, spent: Duration) -> Self {
        Self {
            spent,
            ..self.clone()
        }
    }

    /// The same, but not waiting where no timeout is set, and with a timeout that nobody reads.
    pub(crate) fn or_no_wait(&self) -> Self {
        Self {
            timeout: self.timeout.or(Some(Duration::ZERO)),
            name_holders: Some(false),
            ..self.clone()
        }
    }
}

impl Wait {
    /// In `lock_timeout`'s milliseconds: rounded up, since 0 would mean for ever, and at most what
    /// it can hold.
    fn at_most(timeout: Duration) -> Self {
        match timeout.as_nanos().div_ceil(1_000_000) {
            0 => Self::No,
            millis => Self::Millis(i32::try_from(millis).unwrap_or(i32::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_become_what_lock_timeout_can_hold() {
        assert_eq!(Wait::at_most(Duration::ZERO), Wait::No);
        assert_eq!(Wait::at_most(Duration::from_nanos(1)), Wait::Millis(1));
        assert_eq!(Wait::at_most(Duration::from_micros(1_500)), Wait::Millis(2));
        assert_eq!(Wait::at_most(Duration::from_secs(2)), Wait::Millis(2_000));
        assert_eq!(Wait::at_most(Duration::MAX), Wait::Millis(i32::MAX));
    }

    proptest! {
        /// Never 0, which would wait for ever, never less than was asked for, and at most a
        /// millisecond more, up to what `lock_timeout` can hold.
        #[test]
        fn a_duration_of_any_length_is_kept(seconds: u64, nanos in 0..1_000_000_000_u32) {
            for seconds in [seconds, seconds % 3_000_000, 0] {
                let timeout = Duration::new(seconds, nanos);
                match Wait::at_most(timeout) {
                    Wait::No => prop_assert_eq!(timeout, Duration::ZERO),
                    Wait::Millis(i32::MAX) => prop_assert!(timeout.as_millis() >= i32::MAX as u128 - 1),
                    Wait::Millis(millis) => {
                        prop_assert!(millis > 0);
                        let waited = Duration::from_millis(millis as u64);
                        prop_assert!(waited >= timeout);
                        prop_assert!(waited - timeout < Duration::from_millis(1));
                    }
                    Wait::Session => prop_assert!(false, "it has a bound"),
                }
            }
        }

        /// Whatever the order and however often each is given.
        #[test]
        fn key_sets_have_one_order(
            names in proptest::collection::vec(".{0,3}", 0..9),
            numbers in proptest::collection::vec(-3..3_i64, 0..9),
            seed: u64,
        ) {
            let names = names.iter().map(|name| Key::from(name.as_str()));
            let keys: Vec<Key> = names.chain(numbers.into_iter().map(Key::from)).collect();
            let mut shuffled: Vec<Key> = keys.iter().chain(&keys).cloned().collect();
            shuffled.sort_by_key(|key| key.as_i64().map(|number| number.rotate_left(7) ^ seed as i64));
            let (one, other) = (Request::on_keys(keys), Request::on_keys(shuffled));
            prop_assert_eq!(&one.lock, &other.lock);
            prop_assert!(one.lock.keys().is_sorted());
            prop_assert!(one.lock.keys().windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn the_server_waits_for_what_is_left_of_the_timeout() {
        let wait = |timeout, spent| {
            let mut request = Request::on_keys(vec![Key::from(1)]);
            request.timeout = timeout;
            request.after(spent).wait()
        };
        let second = Duration::from_secs(1);
        assert_eq!(wait(Some(3 * second), second), Wait::Millis(2_000));
        assert_eq!(wait(Some(second), 3 * second), Wait::No);
        let (nano, milli) = (Duration::from_nanos(1), Duration::from_millis(1));
        assert_eq!(wait(Some(nano), milli - nano), Wait::Millis(1));
        assert_eq!(wait(Some(nano), milli), Wait::No);
        assert_eq!(wait(Some(Duration::ZERO), nano), Wait::No);
        assert_eq!(wait(Some(Duration::MAX), second), Wait::Millis(i32::MAX));
        assert_eq!(wait(None, second), Wait::Session);
    }

    #[test]
    fn keys_are_sorted_and_taken_once() {
        let one = Request::on_keys(vec![
            Key::from(2),
            Key::from(1),
            Key::from(2),
            Key::from((0, 1)),
        ]);
        let other = Request::on_keys(vec![Key::from((0, 1)), Key::from(1), Key::from(2)]);
        assert_eq!(one.lock, other.lock);
        assert_eq!(one.lock.keys().len(), 3);
    }
}
