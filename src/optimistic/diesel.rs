//! Versions with diesel.

use diesel::RunQueryDsl;
use diesel::expression::Expression;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{
    AsChangeset, AstPass, IntoUpdateTarget, Query, QueryFragment, QueryId,
};
use diesel::query_source::{Column, Table};
use diesel::result::{DatabaseErrorKind, Error as DieselError, QueryResult};
use diesel::sql_types::{BigInt, Integer, Nullable};

use super::{Error, Version, check_next, refusal, saved};

/// `at_version`, for whatever `diesel::update` and `diesel::delete` take: a table with filters, or
/// a reference to an `Identifiable`.
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
    /// The row as it was read, at a version. The target must name one row, by its key.
    fn at_version<C>(
        self,
        column: C,
        version: C::Number,
    ) -> Versioned<Self::Table, Self::WhereClause, C>
    where
        C: VersionColumn<Table = Self::Table>,
    {
        let target = self.into_update_target();
        Versioned {
            table: target.table,
            filter: target.where_clause,
            _column: column,
            expected: version,
        }
    }
}

impl<T: IntoUpdateTarget> AtVersion for T {}

/// A column that can hold versions.
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
    C::SqlType: VersionType,
{
    type Number = <C::SqlType as VersionType>::Number;
}

/// The SQL types of versions.
pub trait VersionType {
    /// `i32` or `i64`.
    type Number: Version;
}

impl VersionType for Integer {
    type Number = i32;
}

impl VersionType for BigInt {
    type Number = i64;
}

/// A row as it was read, at a version: see [`AtVersion`].
#[must_use = "nothing is saved before update or delete"]
#[derive(Debug)]
pub struct Versioned<T, W, C: VersionColumn> {
    table: T,
    filter: W,
    _column: C,
    expected: C::Number,
}

impl<T, W, C> Versioned<T, W, C>
where
    T: Table,
    T::FromClause: QueryFragment<Pg>,
    W: QueryFragment<Pg>,
    C: VersionColumn<Table = T>,
{
    /// Changes the row, if it still has the version. The changes are what `diesel::update(…).set`
    /// takes. Returns the new version.
    ///
    /// One round trip, as long as its statement is prepared; two more on a conflict.
    ///
    /// # Errors
    ///
    /// Each variant of [`Error`]; nothing has been written then.
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
        let version = self.save(conn, Verb::Update(&changes))?;
        saved(version, || self.table_name())
    }

    /// Deletes the row, if it still has the version.
    ///
    /// # Errors
    ///
    /// As [`update`](Versioned::update), but for [`Error::NoChanges`].
    pub fn delete(self, conn: &mut PgConnection) -> Result<(), Error> {
        self.save(conn, Verb::<()>::Delete)?;
        Ok(())
    }

    /// A `BigInt` of the schema may be an `integer` of the table. Without an SQLSTATE, which diesel
    /// does not show, the server's error would say so in words only.
    fn check_width(&self, conn: &mut PgConnection) -> Result<(), Error> {
        const BYTES_OF_AN_INTEGER: i64 = 4;
        let version = self.expected.into();
        if version != i64::from(i32::MAX) {
            return Ok(());
        }
        match self.run(conn, Verb::<()>::Width, None)? {
            Some(Some(BYTES_OF_AN_INTEGER)) => check_next(i32::MAX, || self.table_name()),
            _ => Ok(()),
        }
    }

    /// The version that the row has afterwards; `None` is NULL.
    fn save<V: QueryFragment<Pg>>(
        &self,
        conn: &mut PgConnection,
        verb: Verb<'_, V>,
    ) -> Result<Option<i64>, Error> {
        let expected = self.expected.into();
        if let Some(version) = self.run(conn, verb, Some(expected))? {
            return Ok(version);
        }
        // A statement of its own: one that has waited for another writer still has the snapshot
        // from before.
        let found = self.run(conn, Verb::<()>::Version, None)?;
        Err(refusal(self.table_name(), expected, found))
    }

    fn run<V: QueryFragment<Pg>>(
        &self,
        conn: &mut PgConnection,
        verb: Verb<'_, V>,
        expected: Option<i64>,
    ) -> Result<Option<Option<i64>>, Error> {
        if self.filter.is_noop(&Pg)? {
            let table = self.table_name();
            return Err(Error::NoKey { table });
        }
        let statement = Statement {
            verb,
            from: &self.table.from_clause(),
            filter: &self.filter,
            column: C::NAME,
            expected,
        };
        Ok(statement.load(conn)?.into_iter().next())
    }

    fn table_name(&self) -> String {
        let sql = diesel::debug_query::<Pg, _>(&self.table.from_clause()).to_string();
        sql.split(" -- binds").next().unwrap_or_default().to_owned()
    }
}

#[derive(Clone, Copy)]
enum Verb<'a, V> {
    Update(&'a V),
    Delete,
    Version,
    Width,
}

struct Statement<'a, F, W, V> {
    verb: Verb<'a, V>,
    from: &'a F,
    filter: &'a W,
    column: &'static str,
    expected: Option<i64>,
}

impl<F, W, V> QueryFragment<Pg> for Statement<'_, F, W, V>
where
    F: QueryFragment<Pg>,
    W: QueryFragment<Pg>,
    V: QueryFragment<Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        match self.verb {
            Verb::Update(changes) => {
                out.push_sql("UPDATE ");
                self.from.walk_ast(out.reborrow())?;
                out.push_sql(" SET ");
                changes.walk_ast(out.reborrow())?;
                out.push_sql(", ");
                out.push_identifier(self.column)?;
                out.push_sql(" = ");
                out.push_identifier(self.column)?;
                out.push_sql(" + 1");
            }
            Verb::Delete => {
                out.push_sql("DELETE FROM ");
                self.from.walk_ast(out.reborrow())?;
            }
            Verb::Version | Verb::Width => {
                let width = matches!(self.verb, Verb::Width);
                out.push_sql("SELECT ");
                out.push_sql(if width { "pg_column_size(" } else { "(" });
                out.push_identifier(self.column)?;
                out.push_sql(")::bigint FROM ");
                self.from.walk_ast(out.reborrow())?;
            }
        }
        let Some(expected) = &self.expected else {
            return self.filter.walk_ast(out);
        };
        out.push_sql(" WHERE ");
        out.push_identifier(self.column)?;
        out.push_sql(" = ");
        out.push_bind_param::<BigInt, _>(expected)?;
        // Around the filter, which diesel writes with its WHERE, so that an OR in it stays in it.
        // The planner flattens this: the row is found by its index.
        out.push_sql(" AND EXISTS (SELECT");
        self.filter.walk_ast(out.reborrow())?;
        out.push_sql(") RETURNING ");
        out.push_identifier(self.column)?;
        out.push_sql("::bigint");
        Ok(())
    }
}

impl<F, W, V> QueryId for Statement<'_, F, W, V> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<F, W, V> Query for Statement<'_, F, W, V> {
    type SqlType = Nullable<BigInt>;
}

impl<F, W, V> RunQueryDsl<PgConnection> for Statement<'_, F, W, V> {}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        if is_serialization_failure(&error) {
            Self::Serialization(error.into())
        } else {
            Self::Database(error.into())
        }
    }
}

pub(super) fn is_serialization_failure(error: &DieselError) -> bool {
    let DieselError::DatabaseError(kind, _) = error else {
        return false;
    };
    matches!(kind, DatabaseErrorKind::SerializationFailure)
}
