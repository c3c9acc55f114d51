//! Questions to the server: queries of one text column, in one round trip on every driver.

use crate::driver::{Failure, Replies, Session, while_canceled};
use crate::sql;

/// What is in front of the rows, and between them, where they come as the text of an error.
const ROWS: &str = "rows ";
const ROW: char = '\x1e';

/// Runs a query whose only column is a text called `line`.
pub(crate) fn lines<S: Session>(session: &mut S, query: &str) -> Result<Vec<String>, Failure> {
    match S::REPLIES {
        Replies::Rows => session.query(query),
        Replies::Errors => from_error(session.send(&as_error(query))),
    }
}

/// The same after a failed statement behind a savepoint, which is left first. Says whether that
/// worked: without rows, the question was not answered.
pub(crate) fn lines_after_undo<S: Session>(
    session: &mut S,
    query: &str,
) -> (Result<(), Failure>, Vec<String>) {
    match S::REPLIES {
        Replies::Rows => {
            let both = [sql::undo(), sql::in_savepoint(query)].join("; ");
            match session.query(&both) {
                Ok(lines) => (Ok(()), lines),
                Err(_) => (undo(session), Vec::new()),
            }
        }
        Replies::Errors => {
            let undone = undo(session);
            if undone.is_err() {
                return (undone, Vec::new());
            }
            let told = session.send(&sql::in_savepoint(&as_error(query)));
            match told.is_ok() {
                true => (Ok(()), Vec::new()),
                false => (undo(session), from_error(told).unwrap_or_default()),
            }
        }
    }
}

/// Leaves the caller's transaction as it was before a failed statement behind a savepoint.
pub(crate) fn undo<S: Session>(session: &mut S) -> Result<(), Failure> {
    while_canceled(|| session.send(&sql::undo()))
}

fn as_error(query: &str) -> String {
    sql::raise_text(&format!(
        "(SELECT '{ROWS}' || string_agg(line, chr(30)) || chr(30) FROM ({query}) AS lines)"
    ))
}

/// The rows that an error says. No error is no rows.
pub(crate) fn from_error(told: Result<(), Failure>) -> Result<Vec<String>, Failure> {
    let Err(failure) = told else {
        return Ok(Vec::new());
    };
    let text = match &failure {
        Failure::Sql { source, .. } => source.to_string(),
        _ => return Err(failure),
    };
    let lines = text.split_once(&(crate::failure::mark() + ROWS));
    match lines.and_then(|(_, lines)| lines.rsplit_once(ROW)) {
        Some((lines, _)) => Ok(lines.split(ROW).map(str::to_owned).collect()),
        None => Err(failure),
    }
}
