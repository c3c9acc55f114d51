//! What comes back from the `postgres` crate: rows, and errors.

use postgres::error::{DbError, ErrorPosition, Severity, SqlState};
use postgres::{GenericClient, SimpleQueryMessage};

use crate::error::Error;
use crate::failure::{DEADLOCK, Failure, SERIALIZATION_FAILURE, TIMEOUT};

pub(super) fn message(
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

/// Removes the replies to the first and the last statements, which are pglock's own.
pub(crate) fn without_ours(
    mut messages: Vec<SimpleQueryMessage>,
    (before, after): (usize, usize),
) -> Vec<SimpleQueryMessage> {
    let ends = messages.iter().enumerate();
    let ends =
        ends.filter(|(_, message)| matches!(message, SimpleQueryMessage::CommandComplete(_)));
    let ends: Vec<_> = ends.map(|(index, _)| index + 1).collect();
    let Some(last) = ends.len().checked_sub(after + 1) else {
        return Vec::new();
    };
    messages.truncate(ends[last]);
    messages.drain(..ends[before - 1]);
    messages
}

/// The statement of a block that failed, as it ran or when it was parsed.
fn context(server: &DbError) -> String {
    let parsed = match server.position() {
        Some(ErrorPosition::Internal { query, .. }) => query,
        _ => "",
    };
    [server.where_().unwrap_or_default(), parsed].concat()
}

pub(super) fn failure(error: postgres::Error) -> Failure {
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
