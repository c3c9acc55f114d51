//! Work that is repeated after a conflict, whatever the type of its errors.

use std::fmt::Debug;

use pglock::driver::BoxError;
use pglock::optimistic::Error;
use pglock::{RetryPolicy, Retryable, retry};

use crate::driver::{Driver, House, INT};

#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error("the seat is sold")]
    Sold,
    #[error(transparent)]
    Save(#[from] Error),
}

impl Retryable for OwnError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Save(error) if error.is_retryable())
    }
}

/// Somebody else saves between the first attempt's read and its save.
fn assert_second_attempt<D: Driver, E: Retryable<Kind> + Debug, Kind>(
    begin: &str,
    convert: impl Fn(Error) -> E,
) {
    let house = House::new(INT);
    let (mut conn, mut other) = (D::open(&house), D::open(&house));
    let mut attempts = 0;
    let saved = retry(&RetryPolicy::new(), || {
        attempts += 1;
        conn.run(begin).unwrap();
        let (visits, version) = conn.read(1);
        if attempts == 1 {
            other.save_visits(1, version, 7).unwrap();
        }
        let saved = conn.save_visits(1, version, visits + 1);
        let end = if saved.is_ok() { "COMMIT" } else { "ROLLBACK" };
        conn.run(end).unwrap();
        saved.map_err(&convert)
    });
    assert_eq!(saved.unwrap(), 3);
    assert_eq!(attempts, 2);
    assert_eq!(house.rows()[0], "(1,,8,3)");
}

pub fn a_conflict_is_tried_again_in_every_error_type<D: Driver>() {
    let begin = "BEGIN";
    assert_second_attempt::<D, _, _>(begin, |error| error);
    assert_second_attempt::<D, _, _>(begin, OwnError::from);
    assert_second_attempt::<D, _, _>(begin, BoxError::from);
    assert_second_attempt::<D, _, _>(begin, pglock::Error::from);
    assert_second_attempt::<D, _, _>(begin, diesel::result::Error::from);
    assert_second_attempt::<D, _, _>(begin, |error| {
        BoxError::from(pglock::Error::from(diesel::result::Error::from(error)))
    });
    assert_second_attempt::<D, _, _>(begin, |error| {
        anyhow::Error::from(std::io::Error::other(error))
    });
    assert_second_attempt::<D, _, _>(begin, |error| {
        anyhow::Error::from(error).context("cannot count the visit")
    });
    assert_second_attempt::<D, _, _>(begin, |error| {
        anyhow::Error::from(pglock::Error::from(error)).context("cannot count the visit")
    });
}

pub fn a_serialization_failure_is_tried_again<D: Driver>() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        assert_second_attempt::<D, _, _>(&begin, |error| error);
        assert_second_attempt::<D, _, _>(&begin, anyhow::Error::from);
        let of_the_driver = |error| match error {
            Error::Serialization(source) => source,
            error => panic!("{error:?}"),
        };
        assert_second_attempt::<D, _, _>(&begin, of_the_driver);
    }
}

fn assert_one_attempt<E: Retryable<Kind> + Debug, Kind>(
    mut work: impl FnMut() -> Result<i32, E>,
) -> E {
    let mut attempts = 0;
    let result = retry(&RetryPolicy::new(), || {
        attempts += 1;
        work()
    });
    assert_eq!(attempts, 1, "{result:?}");
    result.unwrap_err()
}

pub fn what_is_no_conflict_is_not_tried_again<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    let error = assert_one_attempt(|| conn.save(4, 1, "ada"));
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    let error = assert_one_attempt(|| {
        conn.run("SELECT 1 / 0")?;
        anyhow::Ok(0)
    });
    assert!(error.is::<Error>(), "{error:?}");
    let error = assert_one_attempt(|| Err::<i32, _>(OwnError::Sold));
    assert!(matches!(error, OwnError::Sold), "{error:?}");
    house.before_each_row("BEGIN RETURN NULL; END");
    let error = assert_one_attempt(|| conn.save(1, 1, "ada"));
    assert!(matches!(error, Error::Suppressed { .. }), "{error:?}");
}
