//! The first row that nobody else has locked: the queue case.

use super::{Columns, TableName};

/// The first row among several that nobody else has locked, by `FOR UPDATE SKIP LOCKED`: for
/// workers that each take another job of a queue, or buyers who take any free seat ([The Locking
/// Clause]).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::FirstFree;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE job (id int, state text); INSERT INTO job VALUES (7, 'new')")?;
/// let jobs = FirstFree::new("job", "id").with("state", "new").order_by("id");
/// let done = jobs.run_in_transaction(&mut client, |tx, id| {
///     let id: i32 = id.parse()?;
///     tx.execute("UPDATE job SET state = 'done' WHERE id = $1", &[&id])?;
///     anyhow::Ok(id)
/// })?;
/// assert_eq!(done, Some(7));
/// # }
/// # Ok(())
/// # }
/// ```
///
/// Names and values are taken as in a [`Row`](super::Row).
///
/// [The Locking Clause]: https://www.postgresql.org/docs/current/sql-select.html#SQL-FOR-UPDATE-SHARE
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct FirstFree {
    pub(crate) table: TableName,
    pub(crate) id: String,
    pub(crate) columns: Columns,
    pub(crate) order: Vec<String>,
}

impl FirstFree {
    /// Any row of `table`. The column `id`, which is not NULL, tells which one it was.
    pub fn new(table: impl Into<TableName>, id: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            id: id.into(),
            columns: Columns::new(),
            order: Vec::new(),
        }
    }

    /// Only rows in which `column` has this value.
    #[allow(clippy::needless_pass_by_value)] // `42` reads better than `&42`
    pub fn with(mut self, column: impl Into<String>, value: impl ToString) -> Self {
        self.columns.push((column.into(), value.to_string()));
        self
    }

    /// Which row comes first: the lowest in this column, and in the next where several are given.
    /// By default it is any.
    pub fn order_by(mut self, column: impl Into<String>) -> Self {
        self.order.push(column.into());
        self
    }
}
