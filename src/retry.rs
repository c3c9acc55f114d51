//! Doing the same work again, when somebody else was in the way.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::error::Error;
use crate::error::find::causes;
use crate::optimistic;
use crate::stop::StopToken;

/// How often [`retry`] tries, and how long it pauses in between.
///
/// ```
/// use std::time::Duration;
/// use pglock::RetryPolicy;
///
/// let patient = RetryPolicy::new()
///     .attempts(50)
///     .pauses(Duration::from_millis(20), Duration::from_secs(1))
///     .deadline(Duration::from_secs(10));
/// # let _ = patient;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RetryPolicy {
    attempts: u32,
    first: Duration,
    longest: Duration,
    deadline: Option<Duration>,
    stop: Option<StopToken>,
}

impl RetryPolicy {
    /// 20 attempts, with pauses from 5 to 200 ms, and no deadline.
    pub fn new() -> Self {
        Self {
            attempts: 20,
            first: Duration::from_millis(5),
            longest: Duration::from_millis(200),
            deadline: None,
            stop: None,
        }
    }

    /// How many attempts there are at most, the first included. Zero counts as one. Defaults to 20.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The first pause, and the longest. Each is twice as long as the one before, and then made longer at random, up to
    /// twice as long, so that threads that collided are unlikely to collide again. Defaults to 5 ms and 200 ms: with 20
    /// attempts, it sleeps for 3 to 6 seconds in all.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// No attempt begins later than this after the first one did: a pause that would end later is not begun. It does not
    /// bound an attempt that runs; [`Lock::timeout`](crate::Lock::timeout) bounds its wait. Defaults to none.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes no further attempt once the token is stopped, and ends a pause at once.
    pub fn stop_on(mut self, token: &StopToken) -> Self {
        self.stop = Some(token.clone());
        self
    }

