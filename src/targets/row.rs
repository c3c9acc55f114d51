//! A row, by the values of its columns.

use super::table::TableName;

/// Columns and their values.
pub(crate) type Columns = Vec<(String, String)>;

/// A row of a table, locked by `SELECT … FOR UPDATE`: for the transaction, against everybody who
/// writes the row or locks it, whether they use pglock or not ([Row-Level Locks]).
///
/// In shared mode it is `FOR SHARE`: others may share it, and nobody may write it. Plain reads are
/// never kept out.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use std::time::Duration;
/// use pglock::{Lock, Row};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE seat (id int, buyer text); INSERT INTO seat VALUES (42)")?;
/// let sold = Lock::new(&mut client, Row::new("seat", "id", 42))
///     .timeout(Duration::from_secs(2))
///     .run_in_transaction(|tx| {
///         tx.execute("UPDATE seat SET buyer = 'ada' WHERE id = 42 AND buyer IS NULL", &[])
///             .map_err(pglock::Error::from)
///     })?;
/// assert_eq!(sold, 1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// A row lock ends with its transaction, so the forms that could outlive one do not compile:
///
/// ```compile_fail,E0277
/// # fn sell(client: &mut postgres::Client) -> Result<(), pglock::Error> {
/// pglock::Lock::new(client, pglock::Row::new("seat", "id", 42)).run(|conn| Ok(()))
/// # }
/// ```
///
/// # What it finds
///
/// Names are quoted, and taken exactly as they are given. A value is given as its text
/// (`to_string`), which the server reads as the column's type; it is never NULL. All rows that
/// match are locked, in no particular order: name the columns of a key to lock one. A row that does
/// not exist, or that was deleted during the wait, is
/// [`Error::NoSuchRow`](crate::Error::NoSuchRow).
///
/// # Waiting
///
/// A session waits for its place in the row's queue, then for the row, and for each shared holder
/// in turn; [`lock_timeout`], and so the lock's timeout, bounds each of these waits.
///
/// # Under REPEATABLE READ and SERIALIZABLE
///
/// A row that has changed since the transaction's snapshot is
/// [`Error::Changed`](crate::Error::Changed), so what it says is never stale. *Other* rows are read
/// from the snapshot: where the row stands for more than itself, stay with READ COMMITTED.
///
/// [Row-Level Locks]: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-ROWS
/// [`lock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Row {
    pub(crate) table: TableName,
    pub(crate) columns: Columns,
    pub(crate) no_key_update: bool,
}

impl Row {
    /// The row of `table` in which `column` has this value.
    pub fn new(
        table: impl Into<TableName>,
        column: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        let row = Self {
            table: table.into(),
            columns: Columns::new(),
            no_key_update: false,
        };
        row.and(column, value)
    }

    /// One more column that must have a value, for keys of several columns.
    #[allow(clippy::needless_pass_by_value)] // `42` reads better than `&42`
    pub fn and(mut self, column: impl Into<String>, value: impl ToString) -> Self {
        self.columns.push((column.into(), value.to_string()));
        self
    }

    /// `FOR NO KEY UPDATE`: lets rows be inserted that refer to this one by a foreign key. For
    /// sections that do not delete the row, and do not change its key. Shared mode stays
    /// `FOR SHARE`. Defaults to `FOR UPDATE`.
    pub fn no_key_update(mut self) -> Self {
        self.no_key_update = true;
        self
    }
}
