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
//! After a conflict only your code knows what its change means on the row as it is now: read the row
//! again, and decide again. [`retry`] runs a closure that does so.

use crate::sql;
use crate::target::TableName;

#[cfg(feature = "diesel")]
pub mod diesel;
mod error;
#[cfg(feature = "postgres")]
pub mod postgres;
mod retry;

pub use error::Error;
#[cfg(any(feature = "postgres", feature = "diesel"))]
use error::{check_next, refusal, saved};
pub use retry::{MayConflict, retry};

/// What a version can be: `i32` or `i64`.
pub trait Version: Copy + Into<i64> + TryFrom<i64> + sealed::Sealed {}

impl Version for i32 {}
impl Version for i64 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
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
