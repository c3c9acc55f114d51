//! The `postgres` crate: `Client` and `Transaction`.

use std::time::Duration;

use postgres::error::{DbError, ErrorPosition, Severity, SqlState};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, GenericClient, SimpleQueryMessage, Transaction};

use crate::driver::{BoxError, Failure, Finish, LockBackend, Opening, Session, Transacted, insist};
use crate::error::Error;
use crate::failure::{DEADLOCK, SERIALIZATION_FAILURE, TIMEOUT};

mod transaction;

impl LockBackend for Client {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl Session for Client {
    type Transaction<'t> = Transaction<'t>;

    fn in_transaction(&mut self) -> bool {
        false
    }

    fn is_broken(&mut self) -> bool {
        self.is_closed()
    }

    fn hung_up(&mut self) -> Option<BoxError> {
        // The driver reads only while it waits.
        let moment = Duration::from_millis(1);
        if let Err(error) = self.notifications().timeout_iter(moment).count() {
            return Some(error.into());
        }
        self.is_closed().then(|| "the connection was closed".into())
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        message(self, statements, question)
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        let mut transaction = self.transaction().map_err(failure)?;
        let (result, finish) = body(&mut transaction);
        let committed = match finish {
            Finish::Commit => opening.commit(&mut transaction),
            Finish::Rollback | Finish::Leave => Ok(()),
        };
        if finish == Finish::Leave || finish == Finish::Commit && committed.is_ok() {
            std::mem::forget(transaction); // it would send a ROLLBACK
            return Ok(Transacted {
                result,
                ended: committed,
            });
        }
        let undone = transaction.rollback().map_err(failure);
        // A cancel can hit the driver's own ROLLBACK, which then leaves an aborted transaction behind.
        let undone = undone.or_else(|_| insist(|| self.send("ROLLBACK")));
        Ok(Transacted {
            result,
            ended: committed.and(undone),
        })
    }
}

fn message(
    client: &mut impl GenericClient,
    statements: &str,
    question: &str,
) -> Result<Vec<String>, Failure> {
    let messages = messages(client, &[statements, question].concat())?;
    let texts = messages.iter().filter_map(|message| match message {
        // A row of the caller's statements may have no column, or one that is not UTF-8.
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    });
    Ok(texts.collect())
}

/// Returns all messages of the reply. A reply that completes no statement belongs to another message:
/// the server has ended an earlier reply twice.
pub(crate) fn messages(
    client: &mut impl GenericClient,
    sql: &str,
) -> Result<Vec<SimpleQueryMessage>, Failure> {
    let messages = client.simple_query(sql).map_err(failure)?;
    let is_complete =
        |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::CommandComplete(_));
    match messages.iter().any(is_complete) {
        true => Ok(messages),
        false => Err(Failure::from_error(
            None,
            "",
            "the server's reply completes no statement",
        )),
    }
}

/// The statement of a block that failed, as it ran or when it was parsed.
fn context(server: &DbError) -> String {
    let parsed = match server.position() {
        Some(ErrorPosition::Internal { query, .. }) => query,
        _ => "",
    };
    [server.where_().unwrap_or_default(), parsed].concat()
}

fn failure(error: postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(server) if ends_session(server) => Failure::Lost(error.into()),
        Some(server) => {
            let (sqlstate, message) = (server.code().clone(), server.message().to_owned());
            let context = context(server);
            Failure::from_error(Some(sqlstate.code()), &message, error).in_context(&context)
        }
        None => Failure::Lost(error.into()),
    }
}

/// A pooler's own errors have no severity in the form that every language shares.
fn ends_session(server: &DbError) -> bool {
    match server.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(server.severity(), "FATAL" | "PANIC"),
    }
}

/// Whether somebody else was in the way of a statement.
pub(crate) fn is_in_the_way(error: &postgres::Error) -> bool {
    let state = error.code().map(SqlState::code);
    matches!(state, Some(SERIALIZATION_FAILURE | DEADLOCK | TIMEOUT))
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        Self::body(error)
    }
}
