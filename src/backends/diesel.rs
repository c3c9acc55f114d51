//! diesel: `PgConnection`.

use std::sync::{PoisonError, RwLock};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::methods::LoadQuery;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Untyped};
use diesel::{QueryResult, RunQueryDsl};

use crate::driver::{
    BoxError, Failure, Finish, LockBackend, Opening, Parameter, Refusal, Session, Statement,
    Transacted, TransactionBackend, end_session,
};
use crate::error::Error;
use crate::wait::LABEL;
use crate::{failure, prepared, sql};

type Manager = AnsiTransactionManager;

impl LockBackend for PgConnection {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl TransactionBackend for PgConnection {}

impl Session for PgConnection {
    type Transaction<'t> = Self;

    const HAS_SQLSTATE: bool = false;

    fn in_transaction(&mut self) -> bool {
        depth(self) > 0
    }

    fn is_broken(&mut self) -> bool {
        Manager::is_broken_transaction_manager(self)
    }

    fn hung_up(&mut self) -> Option<BoxError> {
        let error = self.notifications_iter().find_map(Result::err);
        error.map(Into::into)
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        // Alone, what goes in front of a message would only be warned of.
        let has_statements = !statements.is_empty() && statements != sql::FIRST;
        if has_statements || question.is_empty() {
            let sent = self.batch_execute(statements);
            sent.map_err(|error| failure(self, error))?;
        }
        match question {
            "" => Ok(Vec::new()),
            question => lines(self, diesel::sql_query(question)),
        }
    }

    fn prepared(&mut self, before: &str, statement: &Statement) -> Result<Vec<String>, Failure> {
        // A label is for others to read: it must stand in the text.
        if before.contains(LABEL) && !self.in_transaction() {
            return answer_of_text(
                self,
                &[before, &statement.clone().raising().text()].concat(),
            );
        }
        // EXECUTE is cheaper for the server than a look at the portal, but it brings no rows.
        if statement.is_never_refused() {
            let raising = statement.clone().raising();
            return prepared::run_with(self, &raising, |session, text| {
                session.send(text).map(|()| Vec::new())
            });
        }
        let mut gone = false;
        // In a transaction, a statement that is gone would abort it.
        if !prepared::is_text_only(self) && !self.in_transaction() {
            let lines = typed(self, statement);
            match &lines {
                Err(failure) if failure.is_missing("__diesel_stmt_") => {
                    prepared::give_up(self);
                    gone = true;
                }
                Ok(lines) if is_in_transaction(lines) && !is_in_one_transaction(self)? => {
                    prepared::give_up(self);
                }
                _ => return lines,
            }
        }
        if !statement.needs_message() {
            return lines(self, diesel::sql_query(statement.text()));
        }
        let answer = answer_of_text(self, &statement.clone().raising().text());
        match gone {
            true => answer.map_err(prepared::after_abort),
            false => answer,
        }
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Self) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        let outer = depth(self);
        let begun = match outer {
            0 => Manager::begin_transaction_sql(self, &opening.begin()),
            _ => Manager::begin_transaction(self),
        };
        begun.map_err(|error| failure(self, error))?;
        let open = RollbackOnDrop {
            connection: self,
            outer,
        };
        let (result, finish) = body(open.connection);
        let ended = match finish {
            Finish::Rollback | Finish::Leave => Ok(()),
            // diesel notices by itself that the COMMIT in the batch has ended its transaction.
            Finish::Commit if outer == 0 => opening.commit(open.connection),
            Finish::Commit => Manager::commit_transaction(open.connection)
                .map_err(|error| failure(open.connection, error)),
        };
        Ok(Transacted { result, ended })
    }

    fn terminate(&mut self) {
        end_session(self);
        Manager::transaction_manager_status_mut(self).set_in_error();
    }
}

#[derive(diesel::QueryableByName)]
struct Line {
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    line: Option<String>,
}

