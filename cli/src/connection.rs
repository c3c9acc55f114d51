//! A connection by libpq, which knows the PG* variables, password and service files, and TLS.

use diesel::pg::PgConnection;
use diesel::sql_types::{Integer, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, sql_query};

use crate::exit::{Failure, UNAVAILABLE};

pub(crate) struct Connected {
    pub(crate) connection: PgConnection,
    /// The server's process of this session.
    pub(crate) pid: i32,
}

#[derive(QueryableByName)]
struct Process {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

/// Connects, and sends nothing of pglock's.
pub(crate) fn open(url: &str) -> Result<PgConnection, Failure> {
    PgConnection::establish(url).map_err(|error| Failure::of(UNAVAILABLE, &error))
}

/// Connects; an empty text is libpq's own defaults. The session is shown as `application` unless the
/// user has set a name.
pub(crate) fn connect(url: &str, application: &str) -> Result<Connected, Failure> {
    let mut connection = open(url)?;
    let introduce = sql_query(
        "SELECT pg_backend_pid() AS pid, CASE current_setting('application_name') \
         WHEN '' THEN set_config('application_name', $1, false) END",
    );
    let Process { pid } = introduce
        .bind::<Text, _>(application)
        .get_result(&mut connection)
        .map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    Ok(Connected { connection, pid })
}

/// Cancels what a session of ours does, from beside it.
pub(crate) fn cancel(url: &str, pid: i32) {
    if let Ok(mut beside) = connect(url, "pglock") {
        let _ = sql_query("SELECT pg_cancel_backend($1)")
            .bind::<Integer, _>(pid)
            .execute(&mut beside.connection);
    }
}
