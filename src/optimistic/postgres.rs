//! Optimistic saves with the `postgres` crate.

use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use postgres::{Column, GenericClient, Statement};

use super::{Error, Version, check_next, refusal, saved};
use crate::escape::escaped;
use crate::sql;
use crate::targets::TableName;

/// Columns and their values. The values are parameters, as in the `postgres` crate.
pub type ColumnValues<'a> = [(&'a str, &'a (dyn ToSql + Sync))];

/// A table with a version column.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use postgres::{Client, NoTls};
/// use pglock::optimistic::{self, postgres::VersionedTable};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE seat (id int PRIMARY KEY, buyer text, version int NOT NULL DEFAULT 1); INSERT INTO seat VALUES (42)")?;
/// let seats = VersionedTable::new("seat", "version");
/// let read = 1;
/// let saved = seats.update(&mut client, &[("id", &42)], read, &[("buyer", &"ada")])?;
/// assert_eq!(saved, 2);
///
/// let stale = seats.update(&mut client, &[("id", &42)], read, &[("buyer", &"bob")]);
/// assert!(matches!(stale, Err(optimistic::Error::Conflict { expected: 1, actual: 2, .. })));
/// seats.delete(&mut client, &[("id", &42)], saved)?;
/// # Ok(())
/// # }
/// ```
///
/// Names are quoted: write them exactly as the catalogue does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct VersionedTable {
    table: TableName,
    column: String,
}

impl VersionedTable {
    /// Names a table, and the column that holds the versions of its rows.
    pub fn new(table: impl Into<TableName>, version_column: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            column: version_column.into(),
        }
    }

    /// Changes the row with this key if it still has this version, and returns the new version.
    ///
    /// The columns of `key` must identify one row. If they match several, none is changed. It takes
    /// two round trips, and a conflict two more.
    ///
    /// # Errors
    ///
    /// Any variant of [`Error`].
    pub fn update<V: Version>(
        &self,
        client: &mut impl GenericClient,
        key: &ColumnValues<'_>,
        version: V,
        changes: &ColumnValues<'_>,
    ) -> Result<V, Error> {
        let table = || self.table.to_string();
        if changes.is_empty() {
            return Err(Error::NoChanges { table: table() });
        }
        check_next(version, table)?;
        let columns = changes.iter().map(|(column, _)| *column);
        let sql = sql::update(&self.table, &self.column, &names(key), columns);
        let statement = self.prepare(client, &sql, key)?;
        let version = version.into();
        let next = version + 1;
        // No row of an `integer` column has a wider version, so what it would become is all one.
        let narrow = i32::try_from(next).unwrap_or(i32::MAX);
        let next: &(dyn ToSql + Sync) = match type_of(&statement) {
            Some(&Type::INT4) => {
                if let Ok(version) = i32::try_from(version) {
                    check_next(version, table)?;
                }
                &narrow
            }
            _ => &next,
        };
        let changes = changes.iter().map(|(_, value)| *value).chain([next]);
        let parameters = changes.chain(key.iter().map(|(_, value)| *value)).collect();
        let version = self.save(client, &statement, parameters, key, version)?;
        saved(version, table)
    }

    /// Deletes the row with this key if it still has this version.
    ///
    /// It takes as many round trips as [`update`](VersionedTable::update).
    ///
    /// # Errors
    ///
    /// The variants of [`Error`], except for [`Error::NoChanges`], [`Error::LastVersion`] and
    /// [`Error::UnusableVersion`].
    pub fn delete<V: Version>(
        &self,
        client: &mut impl GenericClient,
        key: &ColumnValues<'_>,
        version: V,
    ) -> Result<(), Error> {
        let sql = sql::delete(&self.table, &self.column, &names(key));
        let statement = self.prepare(client, &sql, key)?;
        let parameters = key.iter().map(|(_, value)| *value).collect();
        self.save(client, &statement, parameters, key, version.into())?;
        Ok(())
    }

    fn prepare(
        &self,
        client: &mut impl GenericClient,
        sql: &str,
        key: &ColumnValues<'_>,
    ) -> Result<Statement, Error> {
        let table = || self.table.to_string();
        if key.is_empty() {
            return Err(Error::NoKey { table: table() });
        }
        if sql.contains('\0') {
            return Err(Error::NulByte { table: table() });
        }
        let statement = client.prepare(sql)?;
        match type_of(&statement) {
            Some(&Type::INT4 | &Type::INT8) => Ok(statement),
            other => Err(Error::VersionType {
                table: table(),
                found: other.map_or_else(
                    || "no column".to_owned(),
                    |other| escaped(other.to_string()),
                ),
            }),
        }
    }

    /// Returns the version after the save; `None` is NULL.
    fn save(
        &self,
        client: &mut impl GenericClient,
        statement: &Statement,
        parameters: Vec<&(dyn ToSql + Sync)>,
        key: &ColumnValues<'_>,
        expected: i64,
    ) -> Result<Option<i64>, Error> {
        let mut parameters = parameters;
        let shown = expected.to_string();
        parameters.push(&shown);
        if let Some(row) = client.query(statement, &parameters)?.first() {
            return Ok(read(row)?);
        }
        let found = self.versions(client, key)?;
        Err(refusal(self.table.to_string(), expected, &found))
    }

    /// The versions of the rows with this key, of which it reads two at most.
    fn versions(
        &self,
        client: &mut impl GenericClient,
        key: &ColumnValues<'_>,
    ) -> Result<Vec<Option<i64>>, Error> {
        let sql = sql::version(&self.table, &self.column, &names(key));
        let parameters: Vec<_> = key.iter().map(|(_, value)| *value).collect();
        let rows = client.query(&sql, &parameters)?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }
}

fn names<'a>(columns: &ColumnValues<'a>) -> Vec<&'a str> {
    columns.iter().map(|(column, _)| *column).collect()
}

fn type_of(statement: &Statement) -> Option<&Type> {
    statement.columns().first().map(Column::type_)
}

fn read(row: &postgres::Row) -> Result<Option<i64>, postgres::Error> {
    if row.columns().first().map(Column::type_) == Some(&Type::INT4) {
        Ok(row.try_get::<_, Option<i32>>(0)?.map(i64::from))
    } else {
        row.try_get(0)
    }
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        if is_serialization_failure(&error) {
            Self::Serialization(error.into())
        } else {
            Self::Database(error.into())
        }
    }
}

fn is_serialization_failure(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}
