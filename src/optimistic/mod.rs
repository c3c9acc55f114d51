//! Versions: no lock at all, but a save that notices when somebody else has been faster.
//!
//! A row has a version column, which every save raises. A row is read with its version, worked on
//! for as long as it takes, and saved only if it still has that version:
//!
//! ```sql
//! UPDATE seat SET buyer = 'ada', version = version + 1
//!  WHERE id = 42 AND version = 7 RETURNING version
//! ```
//!
//! Nobody waits while somebody thinks, so this is for work that spans requests or a person's coffee
//! break, and for rows that are seldom contended: a conflict is found at the end, and the work is
//! to be done again.
//!
//! - The row is never inserted, and a save that changes a few columns raises the version too.
//! - A delete is checked in the same way.
//! - The new version is what a save returns. A save that failed returns none, so what is in memory
//!   still conflicts when it is saved again.
//!
//! With the `postgres` crate it is `postgres::Versioned`, with diesel the method `at_version` of
//! `diesel::AtVersion`.
//!
//! # The column
//!
//! `integer NOT NULL DEFAULT 1`, or `bigint`. Programs that do not know of it overwrite without
//! raising it, unless the table does that by itself: see [`trigger_sql`].
//!
//! # Trying again
//!
//! A conflict is solved by whoever knows what the change means: read the row again, and decide
//! again. The [backon] crate does the waiting:
//!
//! ```
//! # #[cfg(feature = "postgres")] {
//! use backon::{BlockingRetryable, ExponentialBuilder};
//! use pglock::optimistic::{self, postgres::Versioned};
//! use postgres::Client;
//!
//! fn count_visit(client: &mut Client, id: i64) -> Result<i32, optimistic::Error> {
//!     let pages = Versioned::new("page", "version");
//!     let save = || {
//!         let page = client.query_one("SELECT visits, version FROM page WHERE id = $1", &[&id])?;
//!         let (visits, version): (i32, i32) = (page.get(0), page.get(1));
//!         pages.update(client, &[("id", &id)], version, &[("visits", &(visits + 1))])
//!     };
//!     save.retry(ExponentialBuilder::default().with_jitter())
//!         .when(optimistic::Error::is_conflict)
//!         .call()
//! }
//! # }
//! ```
//!
//! [backon]: https://docs.rs/backon

use crate::failure::BoxError;
use crate::sql;
use crate::targets::TableName;

#[cfg(feature = "diesel")]
pub mod diesel;
#[cfg(feature = "postgres")]
pub mod postgres;

/// Why a row was not saved. It is as it was, after any of them but [`Error::UnusableVersion`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The row has another version than the one that was read.
    #[error(
        "a row of {table} was read at version {expected}, and is at version {actual} now: somebody else has saved it; read it again"
    )]
    Conflict {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        expected: i64,
        /// The version that the row had just after the save was refused.
        actual: i64,
    },

    /// The row was not saved, although it still has the version that was read: a trigger that
    /// returns NULL, or a row security policy, suppressed the save. Trying again does not help.
    ///
    /// In the rare case that the row was deleted and inserted again while the save ran, it looks
    /// the same.
    #[error(
        "a row of {table} was not saved, although it still is at version {version}: a trigger that returns NULL or a row security policy suppressed the save; look at both (\\d in psql lists them)"
    )]
    Suppressed {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read, and that the row still has.
        version: i64,
    },

    /// The transaction is REPEATABLE READ or SERIALIZABLE, and the row was saved by somebody else
    /// since its snapshot (SQLSTATE 40001).
    #[error("a row was saved by somebody else since this transaction began; run all of it again")]
    Serialization(#[source] BoxError),

    /// There is no such row, or there is none any more.
    #[error("there is no such row of {table} to save at version {expected}")]
    NotFound {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        expected: i64,
    },

    /// The row has no version, and was not saved: its column is NULL.
    #[error(
        "a row of {table} was not saved, for its version is NULL; give it one, and declare the column NOT NULL"
    )]
    NullVersion {
        /// The table, as SQL names it.
        table: String,
    },

    /// The row was saved, but the next save cannot name its new version: a trigger has set it to
    /// NULL, or to a number that the type of the version that was read cannot hold.
    #[error("a row of {table} was saved, but {}", unusable(*.version))]
    UnusableVersion {
        /// The table, as SQL names it.
        table: String,
        /// The version that the row has now; `None` is NULL.
        version: Option<i64>,
    },

    /// The version column is neither `integer` nor `bigint`.
    #[error("a version column of type {found}, in {table}: it must be integer or bigint")]
    VersionType {
        /// The table, as SQL names it.
        table: String,
        /// The column's type.
        found: String,
    },

    /// The version is the highest that its type holds: that of the column, or that of the version
    /// that was read.
    #[error(
        "version {version}, in {table}, is the last that its type can hold; use bigint and i64"
    )]
    LastVersion {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        version: i64,
    },

    /// There is nothing to change.
    #[error("a save of {table} without a change: give it at least one column")]
    NoChanges {
        /// The table, as SQL names it.
        table: String,
    },

    /// There is no column to find the row by: every row would be saved.
    #[error("a save of {table} without a key: give it at least one column to find the row by")]
    NoKey {
        /// The table, as SQL names it.
        table: String,
    },

    /// A name has a NUL byte, which none in PostgreSQL can have. Nothing was sent.
    #[error("a name in a save of {table} contains a NUL byte")]
    NulByte {
        /// The table, as SQL names it.
        table: String,
    },

    /// Any other error of the server or the driver, which is the source. If the connection was lost,
    /// it is not known whether the row was saved.
    #[error("a statement of an optimistic save failed")]
    Database(#[source] BoxError),
}

