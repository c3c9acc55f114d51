//! Questions to the server: queries of one text column, in one round trip on every driver.

use crate::driver::{Failure, Replies, Session, until_answered, while_canceled};
use crate::sql;

/// What stands before the rows, and after each of them, when they come as the text of an error.
const ROWS: &str = "rows ";
const ROW: char = '\x1e';

/// Runs a query whose only column is a text called `line`. `first` is a statement without rows that
/// goes before it, or empty.
pub(crate) fn lines<S: Session>(
    session: &mut S,
    first: &str,
    query: &str,
) -> Result<Vec<String>, Failure> {
    match S::REPLIES {
        Replies::Rows => session.query(&[first, query].concat()),
        Replies::Errors => from_error(session.send(&[first, &as_error(query)].concat())),
    }
}

/// Asks a yes-or-no question until there is an answer: a cancel or a timeout that hits it is none.
pub(crate) fn whether<S: Session>(session: &mut S, query: &str) -> Result<bool, Failure> {
    until_answered(|| match lines(session, "", query)?.first() {
        Some(line) => Ok(line == "true"),
        None => Err(Failure::from_error(
            None,
            "",
            "the server's reply has no row",
        )),
    })
}

/// The same as [`lines`] after a statement has failed behind a savepoint: rolls back to the savepoint first.
/// Returns whether that worked, and the rows; there are none if the question was not answered.
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
            let reply = session.send(&sql::in_savepoint(&as_error(query)));
            match reply.is_ok() {
                true => (Ok(()), Vec::new()),
                false => (undo(session), from_error(reply).unwrap_or_default()),
            }
        }
    }
}

/// Restores the caller's transaction to what it was before a statement failed behind a savepoint.
pub(crate) fn undo<S: Session>(session: &mut S) -> Result<(), Failure> {
    while_canceled(|| session.send(&sql::undo()))
}

fn as_error(query: &str) -> String {
    sql::raise_text(&format!(
        "(SELECT '{ROWS}' || string_agg(line, chr(30)) || chr(30) FROM ({query}) AS lines)"
    ))
}

/// Reads the rows from an error's text. Without an error there are none.
pub(crate) fn from_error(reply: Result<(), Failure>) -> Result<Vec<String>, Failure> {
    let Err(failure) = reply else {
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
