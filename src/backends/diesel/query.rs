//! A statement as a query of diesel's, which it prepares and keeps, and the lines that come back.

use std::sync::{PoisonError, RwLock};

use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::methods::LoadQuery;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Untyped};
use diesel::{QueryResult, RunQueryDsl};

use super::error::failure;
use crate::driver::{Failure, Parameter, Refusal, Session, Statement};

#[derive(diesel::QueryableByName)]
pub(super) struct Line {
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    line: Option<String>,
}

pub(super) fn lines<'q, Q>(connection: &mut PgConnection, query: Q) -> Result<Vec<String>, Failure>
where
    Q: LoadQuery<'q, PgConnection, Line>,
{
    let lines = query.load(connection);
    let lines = lines.map_err(|error| failure(connection, error))?;
    if connection.in_transaction() {
        // The query's portal would keep its snapshot until the next statement, which a body that works over
        // another connection may never send.
        connection.send("SET LOCAL pglock.portal = 'closed'")?;
    }
    Ok(lines.into_iter().filter_map(|line| line.line).collect())
}

/// How many statements diesel keeps by a number. It keeps the others by their text, which it writes and hashes
/// for each use.
const NUMBERED: usize = 16;

/// The statements of this process that have a number, by their ids.
static NUMBERS: RwLock<Vec<u64>> = RwLock::new(Vec::new());

/// The number of a statement, by which diesel can keep it.
fn number(statement: &Statement) -> Option<usize> {
    let id = statement.id();
    let of = |known: &[u64]| known.iter().position(|known| *known == id);
    let known = NUMBERS.read().unwrap_or_else(PoisonError::into_inner);
    if known.len() == NUMBERED || of(&known).is_some() {
        return of(&known);
    }
    drop(known);
    let mut known = NUMBERS.write().unwrap_or_else(PoisonError::into_inner);
    of(&known).or_else(|| {
        let number = known.len();
        (number < NUMBERED).then(|| {
            known.push(id);
            number
        })
    })
}

/// Runs a statement that diesel prepares and keeps.
pub(super) fn typed(
    connection: &mut PgConnection,
    statement: &Statement,
) -> Result<Vec<String>, Failure> {
    macro_rules! by_number {
        ($($number:literal)*) => {
            match number(statement) {
                $(Some($number) => lines(connection, Numbered::<$number>(statement)),)*
                _ => lines(connection, Typed(statement)),
            }
        };
    }
    by_number!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
}

/// A statement that diesel keeps by its text.
struct Typed<'s>(&'s Statement);

/// A statement that diesel keeps by its type, which no other statement of this process has.
struct Numbered<'s, const NUMBER: usize>(&'s Statement);

/// The type of a number.
struct Number<const NUMBER: usize>;

impl QueryId for Typed<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<const NUMBER: usize> QueryId for Numbered<'_, NUMBER> {
    type QueryId = Number<NUMBER>;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Typed<'_> {
    type SqlType = Untyped;
}

impl<const NUMBER: usize> Query for Numbered<'_, NUMBER> {
    type SqlType = Untyped;
}

impl RunQueryDsl<PgConnection> for Typed<'_> {}

impl<const NUMBER: usize> RunQueryDsl<PgConnection> for Numbered<'_, NUMBER> {}

impl<const NUMBER: usize> QueryFragment<Pg> for Numbered<'_, NUMBER> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        walk(self.0, out)
    }
}

impl QueryFragment<Pg> for Typed<'_> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        walk(self.0, out)
    }
}

/// diesel numbers the values that it is given, in their order. One that it has already is named by its number:
/// each costs the server a call.
fn walk<'b>(statement: &'b Statement, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
    const NAMES: [&str; 8] = ["$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8"];
    let mut given = Vec::with_capacity(NAMES.len());
    for (text, place) in statement.own_parts() {
        out.push_sql(text);
        let Some(place) = place else { continue };
        let number = given.iter().position(|given| *given == place);
        if let Some(name) = number.and_then(|number| NAMES.get(number)) {
            out.push_sql(name);
            continue;
        }
        if given.len() < NAMES.len() {
            given.push(place);
        }
        match statement.parameters().get(place) {
            None => out.push_bind_param::<BigInt, _>(statement.number())?,
            Some(Parameter::Int(value)) => out.push_bind_param::<Integer, _>(value)?,
            Some(Parameter::BigInt(value)) => out.push_bind_param::<BigInt, _>(value)?,
            Some(Parameter::Text(value)) => out.push_bind_param::<Text, _>(value)?,
            Some(Parameter::BigInts(values)) => {
                out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?;
            }
        }
    }
    Ok(())
}

/// Sends a text that fails where it is refused, or where it has another word to say.
pub(super) fn answer_of_text(
    connection: &mut PgConnection,
    text: &str,
) -> Result<Vec<String>, Failure> {
    match connection.send(text) {
        Ok(()) => Ok(Vec::new()),
        Err(Failure::Refused(refusal)) => Ok(vec![refusal.to_string()]),
        Err(failure) => match failure.free() {
            Some(free) => Ok(vec![free]),
            None => Err(failure),
        },
    }
}

pub(super) fn is_in_transaction(lines: &[String]) -> bool {
    let refusal = lines.first().and_then(|line| Refusal::read(line));
    refusal == Some(Refusal::InTransaction)
}

/// Whether two messages are in the same transaction. It is asked where the statement says so: a pooler that
/// prepares it anew in front of each use makes that look alike.
pub(super) fn is_in_one_transaction(connection: &mut PgConnection) -> Result<bool, Failure> {
    let now = "SELECT pg_catalog.now()::text AS line";
    Ok(connection.query(now)? == connection.query(now)?)
}
