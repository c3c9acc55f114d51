//! The first row that nobody else has locked: the queue case.

use super::row::Columns;
use super::table::TableName;

/// The first row among several that nobody else has locked, by `FOR NO KEY UPDATE SKIP LOCKED`: for
/// workers that each take another job of a queue, or buyers who take any free seat ([The Locking
/// Clause]). [`up_to`](FirstFree::up_to) takes several at once.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::FirstFree;
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE job (id bigint, state text, run_at timestamptz); INSERT INTO job VALUES (7, 'new', now())")?;
/// let jobs = FirstFree::new("job", "id")
///     .with("state", "new")
///     .filter("run_at <= now()")
///     .order_by("run_at");
/// let done = jobs.run_in_transaction(&mut client, |tx, id: i64| {
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
/// # Rows that others refer to
///
/// A row to which somebody else just inserts a reference, by a foreign key, is free. And while it is
/// locked, such rows can be inserted: by others, and by the body on another connection. A body that
/// deletes its row, or changes its key, waits for those who refer to it; with
/// [`for_update`](FirstFree::for_update), rows that are referred to are passed over instead, and
/// nobody can refer to the row that is locked.
///
/// [The Locking Clause]: https://www.postgresql.org/docs/current/sql-select.html#SQL-FOR-UPDATE-SHARE
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct FirstFree {
    pub(crate) table: TableName,
    pub(crate) id: String,
    pub(crate) columns: Columns,
    pub(crate) filters: Vec<String>,
    pub(crate) order: Vec<Order>,
    pub(crate) for_update: bool,
    /// How many rows are taken at most.
    pub(crate) limit: u32,
}

/// The first rows among several that nobody else has locked: see [`FirstFree::up_to`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct FirstFreeRows(pub(crate) FirstFree);

/// A column that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    pub(crate) column: String,
    pub(crate) descending: bool,
}

impl FirstFree {
    /// Any row of `table`. The column `id`, which is not NULL, tells which one it is.
    pub fn new(table: impl Into<TableName>, id: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            id: id.into(),
            columns: Columns::new(),
            filters: Vec::new(),
            order: Vec::new(),
            for_update: false,
            limit: 1,
        }
    }

    /// Only rows in which `column` has this value.
    #[allow(clippy::needless_pass_by_value)] // `42` reads better than `&42`
    pub fn with(mut self, column: impl Into<String>, value: impl ToString) -> Self {
        self.columns.push((column.into(), value.to_string()));
        self
    }

    /// Only rows for which this condition holds, in SQL: `filter("run_at <= now()")`. Conditions
    /// are put in parentheses and joined with AND.
    ///
    /// It is sent as it is. Never build one from somebody else's input: for a value, use
    /// [`with`](FirstFree::with).
    pub fn filter(mut self, condition: impl Into<String>) -> Self {
        self.filters.push(condition.into());
        self
    }

    /// Sorts by this column, lowest first, and then by the next if several are given. NULL comes
    /// last. By default any row may come first.
    pub fn order_by(self, column: impl Into<String>) -> Self {
        self.order(column.into(), false)
    }

    /// The same, with the highest first. NULL comes before all others, as in any `ORDER BY … DESC`.
    pub fn order_by_desc(self, column: impl Into<String>) -> Self {
        self.order(column.into(), true)
    }

    /// `FOR UPDATE`, for bodies that delete the row or change its key: passes over rows that others
    /// refer to at this moment, and keeps references out until the transaction ends. Defaults to
    /// `FOR NO KEY UPDATE`.
    pub fn for_update(mut self) -> Self {
        self.for_update = true;
        self
    }

    /// Takes up to so many rows at once, in one transaction: for workers whose jobs are short. The
    /// body gets their ids, of which there is at least one, in the order that was asked for.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::FirstFree;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// # client.batch_execute("CREATE TEMP TABLE mail (id bigint, sent bool); INSERT INTO mail VALUES (7, false), (8, false)")?;
    /// let mails = FirstFree::new("mail", "id").with("sent", false).order_by("id").up_to(50);
    /// let sent = mails.run_in_transaction(&mut client, |tx, ids: Vec<i64>| {
    ///     tx.execute("UPDATE mail SET sent = true WHERE id = ANY ($1)", &[&ids])?;
    ///     anyhow::Ok(ids.len())
    /// })?;
    /// assert_eq!(sent, Some(2));
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If the body fails, all of them are given back, with what it wrote.
    pub fn up_to(mut self, rows: u32) -> FirstFreeRows {
        self.limit = rows;
        FirstFreeRows(self)
    }

    fn order(mut self, column: String, descending: bool) -> Self {
        self.order.push(Order { column, descending });
        self
    }
}
