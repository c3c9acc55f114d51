//! What is asked for: which lock, in which mode and scope, and for how long to wait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backends::Standing;
use crate::key::Key;

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

/// Which lock: its keys and its mode. Every error names it, and a guard has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockInfo {
    keys: Arc<[Key]>,
    mode: Mode,
}

impl LockInfo {
    pub(crate) fn new(keys: Vec<Key>, mode: Mode) -> Self {
        Self {
            keys: keys.into(),
            mode,
        }
    }

    /// The same keys in another mode.
    pub(crate) fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The keys, in the order in which they are taken.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Exclusive or shared.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// `"stock:ABC" (exclusive)`: the keys as the user named them.
impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, key) in self.keys.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{key}")?;
        }
        f.write_str(match self.mode {
            Mode::Exclusive => " (exclusive)",
            Mode::Shared => " (shared)",
        })
    }
}

/// All that is set on a [`Lock`](crate::Lock).
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) lock: LockInfo,
    pub(crate) scope: Option<Scope>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) rollback_on_error: bool,
    /// How much of the timeout is gone before the server is asked.
    spent: Duration,
    pub(crate) standing: Standing,
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
    pub(crate) fn new(mut keys: Vec<Key>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self {
            lock: LockInfo::new(keys, Mode::default()),
            scope: None,
            timeout: None,
            rollback_on_error: true,
            spent: Duration::ZERO,
            standing: Standing::Free,
        }
    }

    pub(crate) fn wait(&self) -> Wait {
        self.timeout.map_or(Wait::Session, |timeout| {
            Wait::at_most(timeout.saturating_sub(self.spent))
        })
    }

    /// The same on a session that was found, with that much of the timeout gone.
    pub(crate) fn after(&self, spent: Duration, standing: Standing) -> Self {
        Self {
            spent,
            standing,
            ..self.clone()
        }
    }

    /// The same, but not waiting where no timeout is set.
    pub(crate) fn or_no_wait(&self) -> Self {
        Self {
            timeout: self.timeout.or(Some(Duration::ZERO)),
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
    use super::*;

    #[test]
    fn timeouts_become_what_lock_timeout_can_hold() {
        assert_eq!(Wait::at_most(Duration::ZERO), Wait::No);
        assert_eq!(Wait::at_most(Duration::from_nanos(1)), Wait::Millis(1));
        assert_eq!(Wait::at_most(Duration::from_micros(1_500)), Wait::Millis(2));
        assert_eq!(Wait::at_most(Duration::from_secs(2)), Wait::Millis(2_000));
        assert_eq!(Wait::at_most(Duration::MAX), Wait::Millis(i32::MAX));
    }

    #[test]
    fn the_server_waits_for_what_is_left_of_the_timeout() {
        let wait = |timeout, spent| {
            let mut request = Request::new(vec![Key::from(1)]);
            request.timeout = timeout;
            request.after(spent, Standing::Free).wait()
        };
        let second = Duration::from_secs(1);
        assert_eq!(wait(Some(3 * second), second), Wait::Millis(2_000));
        assert_eq!(wait(Some(second), 3 * second), Wait::No);
        assert_eq!(wait(None, second), Wait::Session);
    }

    #[test]
    fn keys_are_sorted_and_taken_once() {
        let one = Request::new(vec![
            Key::from(2),
            Key::from(1),
            Key::from(2),
            Key::from((0, 1)),
        ]);
        let other = Request::new(vec![Key::from((0, 1)), Key::from(1), Key::from(2)]);
        assert_eq!(one.lock, other.lock);
        assert_eq!(one.lock.keys().len(), 3);
    }
}