impl Error {
    /// Whether somebody else was faster, so that reading the row again and deciding again may
    /// succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Serialization(_))
    }
}

fn unusable(version: Option<i64>) -> String {
    match version {
        None => "a trigger has set its version to NULL; declare the column NOT NULL".to_owned(),
        Some(version) => format!(
            "a trigger has set its version to {version}, which is too large for the type of the version that was read; use bigint and i64"
        ),
    }
}

/// So that a save can stand in the body of a lock.
impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::body(error)
    }
}

/// What a version can be: `i32` or `i64`.
pub trait Version: Copy + Into<i64> + TryFrom<i64> + sealed::Sealed {}

impl Version for i32 {}
impl Version for i64 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// Why a save has changed no row, by the version that the row has just after it.
#[cfg(any(feature = "postgres", feature = "diesel"))]
fn refusal(table: String, expected: i64, found: Option<Option<i64>>) -> Error {
    match found {
        None => Error::NotFound { table, expected },
        Some(None) => Error::NullVersion { table },
        Some(Some(version)) if version == expected => Error::Suppressed { table, version },
        Some(Some(actual)) => Error::Conflict {
            table,
            expected,
            actual,
        },
    }
}

/// Refuses a version that has no next one, before anything is sent.
#[cfg(any(feature = "postgres", feature = "diesel"))]
fn check_next<V: Version>(version: V, table: impl FnOnce() -> String) -> Result<(), Error> {
    let version = version.into();
    let next = version.checked_add(1).map(V::try_from);
    if !matches!(next, Some(Ok(_))) {
        let table = table();
        return Err(Error::LastVersion { table, version });
    }
    Ok(())
}

/// The version that a save has returned.
#[cfg(any(feature = "postgres", feature = "diesel"))]
fn saved<V: Version>(version: Option<i64>, table: impl FnOnce() -> String) -> Result<V, Error> {
    let usable = version.and_then(|version| V::try_from(version).ok());
    usable.ok_or_else(|| Error::UnusableVersion {
        table: table(),
        version,
    })
}

/// SQL that makes a table raise its version by itself, whoever updates it: for tables to which
/// other programs write. Put it into a migration; it can run again.
///
/// The saves of this module go on as they are, and raise the version once. The trigger and its
/// function are called `pglock_bump_` and the column's name; a name that would have more than 63
/// bytes ends with a hash of the column's instead ([Trigger Functions]).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE SCHEMA doc_trigger; CREATE TABLE doc_trigger.seat (id int, version int NOT NULL DEFAULT 1)")?;
/// client.batch_execute(&pglock::optimistic::trigger_sql(("doc_trigger", "seat"), "version"))?;
/// # client.batch_execute("DROP SCHEMA doc_trigger CASCADE")?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// [Trigger Functions]: https://www.postgresql.org/docs/current/plpgsql-trigger.html
#[must_use]
pub fn trigger_sql(table: impl Into<TableName>, version_column: &str) -> String {
    sql::trigger(&table.into(), version_column)
}
