//! A connection through libpq, which knows the PG* variables, password and service files, and TLS.

use diesel::pg::PgConnection;
use diesel::sql_types::Text;
use diesel::{Connection, ConnectionError, RunQueryDsl, sql_query};

use crate::conninfo::{fault, misread};
use crate::exit::{Failure, UNAVAILABLE, USAGE, one_line};
use crate::reach::is_attempt;
use crate::wire::about_to_connect;

pub(crate) const NOT_UTF_8: &str = "the connection string (--url or DATABASE_URL) is not UTF-8; in a URI, write \
     other bytes as %XX";

/// Connects, and sends nothing else.
pub(crate) fn open(url: &str) -> Result<PgConnection, Failure> {
    match misread(url) {
        Some(fault) => Err(unreadable(fault)),
        None => establish(url).map_err(|error| refused(url, &error)),
    }
}

fn establish(url: &str) -> Result<PgConnection, ConnectionError> {
    about_to_connect();
    PgConnection::establish(url)
}

fn refused(url: &str, error: &ConnectionError) -> Failure {
    let message = one_line(&error.to_string());
    if is_attempt(&message) {
        return Failure::new(UNAVAILABLE, message);
    }
    if let Some(fault) = fault(url) {
        return unreadable(&fault);
    }
    let message = match message.split_once('"') {
        Some((words, _)) => {
            format!("{words}\"…\" (a value of the connection string or of libpq's environment)")
        }
        None => message,
    };
    Failure::new(UNAVAILABLE, format_args!("libpq: {message}"))
}

/// No server can change that.
fn unreadable(fault: &str) -> Failure {
    let place = "the connection string (--url or DATABASE_URL)";
    Failure::new(USAGE, format_args!("{place} cannot be read: {fault}"))
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

/// A text as the server has it, whether or not it is valid: in a SQL_ASCII database, or a name that was given
/// in a database of another encoding. `quote_literal` copies bytes, where other functions look for characters;
/// behind `encode`, all is ASCII.
pub(crate) fn raw(text: &str) -> String {
    let quoted = format!("encode(quote_literal(({text})::text)::bytea, 'escape')");
    let unquoted = format!("regexp_replace({quoted}, '^E?''|''$', '', 'g')");
    format!("decode(replace({unquoted}, '''''', ''''), 'escape')")
}

/// The same in UTF-8, where the server can convert whatever bytes there are: from encodings of one byte a
/// character that have every byte.
pub(crate) fn utf8(text: &str) -> String {
    let raw = raw(text);
    format!(
        "CASE WHEN getdatabaseencoding() ~ '^(LATIN[^3]|ISO_8859_5|KOI8|WIN866|WIN1256)' \
         THEN convert({raw}, getdatabaseencoding(), 'UTF8') ELSE {raw} END"
    )
}
