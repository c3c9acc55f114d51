//! What diesel's errors say, and the conversions between them and pglock's.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::error::Error;
use crate::failure::{self, Failure};

pub(super) fn failure(connection: &mut PgConnection, error: DieselError) -> Failure {
    match is_lost(connection, &error) {
        true => Failure::Lost(error.into()),
        false => of_error(error),
    }
}

/// diesel goes by the SQLSTATE, which a foreign server's error can have, and any trigger's; and it does
/// not show the severity. So it is asked once more: on a lost connection the next message fails too.
///
/// libpq's own texts, unlike most of the server's, end with a newline. diesel misses that they tell of a
/// lost connection if it read a last notice, such as of a crash, after a failed write.
fn is_lost(connection: &mut PgConnection, error: &DieselError) -> bool {
    let is_libpqs =
        matches!(error, DieselError::DatabaseError(_, server) if server.message().ends_with('\n'));
    match error {
        DieselError::BrokenTransactionManager => true, // once the rollback of a transaction has failed
        error if says_lost(error) || is_libpqs => {
            let again = connection.batch_execute("");
            again.is_err_and(|error| says_lost(&error))
        }
        _ => false,
    }
}

fn says_lost(error: &DieselError) -> bool {
    matches!(
        error,
        DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _,
        )
    )
}

fn of_error(error: DieselError) -> Failure {
    match error {
        DieselError::DatabaseError(ref kind, ref server) => {
            let message = server.message().to_owned();
            let sqlstate = match kind {
                DatabaseErrorKind::SerializationFailure => Some(failure::SERIALIZATION_FAILURE),
                _ => interrupted(&message),
            };
            Failure::from_error(sqlstate, &message, error)
        }
        _ => Failure::from_error(None, "", error),
    }
}

/// Whether somebody else was in the way of a statement.
pub(crate) fn is_in_the_way(error: &DieselError) -> bool {
    let DieselError::DatabaseError(kind, server) = error else {
        return false;
    };
    let state = interrupted(server.message());
    matches!(kind, DatabaseErrorKind::SerializationFailure)
        || matches!(state, Some(failure::DEADLOCK | failure::TIMEOUT))
        || server.message().starts_with("could not obtain lock on ")
}

/// What fails outside a block, which would carry its SQLSTATE, leaves only a text in the server's language:
/// a cancel that hits before or after it, and everything in an aborted transaction. If that is not English, it stays an unknown error. A lock timeout can come
/// after the block if a cancel came in it.
fn interrupted(message: &str) -> Option<&'static str> {
    const ABORTED: &str =
        "current transaction is aborted, commands ignored until end of transaction block";
    match message {
        "deadlock detected" => return Some(failure::DEADLOCK),
        "out of shared memory" => return Some(failure::OUT_OF_MEMORY),
        ABORTED => return Some(failure::IN_FAILED_TRANSACTION),
        _ => {}
    }
    match message.strip_prefix("canceling statement due to ")? {
        "user request" | "statement timeout" => Some(failure::CANCELED),
        "lock timeout" => Some(failure::TIMEOUT),
        _ => None,
    }
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::QueryBuilderError(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(inner) => Self::body(DieselError::QueryBuilderError(inner)),
            },
            error => Self::body(error),
        }
    }
}

/// For bodies that return diesel's error: it carries ours, and `From` in the other direction takes
/// ours out again.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use diesel::{Connection, PgConnection, QueryResult, RunQueryDsl};
/// use pglock::{Error, Lock};
///
/// # let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
/// let sold: QueryResult<usize> = Lock::new(&mut conn, "doc:diesel-error")
///     .timeout(Duration::from_secs(2))
///     .run(|conn| diesel::sql_query("SELECT 'sell'").execute(conn));
/// match sold.map_err(Error::from) {
///     Ok(_) => println!("sold"),
///     Err(busy @ Error::Timeout { .. }) => println!("please try again: {busy}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
impl From<Error> for DieselError {
    fn from(error: Error) -> Self {
        match error {
            Error::Body(inner) => match inner.downcast::<DieselError>() {
                Ok(diesel) => *diesel,
                Err(inner) => DieselError::QueryBuilderError(inner),
            },
            error => DieselError::QueryBuilderError(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(text: &str) -> Failure {
        let text = Box::new(text.to_owned());
        of_error(DieselError::DatabaseError(DatabaseErrorKind::Unknown, text))
    }

    /// Chance decides whether a cancel meets the block: only the soak provokes this for real.
    #[test]
    fn an_interrupt_outside_the_block_is_recognised() {
        for (reason, expected) in [
            ("user request", failure::CANCELED),
            ("statement timeout", failure::CANCELED),
            ("lock timeout", failure::TIMEOUT),
        ] {
            let failure = failure_of(&format!("canceling statement due to {reason}"));
            let Failure::Sql { sqlstate, .. } = &failure else {
                panic!("{failure:?}")
            };
            assert_eq!(sqlstate.as_deref(), Some(expected), "{reason}");
        }
    }
}
