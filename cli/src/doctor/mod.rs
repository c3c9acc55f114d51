//! `pglock doctor`: whether a connection is fit for locks.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{Binary, Nullable};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use crate::args::DoctorArgs;
use crate::connection::{open, utf8};
use crate::exit::{Failure, UNAVAILABLE, UNFIT};
use crate::output::{print, print_json};

mod facts;
mod finding;
mod neighbours;
mod routing;
mod server;
mod timeouts;
mod vanished;

use facts::Facts;
use finding::{Finding, Level, Report, text_of};

/// How many connections are open at a time: a pooler in session mode has few.
const SESSIONS: usize = 3;

pub(crate) fn doctor(url: &str, args: &DoctorArgs) -> Result<u8, Failure> {
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(open(url)?);
    }
    let findings = examine(&mut sessions, || open(url).ok());
    let findings = findings.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    match args.json {
        true => print_json(&Report::of(&findings))?,
        false => print(text_of(&findings))?,
    };
    let fit = findings.iter().all(|finding| finding.level != Level::Unfit);
    Ok(if fit { 0 } else { UNFIT })
}

fn examine(
    sessions: &mut Vec<PgConnection>,
    open: impl Fn() -> Option<PgConnection>,
) -> QueryResult<Vec<Finding>> {
    let pretender = match neighbours::pretender(&mut sessions[0]) {
        Ok(pretender) => pretender,
        Err(error) => {
            ask(&mut sessions[1], "1")?; // if this fails too, it is not only transactions
            return Ok(vec![neighbours::no_transaction(&error)]);
        }
    };
    // What another kind of server says of itself means nothing here.
    if let Some(finding) = pretender {
        return Ok(vec![finding]);
    }
    let pooler = neighbours::pooler(sessions)?;
    let pooled = pooler.level == Level::Unfit;
    let mut findings = vec![pooler];
    sessions.truncate(2);
    if !pooled {
        findings.push(neighbours::exclusion(sessions)?);
        findings.push(routing::routing(sessions, open)?);
    }
    let one = &mut sessions[0];
    let facts = Facts::gather(one)?;
    findings.extend(server::findings(&facts));
    findings.push(server::language(one, &facts)?);
    findings.extend(timeouts::findings(&facts));
    findings.extend(vanished::findings(&facts));
    Ok(findings)
}

#[derive(QueryableByName)]
struct Answer {
    /// A name in it may be no UTF-8.
    #[diesel(sql_type = Nullable<Binary>)]
    answer: Option<Vec<u8>>,
}

/// Asks for one text, in the transaction that is open.
fn ask(connection: &mut PgConnection, expression: &str) -> QueryResult<Option<String>> {
    let query = format!("SELECT {} AS answer", utf8(expression));
    let answer = sql_query(query).get_result::<Answer>(connection)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(answer.answer.map(text))
}

/// The same in a transaction of its own: the driver sends two messages, which a pooler may send to
/// two server sessions.
fn ask_at_once(connection: &mut PgConnection, expression: &str) -> QueryResult<Option<String>> {
    connection.batch_execute("BEGIN")?;
    let answer = ask(connection, expression);
    connection.batch_execute("ROLLBACK")?;
    answer
}
