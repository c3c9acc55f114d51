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
/// use pglock::optimistic::{self, postgres::Versioned};
/// use postgres::Client;
///
/// fn count_visit(client: &mut Client, id: i64) -> Result<i32, optimistic::Error> {
///     let pages = Versioned::new("page", "version");
///     optimistic::retry(|| {
///         let page = client.query_one("SELECT visits, version FROM page WHERE id = $1", &[&id])?;
///         let (visits, version): (i32, i32) = (page.get(0), page.get(1));
///         pages.update(client, &[("id", &id)], version, &[("visits", &(visits + 1))])
///     })
/// }
/// # }
/// ```
///
/// The first attempt starts at once, and there are 20 at most. After the first conflict the thread
/// sleeps for 5 to 10 ms, and twice as long after each further one, but never for more than 200 to
/// 400 ms: for some 4 seconds in all, if every attempt conflicts. Each pause is random within its
/// bounds, so that two threads that met do not meet again.
///
/// The closure must do the whole work again: read the row, decide, and save it. If it saves in a
/// transaction, it must begin the transaction too. Under REPEATABLE READ and SERIALIZABLE a conflict
/// aborts the transaction ([Transaction Isolation]).
///
/// # Errors
///
/// The error of the last attempt: a conflict if all 20 conflicted, else the first error that is no
/// conflict ([`MayConflict`] decides).
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

/// Up to twice as long. The hasher of a map has a random seed, which is all the randomness needed.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    pause + pause.mul_f64(random)
}

/// An error that can be a conflict: what the closure of [`retry`] returns.
///
/// These are: [`optimistic::Error`](Error), [`pglock::Error`](crate::Error), `anyhow::Error`,
/// `Box<dyn Error + Send + Sync>`, and whatever else converts by reference to `dyn Error + Send +
/// Sync`. Of these, each looks for a conflict among its sources too; a serialization failure
/// (SQLSTATE 40001) of a driver counts.
///
/// An error of your own says it itself:
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
    note = "implement `pglock::optimistic::MayConflict` for an error of your own; `optimistic::Error`, `pglock::Error`, `anyhow::Error` and `Box<dyn Error + Send + Sync>` have it"
)]
pub trait MayConflict {
    /// Whether somebody else was faster, so that the same work may succeed when it is done again.
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
        Some(crate::Error::Body(body)) => has_conflict(body.as_ref()), // it is not among the sources
        _ => is_serialization_failure(error),
    }
}

/// Of a driver.
fn is_serialization_failure(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.downcast_ref() {
        return super::postgres::is_serialization_failure(error);
    }
    #[cfg(feature = "diesel")]
    if let Some(error) = error.downcast_ref() {
        return super::diesel::is_serialization_failure(error);
    }
    let _ = error; // without a driver there is none
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
