//! Whether a server is only away: it restarts, it is not up yet, or the way to it is cut.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// How libpq's messages begin when it has read the connection string, and tries to connect. Others may
/// quote any part of it, passwords too.
const ATTEMPT: [&str; 5] = [
    "connection to server ",
    "could not translate host name ",
    "could not connect to server",
    "FATAL:",
    "timeout expired",
];

/// What a server says that will let sessions in later.
const LATER: [&str; 5] = [
    "starting up",
    "shutting down",
    "not yet accepting connections",
    "not accepting connections", // while it recovers
    "too many clients",
];

/// Whether a message of libpq's tells of an attempt to connect.
pub(crate) fn is_attempt(message: &str) -> bool {
    ATTEMPT.iter().any(|words| message.starts_with(words))
}

/// Whether a message, by which an attempt to connect has failed, may be another one later. libpq tells
/// no more than its text.
pub(crate) fn may_come_back(message: &str) -> bool {
    let refused = message.contains("FATAL:");
    is_attempt(message) && (!refused || LATER.iter().any(|later| message.contains(later)))
}

/// Whether a connection that was open is gone.
pub(crate) fn is_gone(connection: &mut PgConnection) -> bool {
    // Even an aborted transaction allows a message without a statement.
    let asked = connection.batch_execute("");
    matches!(
        asked,
        Err(DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_says_no_is_not_away() {
        for (message, away) in [
            (
                "connection to server at \"db\" (10.0.0.1), port 5432 failed: Connection refused",
                true,
            ),
            (
                "connection to server on socket \"/tmp/.s.PGSQL.5432\" failed: FATAL:  the \
                 database system is starting up",
                true,
            ),
            (
                "could not translate host name \"db\" to address: Name or service not known",
                true,
            ),
            (
                "connection to server at \"db\" (10.0.0.1), port 5432 failed: FATAL:  password \
                 authentication failed for user \"app\"",
                false,
            ),
            ("timeout expired", true),
            ("FATAL:  the database system is shutting down", true), // of an old libpq
            ("libpq: invalid connection option \"…\"", false),
        ] {
            assert_eq!(may_come_back(message), away, "{message}");
        }
    }
}
