//! A whole table, and the modes of its lock.

use std::fmt;

use super::TableName;

/// A table, locked by [`LOCK TABLE`] for the transaction, with the tables that inherit from it.
///
/// Exclusive is [`TableMode::Exclusive`], which keeps writers and row locks out and lets readers
/// go on, and shared is [`TableMode::Share`]; [`in_mode`](Table::in_mode) names any other.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Table, TableMode, with_transaction_lock};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE seat (id int)")?;
/// let seats = Table::new("seat").in_mode(TableMode::ShareRowExclusive);
/// with_transaction_lock(&mut client, seats, |tx| {
///     tx.execute("DELETE FROM seat WHERE id > 100", &[])
///         .map_err(pglock::Error::from)
/// })?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// A timeout bounds the wait for each table. If the table is partitioned or has children, it bounds
/// the wait for each part.
///
/// As with a [`Row`](super::Row), only the transaction forms exist. A transaction above READ
/// COMMITTED is refused with [`Error::StaleSnapshot`](crate::Error::StaleSnapshot), as it is for a
/// key.
///
/// [`LOCK TABLE`]: https://www.postgresql.org/docs/current/sql-lock.html
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Table {
    pub(crate) name: TableName,
    pub(crate) mode: Option<TableMode>,
}

impl Table {
    /// A table by its name.
    pub fn new(name: impl Into<TableName>) -> Self {
        Self {
            name: name.into(),
            mode: None,
        }
    }

    /// Sets the mode, and overrides the lock's own. Defaults to what exclusive and shared mean for
    /// a table.
    pub fn in_mode(mut self, mode: TableMode) -> Self {
        self.mode = Some(mode);
        self
    }
}

/// PostgreSQL's [table-level lock modes], the weakest first.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Table, TableMode, with_transaction_lock};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE account AS SELECT 7::bigint AS balance")?;
/// // Nobody writes while the two sums are read, and everybody reads. Others may hold it too.
/// let accounts = Table::new("account").in_mode(TableMode::Share);
/// let sums = with_transaction_lock(&mut client, accounts, |tx| {
///     let sum = "SELECT sum(balance)::bigint FROM account";
///     let (first, second) = (tx.query_one(sum, &[])?, tx.query_one(sum, &[])?);
///     Ok::<_, pglock::Error>((first.get::<_, i64>(0), second.get::<_, i64>(0)))
/// })?;
/// assert_eq!(sums.0, sums.1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// [table-level lock modes]: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableMode {
    /// What a SELECT takes: conflicts with `AccessExclusive` alone.
    AccessShare,
    /// What a row lock takes: conflicts with `Exclusive` and `AccessExclusive`.
    RowShare,
    /// What a write takes: conflicts with `Share` and all that are stronger.
    RowExclusive,
    /// Keeps out changes of the schema, and itself.
    ShareUpdateExclusive,
    /// Keeps out writers; others may hold it too.
    Share,
    /// Keeps out writers and itself; row locks go on.
    ShareRowExclusive,
    /// Keeps out writers and row locks; reads go on.
    Exclusive,
    /// Keeps out everybody.
    AccessExclusive,
}

impl TableMode {
    /// Whether two sessions cannot hold it at the same time: what PostgreSQL calls self-conflicting.
    pub(crate) fn is_self_conflicting(self) -> bool {
        match self {
            Self::AccessShare | Self::RowShare | Self::RowExclusive | Self::Share => false,
            Self::ShareUpdateExclusive
            | Self::ShareRowExclusive
            | Self::Exclusive
            | Self::AccessExclusive => true,
        }
    }
}

/// As SQL writes it.
impl fmt::Display for TableMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        })
    }
}
