//! What can go wrong, as variants.

use std::time::Duration;

use texts::{
    checkout_text, connection_lost_text, in_transaction_text, lock_lost_text, not_committed_text,
    timeout_text,
};

use crate::claim::Claim;
use crate::failure::BoxError;
use crate::targets::LockInfo;

mod causes;
pub(crate) mod find;
mod texts;

/// Why a lock was not acquired, was lost, or its work not committed.
///
/// Every variant but [`Error::Body`], [`Error::NoKeys`] and [`Error::Inspect`] names the lock. After any of them,
/// nothing that this acquire asked for is held. A text does not repeat what the driver said, which is its source
/// (but for [`Error::LockLost`]): print the sources too, as `{error:#}` does with anyhow.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// use pglock::{Error, Lock};
///
/// let sold = Lock::new(&mut client, "doc:seat:12A").run(|_| Ok::<_, Error>(true));
/// match sold {
///     Ok(_) => {}
///     Err(busy @ Error::Timeout { .. }) => println!("somebody else is at it: {busy}"),
///     Err(again) if again.is_retryable() => println!("try again: {again}"),
///     Err(lost) if lost.is_lock_lost() => println!("it ran, but not alone: {lost}"),
///     Err(other) => return Err(other.into()),
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another session held the lock for as long as the wait was allowed to take (SQLSTATE 55P03).
    #[error("{}", timeout_text(.lock, *.timeout, .holders))]
    #[non_exhaustive]
    Timeout {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The timeout that was set on the lock; zero for an attempt that does not wait. `None`:
        /// the lock had none, and the session's own `lock_timeout` ended the wait.
        timeout: Option<Duration>,
        /// Who held the lock when the wait had ended, ten at most. Empty if pglock did not ask (see
        /// [`Lock::name_holders`](crate::Lock::name_holders)), or if they had released it by then.
        holders: Vec<Claim>,
        /// The driver's error, unless the server simply said no.
        source: Option<BoxError>,
    },

    /// Waiting would never have ended: the holders wait for this session in turn (SQLSTATE 40P01).
    #[error(
        "deadlock while waiting for {lock}: the holder waits for this session too; take several keys with one Lock, or always in the same order"
    )]
    #[non_exhaustive]
    Deadlock {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// The wait was cancelled, by `pg_cancel_backend` or by `statement_timeout` (SQLSTATE 57014).
    ///
    /// In the rare case that the cancel hit after the grant, the connection was closed so that the
    /// lock is not left behind.
    #[error(
        "canceled while waiting for {lock}: by statement_timeout, or at somebody's request; to bound the wait for a lock, set its timeout"
    )]
    #[non_exhaustive]
    Canceled {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// The connection was lost while the lock was being acquired, or at COMMIT.
    #[error("{}", connection_lost_text(.lock, *.committing))]
    #[non_exhaustive]
    ConnectionLost {
        /// The lock; it is not held, for the server frees what a lost connection held.
        lock: LockInfo,
        /// The connection broke at COMMIT: whether the work was committed is not known.
        committing: bool,
        /// The driver's error.
        source: BoxError,
    },

    /// At its release the lock was found not to be held: the section, or its end, ran unprotected.
    ///
    /// The connection broke, the body gave the lock away (`pg_advisory_unlock_all`, `DISCARD ALL`),
    /// or a pooler in transaction mode ran lock and unlock on different servers. Rarely, a cancel
    /// that hits the release itself looks the same.
    #[error("{}", lock_lost_text(.lock, .source.as_deref()))]
    #[non_exhaustive]
    LockLost {
        /// The lock that was lost.
        lock: LockInfo,
        /// The server's or the driver's reason, where there is one. This error's text ends with it.
        source: Option<BoxError>,
    },

    /// A transaction of the caller's is open, and pglock would release the lock before its COMMIT. A
    /// raw `BEGIN`, which the driver has not seen, counts too.
    #[error("{}", in_transaction_text(.lock))]
    #[non_exhaustive]
    InTransaction {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// A lock cannot become shared while a transaction is open: a transaction lock keeps its mode
    /// until the transaction ends, and a session lock would let others in before the COMMIT.
    #[error(
        "cannot downgrade {lock} while a transaction is open: others would be let in before its COMMIT; end the transaction first"
    )]
    #[non_exhaustive]
    CannotDowngrade {
        /// The lock, which is held as it was.
        lock: LockInfo,
    },

    /// A transaction lock was asked for outside a transaction: it would be released at once.
    #[error(
        "cannot acquire {lock} for the transaction: none is open, and the lock would be released at once; use run_in_transaction, or begin the transaction first"
    )]
    #[non_exhaustive]
    NotInTransaction {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The scope that was set contradicts the way the lock is used.
    #[error(
        "cannot acquire {lock} for the session by a method that runs in a transaction: do not set the scope, or use run"
    )]
    #[non_exhaustive]
    WrongScope {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The transaction has been aborted by an earlier error: it can do nothing more but roll back
    /// (SQLSTATE 25P02).
    #[error(
        "cannot acquire {lock}: an earlier error has aborted the transaction; roll it back first"
    )]
    #[non_exhaustive]
    TransactionAborted {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// The transaction is REPEATABLE READ or SERIALIZABLE: it would read from a snapshot that is
    /// older than the lock.
    #[error(
        "refused to acquire {lock} in a REPEATABLE READ or SERIALIZABLE transaction: its snapshot is older than the lock, so it would read what the previous holder has since changed; lock a key first (with_lock), then begin the transaction, or use READ COMMITTED"
    )]
    #[non_exhaustive]
    StaleSnapshot {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// No row matches, or the one that did was deleted during the wait.
    #[error("cannot acquire {lock}: there is no such row")]
    #[non_exhaustive]
    NoSuchRow {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The row has changed since the snapshot of the transaction, which is REPEATABLE READ or
    /// SERIALIZABLE, or has moved to another partition (SQLSTATE 40001).
    #[error(
        "cannot acquire {lock}: it has changed since this transaction's snapshot; run the whole transaction again"
    )]
    #[non_exhaustive]
    Changed {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// A name, a value or a text of statements has a NUL byte, which no text in PostgreSQL can hold.
    /// Nothing was sent.
    #[error("cannot acquire {lock}: a name, a value or a text contains a NUL byte")]
    #[non_exhaustive]
    NulByte {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The server is a standby in recovery: it would grant the same key a second time.
    #[error(
        "refused to acquire {lock}: this server is in recovery, and its locks exclude nobody on the primary; connect to the primary"
    )]
    #[non_exhaustive]
    InRecovery {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The server's lock table is full (SQLSTATE 53200).
    #[error(
        "cannot acquire {lock}: the server's lock table is full; hold fewer locks at once, or raise max_locks_per_transaction"
    )]
    #[non_exhaustive]
    LockTableFull {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// The section ended well, but left a transaction open, or open and aborted. It was rolled
    /// back, then the lock was released.
    #[error(
        "the section of {lock} returned Ok with a transaction still open: its work was rolled back before the release; commit before the section ends"
    )]
    #[non_exhaustive]
    TransactionLeftOpen {
        /// The lock; it has been released.
        lock: LockInfo,
        /// The driver's error, where the server gave one: the transaction had been aborted.
        source: Option<BoxError>,
    },

    /// The body returned Ok, but its work was not committed: the body had swallowed an SQL error, or
    /// the COMMIT itself failed.
    #[error("{}", not_committed_text(.lock, *.contention))]
    #[non_exhaustive]
    NotCommitted {
        /// The lock; it was released with the transaction.
        lock: LockInfo,
        /// Whether another transaction was in the way (SQLSTATE 40001 or 40P01), so that the same
        /// work may succeed later.
        contention: bool,
        /// Why the server refused to commit.
        source: BoxError,
    },

    /// The statements of a message have a COPY from or to the client in them, for which a message has no
    /// place. All of them were rolled back.
    #[error(
        "the statements under {lock} copy from or to the client, which is not possible in one message: all of them were rolled back; use run_in_transaction, and the driver's own COPY in it"
    )]
    #[non_exhaustive]
    ClientCopy {
        /// The lock; it was released with the transaction.
        lock: LockInfo,
    },

    /// The server did not say how a text had ended that contains a word like COMMIT: each question was
    /// cancelled, or failed otherwise. See [`Lock::batch_execute`](crate::Lock::batch_execute).
    #[error(
        "whether the work under {lock} was committed is not known: the server did not answer; look before doing it again"
    )]
    #[non_exhaustive]
    CommitUnknown {
        /// The lock; it was released with the transaction.
        lock: LockInfo,
        /// The driver's error: why the last question failed.
        source: BoxError,
    },

    /// The server refused the release, for example because this role may not call
    /// `pg_advisory_unlock`. pglock ended the session, which frees the lock. The section was protected
    /// to its end.
    #[error("cannot release {lock}: its session was ended instead, so it is free")]
    #[non_exhaustive]
    ReleaseFailed {
        /// The lock; it is free.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// The wait was ended by its [`StopToken`](crate::StopToken).
    #[error("stopped waiting for {lock}: its token was stopped")]
    #[non_exhaustive]
    Stopped {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// A fenced transaction belongs to a term that is over, or its connection leads to another
    /// database than the election's: it was rolled back. See [`Term::fenced`](crate::election::Term::fenced).
    #[error(
        "the term of {lock} is over: its transaction was rolled back; stop working as the leader, and campaign again"
    )]
    #[non_exhaustive]
    TermOver {
        /// The election's lock.
        lock: LockInfo,
    },

    /// The lease of an election or of a hold is too short or too long.
    #[error(
        "cannot hold {lock} with a lease of {lease:?}: a hold's lease must be from 1 s to 24 days, an election's from 2 s to 49 days, and the server's idle_session_timeout, which shortens it, at least 1 s"
    )]
    #[non_exhaustive]
    InvalidLease {
        /// The lock, or the election's.
        lock: LockInfo,
        /// What was asked for, or what the server's shorter `idle_session_timeout` makes of it.
        lease: Duration,
    },

    /// Two messages of a hold reached two server sessions: a pooler in transaction mode is in between, and nobody
    /// could say which session holds the lock. See [`Lock::hold`](crate::Lock::hold).
    #[error(
        "refused to hold {lock}: two messages reached two server sessions, so a pooler in transaction mode is in between; connect to the server directly, or through a pooler in session mode, or use the transaction forms (with_transaction_lock), which work through a pooler"
    )]
    #[non_exhaustive]
    MovedSession {
        /// The lock. If it was granted to one of the sessions, that lasts until the server ends it: for a lease of
        /// silence at most.
        lock: LockInfo,
    },

    /// Others stand in the election with another lease: see
    /// [`Election::lease`](crate::election::Election::lease).
    #[error(
        "cannot hold {lock} with a lease of {lease:?}: others stand with {other:?}; give all the same (a longer one process by process, a shorter one once all have stopped)"
    )]
    #[non_exhaustive]
    OtherLease {
        /// The election's lock.
        lock: LockInfo,
        /// What was asked for, or twice the server's shorter `idle_session_timeout`.
        lease: Duration,
        /// What somebody else has.
        other: Duration,
    },

    /// Another process has the same server session, and holds the lock on it: both would be in the
    /// section.
    #[error(
        "refused to acquire {lock}: another process holds it on this very server session, so a pooler in transaction mode is in between; use the transaction forms (with_transaction_lock), which work through a pooler, or connect to the server directly"
    )]
    #[non_exhaustive]
    SharedSession {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The server speaks PostgreSQL's protocol, but its advisory locks exclude nobody (CockroachDB).
    #[error(
        "refused to acquire {lock}: this server is CockroachDB, which grants advisory locks to everybody; lock a Row instead"
    )]
    #[non_exhaustive]
    NotPostgres {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// The pool had no connection to give, within its own timeout and that of the lock. Whether the
    /// lock is free is not known, so an attempt (`try_…`) returns this error, not `None`.
    #[error("{}", checkout_text(.lock, *.in_use))]
    #[non_exhaustive]
    Checkout {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// Whether all connections of the pool were in use: another moment may do better.
        in_use: bool,
        /// The pool's error.
        source: BoxError,
    },

    /// This thread holds the lock already, or one with a key in common, on another connection: it
    /// could end up waiting for itself, for ever. Told before the wait, where a closure holds the
    /// other on a connection from a pool to the same database, and whatever holds it on the same
    /// `QueuedPool`.
    #[error(
        "this thread could end up waiting for itself: it holds {lock}, or a part of it, on another connection; inside the section, use the connection that it was given"
    )]
    #[non_exhaustive]
    AlreadyHeld {
        /// The lock that was not acquired. What the thread holds, it still holds.
        lock: LockInfo,
    },

    /// A [`Lock`](crate::Lock) was given no key at all.
    #[error("a lock on no keys would protect nothing: give it at least one key")]
    NoKeys,

    /// A [`Semaphore`](crate::Semaphore) with no slots, which would let nobody in, or with more than
    /// [`Slots::MAX`](crate::Slots::MAX). Nothing was sent.
    #[error(
        "cannot acquire {lock}: it must have 1 to {} slots, not {count}",
        crate::targets::Slots::MAX
    )]
    #[non_exhaustive]
    InvalidPermits {
        /// The semaphore.
        lock: LockInfo,
        /// The number of slots that was asked for.
        count: u32,
    },

    /// The range that was given to a [`KeyRange`](crate::KeyRange) has no number in it.
    #[error("cannot acquire {lock}: there is no number in this range, so it would protect nothing")]
    #[non_exhaustive]
    EmptyRange {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// A shared range has more than 366 numbers: see a [`KeyRange`](crate::KeyRange).
    #[error(
        "cannot acquire {lock}: a shared range has 366 numbers at most; take it exclusively, or count in larger units"
    )]
    #[non_exhaustive]
    SharedRangeTooLong {
        /// The lock that was not acquired.
        lock: LockInfo,
    },

    /// A range keeps the mode in which it was acquired: in another it has other keys.
    #[error("cannot change the mode of {lock}: a range keeps the mode in which it was acquired")]
    #[non_exhaustive]
    FixedMode {
        /// The lock, which is held as it was.
        lock: LockInfo,
    },

    /// The id of the row that [`FirstFree`](crate::FirstFree) has found is not of the type that the body
    /// names. The body did not run.
    #[error("cannot read the id {id:?} of {lock} as the type that the body names")]
    #[non_exhaustive]
    UnreadableId {
        /// The lock; it was released with the transaction.
        lock: LockInfo,
        /// The id, as PostgreSQL writes it.
        id: String,
        /// Why it could not be read.
        source: BoxError,
    },

    /// Any other error of the server or the driver in an acquire.
    #[error("cannot acquire {lock}")]
    #[non_exhaustive]
    Database {
        /// The lock that was not acquired.
        lock: LockInfo,
        /// The driver's error.
        source: BoxError,
    },

    /// A look at the locks, or the attempt to end a session that holds one, failed: see
    /// [`inspect`](crate::inspect).
    #[error("cannot inspect the locks of the database")]
    #[non_exhaustive]
    Inspect {
        /// The driver's or the pool's error.
        source: BoxError,
    },

    /// An error of the body, for bodies that return `pglock::Error`. See [`Error::body`].
    #[error(transparent)]
    Body(BoxError),
}

