//! What is asked for: which lock, in which mode and scope, and for how long to wait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::held;
use crate::key::Key;
use crate::nesting::Wait;
use crate::stop::StopToken;
use crate::targets::{Table, TableMode, Target};

/// Whether a lock keeps everybody out, or only those who want it exclusively.
///
/// ```
/// use pglock::{Lock, Mode};
///
/// # let client = ();
/// # let writes = false;
/// // Where the caller decides; else `Lock::shared` is shorter.
/// let mode = if writes { Mode::Exclusive } else { Mode::Shared };
/// let lock = Lock::new(client, "catalogue").mode(mode);
/// assert_eq!(lock.lock_info().to_string(), "\"catalogue\" (shared)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Mode {
    /// One holder at a time. The default.
    #[default]
    Exclusive,
    /// Any number of shared holders, and no exclusive one beside them.
    Shared,
}

/// How long a lock is held.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Error, Lock, Scope};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// // Insists on a lock that outlives the transactions inside it: refused where one is open already.
/// let mut transaction = client.transaction()?;
/// let mut lock = Lock::new(&mut transaction, "doc:scope").scope(Scope::Session);
/// assert!(matches!(lock.acquire(), Err(Error::InTransaction { .. })));
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Until it is released, or its connection ends. The default outside a transaction.
    Session,
    /// Until the transaction ends by COMMIT or ROLLBACK, or a savepoint that was set before the lock
    /// is rolled back. The default inside a transaction.
    Transaction,
}

/// `exclusive` or `shared`.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        })
    }
}

/// `session` or `transaction`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        })
    }
}

/// Which lock: its target and its mode. Errors name it, and guards return it.
///
/// ```
/// # #[cfg(feature = "postgres")]
/// fn describe(lock: &pglock::Lock<postgres::Client>) -> String {
///     let lock = lock.lock_info();
///     format!("{} keys, {}: {lock}", lock.keys().len(), lock.mode())
/// }
/// ```
///
/// With the feature `serde`, it is written as its text, its keys and its mode:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// let lock = pglock::Lock::new((), ["seat:12B", "seat:12A"]).shared();
/// assert_eq!(
///     serde_json::to_value(lock.lock_info())?,
///     serde_json::json!({
///         "lock": "\"seat:12A\", \"seat:12B\" (shared)",
///         "keys": ["seat:12A", "seat:12B"],
///         "mode": "shared",
///     }),
/// );
/// # }
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockInfo {
    target: Target,
    mode: Mode,
}

#[cfg(feature = "serde")]
impl serde::Serialize for LockInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("LockInfo", 3)?;
        fields.serialize_field("lock", &self.to_string())?;
        fields.serialize_field("keys", self.keys())?;
        fields.serialize_field("mode", &self.mode)?;
        fields.end()
    }
}

impl LockInfo {
    pub(crate) fn new(target: Target, mode: Mode) -> Self {
        Self { target, mode }
    }

    /// The same target in another mode.
    pub(crate) fn with_mode(self, mode: Mode) -> Self {
        let target = match self.target {
            Target::Range(range) => Target::Range(Arc::new(range.in_mode(mode))),
            target => target,
        };
        Self { target, mode }
    }