    fn delays(&self) -> impl Iterator<Item = Duration> {
        let retries = usize::try_from(self.attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(retries)
            .with_jitter()
            .build()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a closure, and runs it again as long as somebody else was in the way.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use std::time::Duration;
/// use pglock::{Lock, RetryPolicy, retry};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let policy = RetryPolicy::new().deadline(Duration::from_secs(5));
/// let sold = retry(&policy, || {
///     Lock::new(&mut client, "doc:retry")
///         .timeout(Duration::from_millis(500))
///         .run_in_transaction(|tx| anyhow::Ok(tx.execute("SELECT 'sell the seat'", &[])?))
/// })?;
/// assert_eq!(sold, 1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// The closure must do all of the work: read, decide, and write. If it works in a transaction, it must begin that
/// transaction too: a deadlock or a serialization failure aborts it ([Transaction Isolation]).
///
/// # What is tried again
///
/// What [`Retryable`] says of the error: a lock whose timeout is over, a deadlock, a version or a row that somebody else
/// has changed, a transaction that the server did not let commit beside another (SQLSTATE 40001, 40P01), a row or table that
/// was not free in time (55P03), and a pool that had no free connection.
///
/// Nothing else is, because it would fail again, or could be done twice: other errors of the body;
/// [`Error::ConnectionLost`] and [`Error::CommitUnknown`], after which the work may have been committed;
/// [`Error::LockLost`], after which it has been done, if perhaps not alone;
/// [`Error::Canceled`] and [`Error::Stopped`], since somebody wants an end; [`Error::AlreadyHeld`].
///
/// # Errors
///
/// The last error: the first that is not tried again, or that of the last attempt.
///
/// [Transaction Isolation]: https://www.postgresql.org/docs/current/transaction-iso.html
pub fn retry<T, E: Retryable<Kind>, Kind>(
    policy: &RetryPolicy,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let token = policy.stop.clone().unwrap_or_default();
    retry_with(policy, &mut work, |pause| token.wait(pause))
}

/// `sleep` returns whether to make no further attempt.
fn retry_with<T, E: Retryable<Kind>, Kind>(
    policy: &RetryPolicy,
    work: &mut impl FnMut() -> Result<T, E>,
    mut sleep: impl FnMut(Duration) -> bool,
) -> Result<T, E> {
    let start = Instant::now();
    let mut delays = policy.delays();
    loop {
        let error = match work() {
            Err(error) if error.is_retryable() => error,
            result => return result,
        };
        let too_late = |pause: &Duration| {
            let end = start.elapsed().saturating_add(*pause);
            policy.deadline.is_some_and(|deadline| end > deadline)
        };
        match delays.next() {
            Some(pause) if !too_late(&pause) && !sleep(pause) => {}
            _ => return Err(error),
        }
    }
}

/// An error that knows whether the same work may succeed next time: what the closure of [`retry`] returns.
///
/// [`pglock::Error`](Error), [`optimistic::Error`](crate::optimistic::Error), the drivers' own errors, `anyhow::Error` and
/// `Box<dyn Error + Send + Sync>` implement it. They look among their sources too: what has passed through a helper is
/// found.
///
/// diesel gives no SQLSTATE for deadlocks and lock timeouts. They are recognised by the server's text, in English
/// (`lc_messages`); those of pglock's own statements always are.
///
/// Implement it for an error of your own. The parameter is for the compiler, which finds it: leave it out.
///
/// ```
/// use pglock::{Retryable, optimistic};
///
/// #[derive(Debug, thiserror::Error)]
/// enum BookingError {
///     #[error("the seat is sold")]
///     Sold,
///     #[error(transparent)]
///     Lock(#[from] pglock::Error),
///     #[error(transparent)]
///     Save(#[from] optimistic::Error),
/// }
///
/// impl Retryable for BookingError {
///     fn is_retryable(&self) -> bool {
///         match self {
///             Self::Sold => false,
///             Self::Lock(error) => error.is_retryable(),
///             Self::Save(error) => error.is_retryable(),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether the same work may succeed next time",
    note = "implement `pglock::Retryable` for an error of your own; pglock's and the drivers' errors, `anyhow::Error` and `Box<dyn Error + Send + Sync>` implement it"
)]
pub trait Retryable<Kind = ()> {
    /// Whether somebody else was in the way, so that doing the same work again may succeed.
    fn is_retryable(&self) -> bool;
}

/// The [`Retryable`] kind of errors that hold any other.
#[derive(Debug)]
pub enum AnyError {}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

impl Retryable for optimistic::Error {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

#[cfg(feature = "postgres")]
impl Retryable for postgres::Error {
    fn is_retryable(&self) -> bool {
        is_retryable(self)
    }
}

#[cfg(feature = "diesel")]
impl Retryable for diesel::result::Error {
    fn is_retryable(&self) -> bool {
        is_retryable(self)
    }
}

impl<E: AsRef<dyn StdError + Send + Sync>> Retryable<AnyError> for E {
    fn is_retryable(&self) -> bool {
        is_retryable(self.as_ref())
    }
}

impl Error {
    /// Whether somebody else was in the way, so that doing the same again may succeed, by hand or by
    /// [`retry`]: a timeout, a deadlock, a row that has changed, a COMMIT that failed because of another
    /// transaction, a pool without a free connection, and a body's error that is or carries any of these, a conflict of an
    /// [`optimistic`](crate::optimistic) save or a driver's serialization failure.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        is_retryable(self)
    }
}

impl optimistic::Error {
    /// Whether somebody else was faster or in the way, so that it may help to read the row again and to decide again, by
    /// hand or by [`retry`]: a conflict, a serialization failure, a deadlock.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        is_retryable(self)
    }
}

