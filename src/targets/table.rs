//! A whole table, and the modes of its lock.

use std::fmt;

use super::mode::TableMode;

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

/// The name of a table, exactly as the catalogue has it: it is quoted, so dots, upper case and
/// quotes stand for themselves.
///
/// A text is one identifier, looked up along the [`search_path`]; a pair is a schema and a table in
/// it.
///
/// ```
/// use pglock::TableName;
///
/// assert_eq!(TableName::from("seat").to_string(), "\"seat\"");
/// assert_eq!(TableName::from(("app", "seat")).to_string(), "\"app\".\"seat\"");
/// assert_ne!(TableName::from("app.seat"), TableName::from(("app", "seat")));
/// ```
///
/// [`search_path`]: https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) table: String,
}

impl TableName {
    pub(crate) fn has_nul(&self) -> bool {
        let mut names = self.schema.iter().chain([&self.table]);
        names.any(|name| name.contains('\0'))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema:?}.")?;
        }
        write!(f, "{:?}", self.table)
    }
}

impl From<String> for TableName {
    fn from(table: String) -> Self {
        Self {
            schema: None,
            table,
        }
    }
}

impl From<&str> for TableName {
    fn from(table: &str) -> Self {
        Self::from(table.to_owned())
    }
}

impl<S: Into<String>, T: Into<String>> From<(S, T)> for TableName {
    fn from((schema, table): (S, T)) -> Self {
        Self {
            schema: Some(schema.into()),
            table: table.into(),
        }
    }
}
