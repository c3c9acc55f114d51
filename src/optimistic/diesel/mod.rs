//! Optimistic saves with diesel.

use diesel::RunQueryDsl;
use diesel::dsl::sql;
use diesel::expression::Expression;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AsChangeset, IntoUpdateTarget, QueryFragment};
use diesel::query_source::{Column, Table};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Integer, Nullable, Text};

use self::statement::{Kind, Statement};
use super::{Error, Version, check_next, refusal, saved};

mod statement;

/// Adds `at_version` to what `diesel::update` and `diesel::delete` take: a table with a filter, or a
/// reference to an `Identifiable`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use diesel::prelude::*;
/// use pglock::optimistic::{self, diesel::AtVersion};
///
/// diesel::table! {
///     seat {
///         id -> Integer,
///         buyer -> Nullable<Text>,
///         version -> Integer,
///     }
/// }
///
/// # let conn = &mut PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
/// # diesel::sql_query("CREATE TEMP TABLE seat (id int PRIMARY KEY, buyer text, version int NOT NULL DEFAULT 1)").execute(conn)?;
/// # diesel::insert_into(seat::table).values((seat::id.eq(42), seat::version.eq(1))).execute(conn)?;
/// let read = seat::table.find(42).at_version(seat::version, 1);
/// let saved: i32 = read.update(conn, seat::buyer.eq("ada"))?;
/// assert_eq!(saved, 2);
///
/// let stale = seat::table.find(42).at_version(seat::version, 1).delete(conn);
/// assert!(matches!(stale, Err(optimistic::Error::Conflict { expected: 1, actual: 2, .. })));
/// seat::table.find(42).at_version(seat::version, saved).delete(conn)?;
/// # Ok(())
/// # }
/// ```
///
/// A version column is `Integer` or `BigInt`; anything else does not compile.
pub trait AtVersion: IntoUpdateTarget + Sized {
    /// Names the row, and the version at which it was read. The filter must identify one row: if it
    /// matches several, none is changed.
    fn at_version<C: VersionColumn<Table = Self::Table>>(
        self,
        column: C,
        version: C::Number,
    ) -> RowAtVersion<Self::Table, Self::WhereClause, C> {
        let target = self.into_update_target();
        RowAtVersion {
            table: target.table,
            filter: target.where_clause,
            _column: column,
            expected: version,
        }
    }
}

impl<T: IntoUpdateTarget> AtVersion for T {}

/// A column that can hold versions: of type `Integer` or `BigInt`.
///
/// ```
/// # fn main() {
/// use pglock::optimistic::diesel::VersionColumn;
///
/// diesel::table! {
///     seat {
///         id -> Integer,
///         version -> BigInt,
///     }
/// }
///
/// /// For code that works on several tables.
/// fn read_as<C: VersionColumn>(_column: C, version: C::Number) -> String {
///     format!("{} at {}", C::NAME, version.into())
/// }
/// assert_eq!(read_as(seat::version, 7_i64), "version at 7");
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a version column",
    note = "a version column is `Integer` or `BigInt`, and not `Nullable`"
)]
pub trait VersionColumn: Column {
    /// `i32` or `i64`.
    type Number: Version;
}

impl<C> VersionColumn for C
where
    C: Column + Expression,
    C::SqlType: VersionSqlType,
{
    type Number = <C::SqlType as VersionSqlType>::Number;
}

/// A type of diesel's that a version column can have: `Integer` or `BigInt`.
pub trait VersionSqlType {
    /// `i32` or `i64`.
    type Number: Version;
}

impl VersionSqlType for Integer {
    type Number = i32;
}

impl VersionSqlType for BigInt {
    type Number = i64;
}

/// A row, and the version at which it was read: see [`AtVersion`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use diesel::dsl::Find;
/// use diesel::prelude::*;
/// use pglock::optimistic::diesel::{AtVersion, RowAtVersion};
///
/// diesel::table! {
///     seat {
///         id -> Integer,
///         buyer -> Nullable<Text>,
///         version -> Integer,
///     }
/// }
///
/// # let conn = &mut PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
/// # diesel::sql_query("CREATE TEMP TABLE seat (id int PRIMARY KEY, buyer text, version int NOT NULL DEFAULT 1)").execute(conn)?;
/// # diesel::insert_into(seat::table).values((seat::id.eq(42), seat::version.eq(1))).execute(conn)?;
/// type Seat = <Find<seat::table, i32> as diesel::query_builder::IntoUpdateTarget>::WhereClause;
///
/// /// The seat as a form showed it: nobody sells it who looked at another version.
/// fn shown(id: i32, version: i32) -> RowAtVersion<seat::table, Seat, seat::version> {
///     seat::table.find(id).at_version(seat::version, version)
/// }
///
/// let version = shown(42, 1).update(conn, seat::buyer.eq("ada"))?;
/// assert!(shown(42, 1).update(conn, seat::buyer.eq("bob")).is_err());
/// shown(42, version).delete(conn)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is saved before update or delete"]
#[derive(Debug)]
pub struct RowAtVersion<T, W, C: VersionColumn> {
    table: T,
    filter: W,
    _column: C,
    expected: C::Number,
}

