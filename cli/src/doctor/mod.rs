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
mod server;
mod timeouts;
mod vanished;

use facts::Facts;
use finding::{Finding, Level, json_of, text_of};

pub(crate) fn doctor(url: &str, args: &DoctorArgs) -> Result<u8, Failure> {
    let (mut one, mut two) = (open(url)?, open(url)?);
    let findings = examine(&mut one, &mut two);
    let findings = findings.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    match args.json {
        true => print_json(&json_of(&findings))?,
        false => print(text_of(&findings))?,
    };
    let fit = findings.iter().all(|finding| finding.level != Level::Unfit);
    Ok(if fit { 0 } else { UNFIT })
}

fn examine(one: &mut PgConnection, two: &mut PgConnection) -> QueryResult<Vec<Finding>> {
    let pretender = match neighbours::pretender(one) {
        Ok(pretender) => pretender,
        Err(error) => {
            ask(two, "1")?; // if this fails too, it is not only transactions
            return Ok(vec![neighbours::no_transaction(&error)]);
        }
    };
    // What another kind of server says of itself means nothing here.
    if let Some(finding) = pretender {
        return Ok(vec![finding]);
    }
    let pooler = neighbours::pooler(one, two)?;
    let pooled = pooler.level == Level::Unfit;
    let mut findings = vec![pooler];
    if !pooled {
        findings.push(neighbours::exclusion(one, two)?);
    }
    let facts = Facts::gather(one)?;
    findings.extend(server::findings(&facts));
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
