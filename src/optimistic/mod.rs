//! Optimistic saves: they lock nothing, and fail if somebody else has saved the row first.
//!
//! The row has a version column, and each save raises the version. Read the row with its version,
//! work on it for as long as you like, and save it. The save changes the row only if it still has
//! the version that you read:
//!
//! ```sql
//! UPDATE seat SET buyer = 'ada', version = version + 1
//!  WHERE id = 42 AND version = 7 RETURNING version
//! ```
//!
//! Nobody waits while somebody works. This is for work that takes long or spans several requests,
//! on rows for which conflicts are rare: a conflict shows at the end, and the work must be done
//! again.
//!
//! - A save never inserts a row. It raises the version even if it changes only some columns.
//! - A delete checks the version too.
//! - A save returns the new version. A save that fails returns none: the version in memory stays
//!   the old one, and saving again conflicts again.
//! - Of two saves at once, the second waits until the transaction of the first has ended, and then
//!   checks the version again ([Read Committed]).
//!
//! With the `postgres` crate, use [`VersionedTable`](postgres/struct.VersionedTable.html). With diesel, give
//! what `diesel::update` would take a version, by [`AtVersion`](diesel/trait.AtVersion.html):
//!
//! ```
//! # #[cfg(feature = "diesel")] {
//! use diesel::prelude::*;
//! use pglock::optimistic::{self, diesel::AtVersion};
//! use pglock::{RetryPolicy, retry};
//!
//! diesel::table! {
//!     item {
//!         id -> Integer,
//!         count -> Integer,
//!         version -> Integer,
//!     }
//! }
//!
//! fn take_one(conn: &mut PgConnection) -> Result<i32, optimistic::Error> {
//!     let row = item::table.find(42);
//!     let (count, version): (i32, i32) = row.select((item::count, item::version)).first(conn)?;
//!     row.at_version(item::version, version).update(conn, item::count.eq(count - 1))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let conn = &mut PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
//! # diesel::sql_query("CREATE TEMP TABLE item AS SELECT 42 AS id, 3 AS count, 1 AS version").execute(conn)?;
//! // Reads again and decides again, if somebody was faster.
//! let version = retry(&RetryPolicy::default(), || take_one(conn))?;
//! assert_eq!(version, 2);
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! # The column
//!
//! Declare it `integer NOT NULL DEFAULT 1`, or `bigint`. Programs that do not know the column
//! overwrite the row and do not raise its version, unless a trigger does: see [`trigger_sql`].
//!
//! # Trying again
//!
//! After a conflict, only your code knows what your change means for the row as it is now. Read the
//! row again, and decide again: [`retry`](crate::retry) runs a closure that does both.
//!
//! [Read Committed]: https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED

use crate::sql;
use crate::targets::TableName;

#[cfg(feature = "diesel")]
pub mod diesel;
mod error;
#[cfg(feature = "postgres")]
pub mod postgres;

pub use error::Error;
#[cfg(any(feature = "postgres", feature = "diesel"))]
use error::{check_next, refusal, saved};

/// The type of a version: `i32` or `i64`.
pub trait Version: Copy + Into<i64> + TryFrom<i64> + sealed::Sealed {}

impl Version for i32 {}
impl Version for i64 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// Returns the SQL of a trigger that raises the version at each update, whoever updates the row.
/// Use it for tables to which other programs write. Put it into a migration; it can run again.
///
/// The saves of this module stay as they are, and still raise the version by one. The trigger and
/// its function are named `pglock_bump_` and the column; if that has more than 63 bytes, it is cut,
/// and ends with a hash of the column ([Trigger Functions]).
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