/// The first error that says something decides: what lies below an unknown COMMIT does not count.
pub(crate) fn is_retryable(error: &(dyn StdError + 'static)) -> bool {
    causes(error).find_map(verdict).unwrap_or(false)
}

fn verdict(error: &(dyn StdError + 'static)) -> Option<bool> {
    match error.downcast_ref() {
        Some(Error::Body(_)) => return None,
        Some(error) => {
            return Some(matches!(
                error,
                Error::Timeout { .. }
                    | Error::Checkout { in_use: true, .. }
                    | Error::Deadlock { .. }
                    | Error::Changed { .. }
                    | Error::NotCommitted {
                        contention: true,
                        ..
                    }
            ));
        }
        None => {}
    }
    match error.downcast_ref() {
        Some(optimistic::Error::Database(_)) => return None,
        Some(optimistic::Error::Conflict { .. } | optimistic::Error::Serialization(_)) => {
            return Some(true);
        }
        Some(_) => return Some(false),
        None => {}
    }
    #[cfg(feature = "postgres")]
    if let Some(error) = error.downcast_ref() {
        return crate::backends::postgres::is_in_the_way(error).then_some(true);
    }
    #[cfg(feature = "diesel")]
    if let Some(error) = error.downcast_ref() {
        return crate::backends::diesel::is_in_the_way(error).then_some(true);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(actual: i64) -> optimistic::Error {
        optimistic::Error::Conflict {
            table: "seat".to_owned(),
            expected: 1,
            actual,
        }
    }

    /// All conflicts, and the pauses after them.
    fn pauses(policy: &RetryPolicy) -> Vec<Duration> {
        let (mut attempts, mut slept) = (0, Vec::new());
        let mut work = || {
            attempts += 1;
            Err::<(), _>(conflict(attempts))
        };
        let result = retry_with(policy, &mut work, |pause| {
            slept.push(pause);
            false
        });
        let last = i64::try_from(slept.len()).unwrap() + 1;
        assert!(
            matches!(result, Err(optimistic::Error::Conflict { actual, .. }) if actual == last),
            "{result:?}"
        );
        slept
    }

    #[test]
    fn the_last_error_comes_after_twenty_attempts_and_growing_pauses() {
        let slept = pauses(&RetryPolicy::new());
        let steps = [5, 10, 20, 40, 80, 160].into_iter().chain([200; 13]);
        assert_eq!(slept.len(), 19);
        for (slept, step) in slept.into_iter().zip(steps) {
            let step = Duration::from_millis(step);
            assert!(step <= slept && slept <= 2 * step, "{slept:?}");
        }
    }

    #[test]
    fn a_policy_says_how_often_and_how_long() {
        let policy = RetryPolicy::new();
        assert_eq!(pauses(&policy.clone().attempts(3)).len(), 2);
        assert_eq!(pauses(&policy.clone().attempts(0)).len(), 0);
        assert_eq!(pauses(&policy.clone().deadline(Duration::ZERO)).len(), 0);
        let hour = Duration::from_secs(3600);
        let long = pauses(&policy.clone().attempts(3).pauses(hour, hour));
        assert!(long.iter().all(|pause| *pause >= hour), "{long:?}");
        let late = policy.pauses(hour, hour).deadline(hour / 2);
        assert_eq!(pauses(&late).len(), 0);
    }

    #[test]
    fn a_stopped_token_ends_it() {
        let token = StopToken::new();
        let hour = Duration::from_secs(3600);
        let policy = RetryPolicy::new().pauses(hour, hour).stop_on(&token);
        let mut attempts = 0;
        let ended = retry(&policy, || {
            attempts += 1;
            token.stop();
            Err::<(), _>(conflict(1))
        });
        assert!(ended.is_err());
        assert_eq!(attempts, 1);
    }

    #[test]
    fn success_and_other_errors_are_final() {
        let policy = RetryPolicy::new();
        let never = |_| panic!("slept");
        let mut well = || Ok::<_, optimistic::Error>(7);
        assert_eq!(retry_with(&policy, &mut well, never).unwrap(), 7);
        let lock = crate::Lock::new((), "x").lock_info().clone();
        let source = || Box::new(conflict(1));
        for last in [
            Error::NoKeys,
            Error::body("any other"),
            Error::CommitUnknown {
                lock: lock.clone(),
                source: source(),
            },
            Error::ConnectionLost {
                lock,
                committing: true,
                source: source(),
            },
        ] {
            let mut work = || Err::<(), _>(anyhow::Error::from(Error::NoKeys));
            assert!(retry_with(&policy, &mut work, never).is_err());
            assert!(!last.is_retryable(), "{last:?}");
        }
    }
}
