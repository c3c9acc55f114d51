//! diesel: `PgConnection`.

use diesel::RunQueryDsl;
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::{End, LockBackend, Session, TransactionBackend, end_session};
use crate::answer::{self, Answers, BoxError, Failure};
use crate::error::Error;

type Manager = AnsiTransactionManager;

impl LockBackend for PgConnection {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl TransactionBackend for PgConnection {}

impl Session for PgConnection {
    type Transaction<'t> = Self;

    const ANSWERS: Answers = Answers::Errors;

    fn in_transaction(&mut self) -> bool {
        depth(self) > 0
    }

    fn is_broken(&mut self) -> bool {
        Manager::is_broken_transaction_manager(self)
    }

    fn send(&mut self, sql: &str) -> Result<(), Failure> {
        self.batch_execute(sql).map_err(failure)
    }

    fn query(&mut self, sql: &str) -> Result<Vec<String>, Failure> {
        let lines = diesel::sql_query(sql).load::<Line>(self).map_err(failure)?;
        Ok(lines.into_iter().filter_map(|line| line.line).collect())
    }

    fn transact<R>(
        &mut self,
        lock: &str,
        commit: &str,
        body: impl FnOnce(&mut Self) -> (R, End),
    ) -> Result<(R, Result<(), Failure>), Failure> {
        let outer = depth(self);
        let begun = match outer {
            0 => Manager::begin_transaction_sql(self, &format!("{lock}; BEGIN")),
            _ => Manager::begin_transaction(self),
        };
        begun.map_err(failure)?;
        let open = RollbackOnDrop {
            connection: self,
            outer,
        };
        let (result, end) = body(open.connection);
        let ended = match end {
            End::Rollback => Ok(()),
            // diesel notices by itself that the COMMIT in the batch has ended its transaction.
            End::Commit if outer == 0 => open.connection.batch_execute(commit),
            End::Commit => Manager::commit_transaction(open.connection),
        };
        Ok((result, ended.map_err(failure)))
    }

    fn end(&mut self) {
        end_session(self);
        Manager::transaction_manager_status_mut(self).set_in_error();
    }
}

#[derive(diesel::QueryableByName)]
struct Line {
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    line: Option<String>,
}

/// diesel's own transactions stay open when a body panics.
struct RollbackOnDrop<'c> {
    connection: &'c mut PgConnection,
    outer: u32,
}

impl Drop for RollbackOnDrop<'_> {
    fn drop(&mut self) {
        while depth(self.connection) > self.outer {
            if Manager::rollback_transaction(self.connection).is_err() {
                break;
            }
        }
    }
}

fn depth(connection: &mut PgConnection) -> u32 {
    match Manager::transaction_manager_status_mut(connection).transaction_depth() {
        Ok(Some(depth)) => depth.get(),
        Ok(None) | Err(_) => 0,
    }
}

fn failure(error: DieselError) -> Failure {
    match error {
        DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _,
        ) => Failure::Lost(error.into()),
        // libpq's own texts, unlike the server's, end with a newline, and tell of a lost connection.
        // diesel does not see that if a last notice, as of a crash, was read after a failed write.
        DieselError::DatabaseError(_, ref server) if server.message().ends_with('\n') => {
            Failure::Lost(error.into())
        }
        // What every transaction on it is told, once the rollback of one has failed.
        DieselError::BrokenTransactionManager => Failure::Lost(error.into()),
        DieselError::DatabaseError(ref kind, ref server) => {
            let message = server.message().to_owned();
            let sqlstate = match kind {
                DatabaseErrorKind::SerializationFailure => Some(answer::SERIALIZATION_FAILURE),
                _ => interrupted(&message),
            };
            Failure::from_error(sqlstate, &message, error)
        }
        _ => Failure::from_error(None, "", error),
    }
}

/// A cancel that hits before or after the block which would carry its SQLSTATE leaves only a text,
/// in the server's language: where that is another one, it stays an unknown error. A lock timeout
/// can come after the block if a cancel came in it.
fn interrupted(message: &str) -> Option<&'static str> {
    match message.strip_prefix("canceling statement due to ")? {
        "user request" | "statement timeout" => Some(answer::CANCELED),
        "lock timeout" => Some(answer::TIMEOUT),
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

/// For bodies that return diesel's error: ours travels in it, and `From` in the other direction
/// takes it out again.
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

    fn told(text: &str) -> Failure {
        let text = Box::new(text.to_owned());
        failure(DieselError::DatabaseError(DatabaseErrorKind::Unknown, text))
    }

    /// Chance decides whether a cancel meets the block: only the soak provokes this for real.
    #[test]
    fn an_interrupt_outside_the_block_is_told() {
        for (reason, expected) in [
            ("user request", answer::CANCELED),
            ("statement timeout", answer::CANCELED),
            ("lock timeout", answer::TIMEOUT),
        ] {
            let failure = told(&format!("canceling statement due to {reason}"));
            let Failure::Sql { sqlstate, .. } = &failure else {
                panic!("{failure:?}")
            };
            assert_eq!(sqlstate.as_deref(), Some(expected), "{reason}");
        }
    }

    #[test]
    fn the_last_words_of_libpq_are_a_lost_connection() {
        let lost = told("server closed the connection unexpectedly\n");
        assert!(matches!(lost, Failure::Lost(_)), "{lost:?}");
    }
}
