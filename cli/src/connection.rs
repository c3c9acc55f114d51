//! A connection through libpq, which knows the PG* variables, password and service files, and TLS.

use diesel::pg::PgConnection;
use diesel::sql_types::Text;
use diesel::{Connection, RunQueryDsl, sql_query};

use crate::exit::{Failure, UNAVAILABLE};

/// Connects, and sends nothing else.
pub(crate) fn open(url: &str) -> Result<PgConnection, Failure> {
    PgConnection::establish(url).map_err(|error| Failure::of(UNAVAILABLE, &error))
}

/// Connects; an empty URL means libpq's own defaults. The session is shown as `application` unless the
/// user has set a name.
pub(crate) fn connect(url: &str, application: &str) -> Result<PgConnection, Failure> {
    let mut connection = open(url)?;
    let introduce = sql_query(
        "SELECT CASE current_setting('application_name') \
         WHEN '' THEN set_config('application_name', $1, false) END",
    );
    introduce
        .bind::<Text, _>(application)
        .execute(&mut connection)
        .map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    Ok(connection)
}