impl<T, W, C> RowAtVersion<T, W, C>
where
    T: Table,
    T::FromClause: QueryFragment<Pg>,
    W: QueryFragment<Pg>,
    C: VersionColumn<Table = T>,
{
    /// Changes the row if it still has the version, and returns the new version.
    ///
    /// The changes are what `diesel::update(…).set` takes. It takes one round trip, and a conflict
    /// one more.
    ///
    /// # Errors
    ///
    /// Any variant of [`Error`] but [`Error::NulByte`]. [`Error::VersionType`] says that the table has
    /// another type than its schema here; in a transaction, that is an [`Error::Database`].
    pub fn update<V>(self, conn: &mut PgConnection, changes: V) -> Result<C::Number, Error>
    where
        V: AsChangeset<Target = T>,
        V::Changeset: QueryFragment<Pg>,
    {
        let changes = changes.as_changeset();
        if changes.is_noop(&Pg)? {
            let table = self.table_name();
            return Err(Error::NoChanges { table });
        }
        check_next(self.expected, || self.table_name())?;
        self.check_width(conn)?;
        let version = self.save(conn, Kind::Update(&changes))?;
        saved(version, || self.table_name())
    }

    /// Deletes the row if it still has the version.
    ///
    /// It takes as many round trips as [`update`](RowAtVersion::update).
    ///
    /// # Errors
    ///
    /// Those of [`update`](RowAtVersion::update), except for [`Error::NoChanges`],
    /// [`Error::LastVersion`] and [`Error::UnusableVersion`].
    pub fn delete(self, conn: &mut PgConnection) -> Result<(), Error> {
        self.save(conn, Kind::<()>::Delete)?;
        Ok(())
    }

    /// What the schema calls `BigInt` may be an `integer` in the table. At its last version the
    /// server would refuse the next one with an SQLSTATE, which diesel does not show.
    fn check_width(&self, conn: &mut PgConnection) -> Result<(), Error> {
        const BYTES_OF_AN_INTEGER: i64 = 4;
        let version = self.expected.into();
        if version != i64::from(i32::MAX) {
            return Ok(());
        }
        match *self.run(conn, Kind::<()>::Width, None)? {
            [Some(BYTES_OF_AN_INTEGER), ..] => check_next(i32::MAX, || self.table_name()),
            _ => Ok(()),
        }
    }

    /// Returns the version after the save; `None` is NULL.
    fn save<V: QueryFragment<Pg>>(
        &self,
        conn: &mut PgConnection,
        kind: Kind<'_, V>,
    ) -> Result<Option<i64>, Error> {
        let expected = self.expected.into();
        let saved = self.run(conn, kind, Some(expected));
        if let [version, ..] = *saved.map_err(|error| self.explained(conn, error))? {
            return Ok(version);
        }
        // A statement of its own: a save that waited for another writer still has the snapshot
        // from before its wait.
        let found = self.run(conn, Kind::<()>::Version, None)?;
        Err(refusal(self.table_name(), expected, &found))
    }

    fn run<V: QueryFragment<Pg>>(
        &self,
        conn: &mut PgConnection,
        kind: Kind<'_, V>,
        expected: Option<i64>,
    ) -> Result<Vec<Option<i64>>, Error> {
        if self.filter.is_noop(&Pg)? {
            let table = self.table_name();
            return Err(Error::NoKey { table });
        }
        let statement = Statement {
            kind,
            from: &self.table.from_clause(),
            filter: &self.filter,
            column: C::NAME,
            expected,
        };
        Ok(statement.load(conn)?)
    }

    /// Whether an error comes from a column that is not what the schema says. In a transaction, which
    /// the error has aborted, nobody can tell.
    fn explained(&self, conn: &mut PgConnection, error: Error) -> Error {
        let table = self.table_name();
        let found = sql::<Nullable<Text>>(
            "(SELECT typname::text FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid \
             WHERE typcategory <> 'N' AND NOT attisdropped AND attrelid = to_regclass(",
        );
        let found = found.bind::<Text, _>(&table).sql(") AND attname = ");
        let found = found.bind::<Text, _>(C::NAME).sql(")");
        match (&error, diesel::select(found).get_result(conn)) {
            (Error::Database(_), Ok(Some(found))) => Error::VersionType { table, found },
            _ => error,
        }
    }

    fn table_name(&self) -> String {
        let sql = diesel::debug_query::<Pg, _>(&self.table.from_clause()).to_string();
        sql.split(" -- binds").next().unwrap_or_default().to_owned()
    }
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        if is_serialization_failure(&error) {
            return Self::Serialization(error.into());
        }
        match error {
            DieselError::QueryBuilderError(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(inner) => Self::Database(DieselError::QueryBuilderError(inner).into()),
            },
            error => Self::Database(error.into()),
        }
    }
}

/// For bodies that return diesel's error: it carries ours, and `From` in the other direction takes ours out again.
/// [`retry`](crate::retry) finds a conflict in it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use diesel::prelude::*;
/// use pglock::optimistic::{Error, diesel::AtVersion};
///
/// diesel::table! {
///     seat {
///         id -> Integer,
///         buyer -> Nullable<Text>,
///         version -> Integer,
///     }
/// }
///
/// fn sell(conn: &mut PgConnection) -> QueryResult<i32> {
///     let read = seat::table.find(42).at_version(seat::version, 1);
///     Ok(read.update(conn, seat::buyer.eq("ada"))?)
/// }
///
/// # let conn = &mut PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
/// # diesel::sql_query("CREATE TEMP TABLE seat (id int PRIMARY KEY, buyer text, version int NOT NULL)").execute(conn)?;
/// assert!(matches!(sell(conn).map_err(Error::from), Err(Error::NotFound { .. })));
/// # Ok(())
/// # }
/// ```
impl From<Error> for DieselError {
    fn from(error: Error) -> Self {
        match error {
            Error::Serialization(source) | Error::Database(source) if source.is::<Self>() => {
                *source.downcast().expect("it is one")
            }
            error => Self::QueryBuilderError(Box::new(error)),
        }
    }
}

fn is_serialization_failure(error: &DieselError) -> bool {
    let DieselError::DatabaseError(kind, _) = error else {
        return false;
    };
    matches!(kind, DatabaseErrorKind::SerializationFailure)
}