    /// What is locked.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The keys, in the order in which they are acquired. A range has those of its nodes. A
    /// semaphore has those of its slots, of which it takes one. A row or a table has none.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        match &self.target {
            Target::Keys(keys) => keys,
            Target::Range(range) => range.nodes(),
            Target::Slots(slots) => slots.claimed(),
            _ => &[],
        }
    }

    /// The keys, each with the mode in which it is acquired.
    pub(crate) fn keys_and_modes(&self) -> impl Iterator<Item = (&Key, Mode)> {
        let of_range = match &self.target {
            Target::Range(range) => range.modes(),
            _ => &[],
        };
        let all_alike = self.keys().len() - of_range.len();
        let modes = of_range.iter().copied();
        let modes = modes.chain(std::iter::repeat_n(self.mode, all_alike));
        self.keys().iter().zip(modes)
    }

    /// The keys that are acquired in this mode.
    pub(crate) fn keys_in(&self, mode: Mode) -> Vec<Key> {
        let keys = self.keys_and_modes().filter(|(_, taken)| *taken == mode);
        keys.map(|(key, _)| key.clone()).collect()
    }

    /// Exclusive or shared.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether two sessions cannot hold it at the same time.
    pub(crate) fn is_self_conflicting(&self) -> bool {
        match &self.target {
            Target::Keys(_) | Target::Range(_) | Target::Row(_) => self.mode == Mode::Exclusive,
            Target::Table(table) => self.table_mode(table).is_self_conflicting(),
            Target::FirstFree(_) | Target::Slots(_) => false, // it takes another row, or slot
        }
    }

    /// Whether a session that asks for this lock may have to wait until another session releases
    /// `held`: for keys, for the same row, and for the same table.
    ///
    /// Two shared locks do not conflict, but the server makes the second wait behind an exclusive
    /// waiter. Only a shared lock on a row goes past waiters.
    pub(crate) fn may_wait_for(&self, held: &Self) -> bool {
        match (&self.target, &held.target) {
            (Target::Keys(_) | Target::Range(_), Target::Keys(_) | Target::Range(_)) => {
                let held = held.keys();
                self.keys()
                    .iter()
                    .any(|key| held.binary_search(key).is_ok())
            }
            (Target::Table(table), Target::Table(held)) => table.name == held.name,
            (Target::Row(row), Target::Row(held_row)) => {
                row == held_row && (self.is_self_conflicting() || held.is_self_conflicting())
            }
            _ => false, // FirstFree takes another row, a semaphore another slot
        }
    }

    /// Whether it takes all of its keys: a semaphore takes one of them.
    pub(crate) fn is_on_keys(&self) -> bool {
        matches!(self.target, Target::Keys(_) | Target::Range(_))
    }

    /// Whether two sessions cannot hold the two at the same time: for keys.
    pub(crate) fn conflicts_with(&self, held: &Self) -> bool {
        self.is_on_keys()
            && held.is_on_keys()
            && self.keys_and_modes().any(|(key, mode)| {
                held.keys_and_modes().any(|(held, held_mode)| {
                    key == held && (mode == Mode::Exclusive || held_mode == Mode::Exclusive)
                })
            })
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
        if let Target::Slots(slots) = &self.target {
            return slots.fmt(f);
        }
        write!(f, "{} (", self.target)?;
        match (&self.target, self.mode) {
            (Target::Table(table), _) if table.mode.is_some() => {
                write!(f, "{}", self.table_mode(table))?;
            }
            (_, mode) => write!(f, "{mode}")?,
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
    pub(crate) keep_place: bool,
    pub(crate) labelled: bool,
    pub(crate) stop: Option<StopToken>,
    /// Of a hold: how long the server waits for a sign of it, and how long it lasts at least.
    pub(crate) lease: Duration,
    pub(crate) at_least: Duration,
}

/// How one message waits for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitTime {
    /// Not at all.
    No,
    /// In the server's queue, for at most this many milliseconds. `None`: for as long as the
    /// session's own `lock_timeout` allows, which is for ever unless somebody has set it.
    InPlace(Option<i32>),
    /// For one slice of this many milliseconds.
    Slice(i32),
    /// The same, but no longer than the session's own `lock_timeout`.
    OwnSlice(i32),
}

impl WaitTime {
    /// The milliseconds that `lock_timeout` is set to.
    pub(crate) fn limit(self) -> Option<i32> {
        match self {
            Self::No | Self::InPlace(None) => None,
            Self::InPlace(Some(millis)) | Self::Slice(millis) | Self::OwnSlice(millis) => {
                Some(millis)
            }
        }
    }
}

impl Request {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            lock: LockInfo::new(target, Mode::default()),
            scope: None,
            timeout: None,
            rollback_on_error: true,
            name_holders: None,
            keep_place: false,
            labelled: false,
            stop: None,
            lease: held::DEFAULT_LEASE,
            at_least: Duration::ZERO,
        }
    }

    /// Whether a timeout asks who held the lock. For rows and tables, nobody can tell.
    pub(crate) fn names_holders(&self, by_default: bool) -> bool {
        !self.lock.keys().is_empty() && self.name_holders.unwrap_or(by_default)
    }

    /// How long it is ready to wait.
    pub(crate) fn patience(&self) -> Wait {
        Wait::of(self.timeout)
    }

    /// Whether the wait is sent in slices. Waits for rows and tables are not: the server must see
    /// them.
    pub(crate) fn in_slices(&self) -> bool {
        !self.keep_place && !self.lock.keys().is_empty()
    }

    /// The same, but it does not wait if no timeout is set, and does not ask for holders that
    /// nobody would read.
    pub(crate) fn or_no_wait(&self) -> Self {
        Self {
            timeout: self.timeout.or(Some(Duration::ZERO)),
            name_holders: Some(false),
            ..self.clone()
        }
    }
}

/// Converts a time to milliseconds for `lock_timeout`: rounded up, since 0 would mean for ever, and
/// at most what the setting can hold. `None` is no time at all.
pub(crate) fn millis(time: Duration) -> Option<i32> {
    match time.as_nanos().div_ceil(1_000_000) {
        0 => None,
        millis => Some(i32::try_from(millis).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests;
