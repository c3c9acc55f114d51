//! What is asked for: which lock, in which scope, and for how long to wait.

use std::fmt;
use std::time::Duration;

use crate::stop::StopToken;
use crate::targets::{LockInfo, Mode, Target};

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

/// `session` or `transaction`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        })
    }
}

/// How long a holder that falls silent keeps others out, if nothing else is said.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(10);

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
            lease: DEFAULT_LEASE,
            at_least: Duration::ZERO,
        }
    }

    /// Whether a timeout asks who held the lock. For rows and tables, nobody can tell.
    pub(crate) fn names_holders(&self, by_default: bool) -> bool {
        !self.lock.keys().is_empty() && self.name_holders.unwrap_or(by_default)
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
