//! The statements of a save with diesel.

use diesel::RunQueryDsl;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Nullable};

#[derive(Clone, Copy)]
pub(super) enum Kind<'a, V> {
    Update(&'a V),
    Delete,
    /// Looks up the version.
    Version,
    /// Looks up how many bytes the version takes.
    Width,
}

pub(super) struct Statement<'a, F, W, V> {
    pub(super) kind: Kind<'a, V>,
    pub(super) from: &'a F,
    pub(super) filter: &'a W,
    pub(super) column: &'static str,
    /// For an update or a delete: the version that the row must have.
    pub(super) expected: Option<i64>,
}

impl<F: QueryFragment<Pg>, W: QueryFragment<Pg>, V: QueryFragment<Pg>> QueryFragment<Pg>
    for Statement<'_, F, W, V>
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        match self.kind {
            Kind::Update(changes) => {
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
            Kind::Delete => {
                out.push_sql("DELETE FROM ");
                self.from.walk_ast(out.reborrow())?;
            }
            Kind::Version | Kind::Width => {
                let width = matches!(self.kind, Kind::Width);
                out.push_sql("SELECT ");
                out.push_sql(if width { "pg_column_size(" } else { "(" });
                out.push_identifier(self.column)?;
                out.push_sql(")::bigint FROM ");
                self.from.walk_ast(out.reborrow())?;
            }
        }
        let Some(expected) = &self.expected else {
            self.filter.walk_ast(out.reborrow())?;
            out.push_sql(" LIMIT 2");
            return Ok(());
        };
        out.push_sql(" WHERE ");
        out.push_identifier(self.column)?;
        out.push_sql(" = ");
        out.push_bind_param::<BigInt, _>(expected)?;
        // diesel writes the filter with its WHERE. In a query of its own, an OR in the filter ends
        // there. The planner flattens that query, so the row is still found by its index.
        out.push_sql(" AND EXISTS (SELECT");
        self.filter.walk_ast(out.reborrow())?;
        // If the filter matches others too, none is saved.
        out.push_sql(") AND 1 = (SELECT count(*) FROM (SELECT FROM ");
        self.from.walk_ast(out.reborrow())?;
        self.filter.walk_ast(out.reborrow())?;
        out.push_sql(" LIMIT 2) AS found) RETURNING ");
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