fn lines<'q, Q>(connection: &mut PgConnection, query: Q) -> Result<Vec<String>, Failure>
where
    Q: LoadQuery<'q, PgConnection, Line>,
{
    let lines = query.load(connection);
    let lines = lines.map_err(|error| failure(connection, error))?;
    if depth(connection) > 0 {
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
fn typed(connection: &mut PgConnection, statement: &Statement) -> Result<Vec<String>, Failure> {
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

/// Sends a text that fails where it is refused, or where it has another word to say.
fn answer_of_text(connection: &mut PgConnection, text: &str) -> Result<Vec<String>, Failure> {
    match connection.send(text) {
        Ok(()) => Ok(Vec::new()),
        Err(Failure::Refused(refusal)) => Ok(vec![refusal.to_string()]),
        Err(failure) => match failure.free() {
            Some(free) => Ok(vec![free]),
            None => Err(failure),
        },
    }
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
    for (text, place) in statement.extended_parts() {
        out.push_sql(text);
        let Some(place) = place else { continue };
        let number = given.iter().position(|given| *given == place);
        if let Some(name) = number.and_then(|number| NAMES.get(number)) {
            out.push_sql(name);
            continue;
        }
        given.push(place);
        match &statement.parameters()[place] {
            Parameter::Int(value) => out.push_bind_param::<Integer, _>(value)?,
            Parameter::BigInt(value) => out.push_bind_param::<BigInt, _>(value)?,
            Parameter::Text(value) => out.push_bind_param::<Text, _>(value)?,
            Parameter::BigInts(values) => {
                out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?;
            }
        }
    }
    Ok(())
}

fn is_in_transaction(lines: &[String]) -> bool {
    let refusal = lines.first().and_then(|line| Refusal::read(line));
    refusal == Some(Refusal::InTransaction)
}

/// Whether two messages are in the same transaction. It is asked where the statement says so: a pooler that
/// prepares it anew in front of each use makes that look alike.
fn is_in_one_transaction(connection: &mut PgConnection) -> Result<bool, Failure> {
    let now = "SELECT pg_catalog.now()::text AS line";
    Ok(connection.query(now)? == connection.query(now)?)
}

/// diesel's own transactions stay open when a body panics.
struct RollbackOnDrop<'c> {
    connection: &'c mut PgConnection,
    outer: u32,
}

impl Drop for RollbackOnDrop<'_> {
    fn drop(&mut self) {
        while depth(self.connection) > self.outer {
            if Manager::rollback_transaction(self.connection).is_err() {
                break;
            }
        }
    }
}

fn depth(connection: &mut PgConnection) -> u32 {
    match Manager::transaction_manager_status_mut(connection).transaction_depth() {
        Ok(Some(depth)) => depth.get(),
        Ok(None) | Err(_) => 0,
    }
}

fn failure(connection: &mut PgConnection, error: DieselError) -> Failure {
    match is_lost(connection, &error) {
        true => Failure::Lost(error.into()),
        false => of_error(error),
    }
}

/// diesel goes by the SQLSTATE, which a foreign server's error can have, and any trigger's; and it does
/// not show the severity. So it is asked once more: on a lost connection the next message fails too.
///
/// libpq's own texts, unlike most of the server's, end with a newline. diesel misses that they tell of a
/// lost connection if it read a last notice, such as of a crash, after a failed write.
fn is_lost(connection: &mut PgConnection, error: &DieselError) -> bool {
    let is_libpqs =
        matches!(error, DieselError::DatabaseError(_, server) if server.message().ends_with('\n'));
    match error {
        DieselError::BrokenTransactionManager => true, // once the rollback of a transaction has failed
        error if says_lost(error) || is_libpqs => {
            let again = connection.batch_execute("");
            again.is_err_and(|error| says_lost(&error))
        }
        _ => false,
    }
}

fn says_lost(error: &DieselError) -> bool {
    matches!(
        error,
        DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _,
        )
    )
}

fn of_error(error: DieselError) -> Failure {
    match error {
        DieselError::DatabaseError(ref kind, ref server) => {
            let message = server.message().to_owned();
            let sqlstate = match kind {
                DatabaseErrorKind::SerializationFailure => Some(failure::SERIALIZATION_FAILURE),
                _ => interrupted(&message),
            };
            Failure::from_error(sqlstate, &message, error)
        }
        _ => Failure::from_error(None, "", error),
    }
}

/// Whether somebody else was in the way of a statement.
pub(crate) fn is_in_the_way(error: &DieselError) -> bool {
    let DieselError::DatabaseError(kind, server) = error else {
        return false;
    };
    let state = interrupted(server.message());
    matches!(kind, DatabaseErrorKind::SerializationFailure)
        || matches!(state, Some(failure::DEADLOCK | failure::TIMEOUT))
        || server.message().starts_with("could not obtain lock on ")
}

/// What fails outside a block, which would carry its SQLSTATE, leaves only a text in the server's language:
/// a cancel that hits before or after it, and everything in an aborted transaction. If that is not English, it stays an unknown error. A lock timeout can come
/// after the block if a cancel came in it.
fn interrupted(message: &str) -> Option<&'static str> {
    const ABORTED: &str =
        "current transaction is aborted, commands ignored until end of transaction block";
    match message {
        "deadlock detected" => return Some(failure::DEADLOCK),
        "out of shared memory" => return Some(failure::OUT_OF_MEMORY),
        ABORTED => return Some(failure::IN_FAILED_TRANSACTION),
        _ => {}
    }
    match message.strip_prefix("canceling statement due to ")? {
        "user request" | "statement timeout" => Some(failure::CANCELED),
        "lock timeout" => Some(failure::TIMEOUT),
        _ => None,
    }
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::QueryBuilderError(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(inner) => Self::body(DieselError::QueryBuilderError(inner)),
            },
            error => Self::body(error),
        }
    }
}

/// For bodies that return diesel's error: it carries ours, and `From` in the other direction takes
/// ours out again.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use diesel::{Connection, PgConnection, QueryResult, RunQueryDsl};
/// use pglock::{Error, Lock};
///
/// # let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
/// let sold: QueryResult<usize> = Lock::new(&mut conn, "doc:diesel-error")
///     .timeout(Duration::from_secs(2))
///     .run(|conn| diesel::sql_query("SELECT 'sell'").execute(conn));
/// match sold.map_err(Error::from) {
///     Ok(_) => println!("sold"),
///     Err(busy @ Error::Timeout { .. }) => println!("please try again: {busy}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
impl From<Error> for DieselError {
    fn from(error: Error) -> Self {
        match error {
            Error::Body(inner) => match inner.downcast::<DieselError>() {
                Ok(diesel) => *diesel,
                Err(inner) => DieselError::QueryBuilderError(inner),
            },
            error => DieselError::QueryBuilderError(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(text: &str) -> Failure {
        let text = Box::new(text.to_owned());
        of_error(DieselError::DatabaseError(DatabaseErrorKind::Unknown, text))
    }

    /// Chance decides whether a cancel meets the block: only the soak provokes this for real.
    #[test]
    fn an_interrupt_outside_the_block_is_recognised() {
        for (reason, expected) in [
            ("user request", failure::CANCELED),
            ("statement timeout", failure::CANCELED),
            ("lock timeout", failure::TIMEOUT),
        ] {
            let failure = failure_of(&format!("canceling statement due to {reason}"));
            let Failure::Sql { sqlstate, .. } = &failure else {
                panic!("{failure:?}")
            };
            assert_eq!(sqlstate.as_deref(), Some(expected), "{reason}");
        }
    }
}