impl Error {
    /// Wraps an error of a body that returns `Result<_, pglock::Error>`. The drivers' errors
    /// convert with `?` alone.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Error, with_lock};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// let result = with_lock(&mut client, "doc:body", |conn| {
    ///     let n: i32 = conn.query_one("SELECT 42", &[])?.get(0);
    ///     u8::try_from(n - 43).map_err(Error::body)
    /// });
    /// assert!(matches!(result, Err(Error::Body(_))));
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn body(error: impl Into<BoxError>) -> Self {
        Self::Body(error.into())
    }

    /// Whether others have what was asked for: the lock until it timed out ([`Error::Timeout`]), or all connections of the
    /// pool ([`Error::Checkout`]). What a server answers with 503 or 409.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. } | Self::Checkout { in_use: true, .. }
        )
    }

    /// Whether a section ran that may not have been protected to its end: the lock was lost, or the term of an election
    /// was over ([`Error::TermOver`]; the fenced transaction was rolled back, but what the leader did beside it stands).
    #[must_use]
    pub fn is_lock_lost(&self) -> bool {
        matches!(self, Self::LockLost { .. } | Self::TermOver { .. })
    }

    /// The lock that this error is about.
    #[must_use]
    pub fn lock_info(&self) -> Option<&LockInfo> {
        match self {
            Self::Timeout { lock, .. }
            | Self::Deadlock { lock, .. }
            | Self::Canceled { lock, .. }
            | Self::ConnectionLost { lock, .. }
            | Self::LockLost { lock, .. }
            | Self::InTransaction { lock }
            | Self::CannotDowngrade { lock }
            | Self::NotInTransaction { lock }
            | Self::WrongScope { lock }
            | Self::TransactionAborted { lock, .. }
            | Self::StaleSnapshot { lock }
            | Self::NoSuchRow { lock }
            | Self::Changed { lock, .. }
            | Self::NulByte { lock }
            | Self::InRecovery { lock }
            | Self::LockTableFull { lock, .. }
            | Self::TransactionLeftOpen { lock, .. }
            | Self::NotCommitted { lock, .. }
            | Self::ClientCopy { lock }
            | Self::CommitUnknown { lock, .. }
            | Self::ReleaseFailed { lock, .. }
            | Self::Stopped { lock }
            | Self::TermOver { lock }
            | Self::InvalidLease { lock, .. }
            | Self::MovedSession { lock }
            | Self::OtherLease { lock, .. }
            | Self::SharedSession { lock }
            | Self::NotPostgres { lock }
            | Self::Checkout { lock, .. }
            | Self::InvalidPermits { lock, .. }
            | Self::AlreadyHeld { lock }
            | Self::EmptyRange { lock }
            | Self::SharedRangeTooLong { lock }
            | Self::FixedMode { lock }
            | Self::UnreadableId { lock, .. }
            | Self::Database { lock, .. } => Some(lock),
            Self::NoKeys | Self::Inspect { .. } | Self::Body(_) => None,
        }
    }
}
