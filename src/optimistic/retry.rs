//! Trying again after a conflict.

use std::error::Error as StdError;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::thread;
use std::time::Duration;

use super::Error;

const ATTEMPTS: usize = 20;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Runs a closure that reads a row and saves it, again after each conflict.
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use pglock::optimistic::{self, postgres::VersionedTable};
/// use postgres::Client;
///
/// fn count_visit(client: &mut Client, id: i64) -> Result<i32, optimistic::Error> {
///     let pages = VersionedTable::new("page", "version");
///     optimistic::retry(|| {
///         let page = client.query_one("SELECT visits, version FROM page WHERE id = $1", &[&id])?;
///         let (visits, version): (i32, i32) = (page.get(0), page.get(1));
///         pages.update(client, &[("id", &id)], version, &[("visits", &(visits + 1))])
///     })
/// }
/// # }
/// ```
///
/// It makes 20 attempts at most, the first at once. After the first conflict the thread sleeps for 5
/// to 10 ms. Each further pause is twice as long, up to 200 to 400 ms. If every attempt conflicts, it
/// sleeps for 3 to 6 seconds in all. The pauses are random within these bounds, so that threads that
/// collided are unlikely to collide again.
///
/// The closure must do all of the work: read the row, decide, and save it. If it saves in a
/// transaction, it must begin that transaction too: under REPEATABLE READ and SERIALIZABLE a
/// conflict aborts it ([Transaction Isolation]).
///
/// # Errors
///
/// The last error: the first that is no conflict, or the conflict of the 20th attempt.
/// [`MayConflict`] tells which errors are conflicts.
///
/// [Transaction Isolation]: https://www.postgresql.org/docs/current/transaction-iso.html
pub fn retry<T, E: MayConflict>(save: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    retry_with(save, thread::sleep)
}

fn retry_with<T, E: MayConflict>(
    mut save: impl FnMut() -> Result<T, E>,
    mut sleep: impl FnMut(Duration),
) -> Result<T, E> {
    for pause in pauses() {
        match save() {
            Err(error) if error.is_conflict() => sleep(jittered(pause)),
            result => return result,
        }
    }
    save()
}

fn pauses() -> impl Iterator<Item = Duration> {
    let next = |pause: &Duration| Some(LONGEST_PAUSE.min(*pause * 2));
    iter::successors(Some(FIRST_PAUSE), next).take(ATTEMPTS - 1)
}

/// Makes a pause up to twice as long. Each hasher of a map has a random seed.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    pause + pause.mul_f64(random)
}

/// An error that knows whether it is a conflict: what the closure of [`retry`] returns.
///
/// [`optimistic::Error`](Error), [`pglock::Error`](crate::Error), `anyhow::Error` and `Box<dyn Error +
/// Send + Sync>` implement it. The last three look for a conflict among their sources too, and a
/// driver's serialization failure (SQLSTATE 40001) is one.
///
/// Implement it for an error of your own:
///
/// ```
/// use pglock::optimistic::{self, MayConflict};
///
/// #[derive(Debug, thiserror::Error)]
/// enum BookingError {
///     #[error("the seat is sold")]
///     Sold,
///     #[error(transparent)]
///     Save(#[from] optimistic::Error),
/// }
///
/// impl MayConflict for BookingError {
///     fn is_conflict(&self) -> bool {
///         matches!(self, Self::Save(error) if error.is_conflict())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether it is a conflict",
    note = "implement `pglock::optimistic::MayConflict` for an error of your own; `optimistic::Error`, `pglock::Error`, `anyhow::Error` and `Box<dyn Error + Send + Sync>` implement it"
)]
pub trait MayConflict {
    /// Returns whether somebody else was faster, so that doing the same work again may succeed.
    fn is_conflict(&self) -> bool;
}

impl MayConflict for Error {
    fn is_conflict(&self) -> bool {
        self.is_conflict()
    }
}

impl MayConflict for crate::Error {
    fn is_conflict(&self) -> bool {
        has_conflict(self)
    }
}

impl<E: AsRef<dyn StdError + Send + Sync>> MayConflict for E {
    fn is_conflict(&self) -> bool {
        has_conflict(self.as_ref())
    }
}

fn has_conflict(error: &(dyn StdError + 'static)) -> bool {
    iter::successors(Some(error), |&error| error.source()).any(is_conflict)
}

fn is_conflict(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.is_conflict();
    }
    match error.downcast_ref() {
        Some(crate::Error::Changed { .. }) => true,
        Some(crate::Error::Body(body)) => has_conflict(body.as_ref()), // not among the sources
        _ => is_serialization_failure(error),
    }
}

/// Whether a driver's error is a serialization failure.
fn is_serialization_failure(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.downcast_ref() {
        return super::postgres::is_serialization_failure(error);
    }
    #[cfg(feature = "diesel")]
    if let Some(error) = error.downcast_ref() {
        return super::diesel::is_serialization_failure(error);
    }
    let _ = error; // without a driver there is no such error
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(actual: i64) -> Error {
        Error::Conflict {
            table: "seat".to_owned(),
            expected: 1,
            actual,
        }
    }

    #[test]
    fn the_last_error_comes_after_twenty_attempts_and_growing_pauses() {
        let (mut attempts, mut slept) = (0, Vec::new());
        let save = || {
            attempts += 1;
            Err::<(), _>(conflict(attempts))
        };
        let result = retry_with(save, |pause| slept.push(pause));
        assert!(
            matches!(result, Err(Error::Conflict { actual: 20, .. })),
            "{result:?}"
        );
        assert_eq!(attempts, 20);
        let steps = [5, 10, 20, 40, 80, 160].into_iter().chain([200; 13]);
        assert_eq!(slept.len(), 19);
        for (slept, step) in slept.into_iter().zip(steps) {
            let step = Duration::from_millis(step);
            assert!(step <= slept && slept <= 2 * step, "{slept:?}");
        }
    }

    #[test]
    fn no_two_pauses_are_the_same() {
        let pauses: Vec<_> = (0..20).map(|_| jittered(LONGEST_PAUSE)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
    }

    #[test]
    fn success_and_other_errors_are_final() {
        let never = |_| panic!("slept");
        assert_eq!(retry_with(|| Ok::<_, Error>(7), never).unwrap(), 7);
        let table = || "seat".to_owned();
        let result = retry_with(|| Err::<(), _>(Error::NoKey { table: table() }), never);
        assert!(matches!(result, Err(Error::NoKey { .. })), "{result:?}");
    }
}
