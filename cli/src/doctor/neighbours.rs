//! Two connections side by side: whether they are two sessions of a PostgreSQL, and keep each other
//! out.

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::Error;

use super::finding::{Finding, Level};
use super::{ask, ask_at_once};
use crate::exit::chain;

/// How often the two connections try to get into each other's way.
const ROUNDS: usize = 4;

const PROCESS: &str = "pg_backend_pid()";

const TRANSACTIONS_ONLY: &str = "Connect past the pooler, or through one in session mode; or use only the \
     transaction forms (with_transaction_lock; pglock run --scope transaction).";

/// A server that speaks PostgreSQL's protocol, and whose advisory locks are none.
pub(super) fn pretender(connection: &mut PgConnection) -> QueryResult<Option<Finding>> {
    let version = ask_at_once(connection, "current_setting('crdb_version', true)")?;
    Ok(version.map(|version| {
        Finding::new(
            Level::Unfit,
            "pretender",
            format!("This is no PostgreSQL but {version}, which grants an advisory lock to everybody who asks."),
            "Keep locks in a PostgreSQL; a small one beside this database will do.",
        )
    }))
}

pub(super) fn no_transaction(error: &Error) -> Finding {
    let reason = chain(error);
    Finding::new(
        Level::Unfit,
        "pooler",
        format!(
            "No transaction can be opened: {reason}. This is what a pooler in statement mode says, behind which nothing can be locked."
        ),
        "Connect past the pooler, or through one in session mode.",
    )
}

/// What one connection asks twice, with a transaction of the other one in between, is answered by
/// another server process than before, or the other one got that process: there is a pooler that
/// deals out sessions by the transaction.
pub(super) fn pooler(one: &mut PgConnection, two: &mut PgConnection) -> QueryResult<Finding> {
    let (mut this, mut other) = (one, two);
    for _ in 0..ROUNDS {
        let before = ask_at_once(this, PROCESS)?;
        other.batch_execute("BEGIN")?;
        let seen = between(this, other, before.as_deref());
        other.batch_execute("ROLLBACK")?;
        if let Some(seen) = seen? {
            let sentence = format!(
                "{seen}: a pooler in transaction mode is in between, and a session lock belongs to whoever gets its server session next."
            );
            return Ok(Finding::new(
                Level::Unfit,
                "pooler",
                sentence,
                TRANSACTIONS_ONLY,
            ));
        }
        (this, other) = (other, this);
    }
    Ok(Finding::fine(
        "pooler",
        "Two connections kept a server session each: no pooler deals them out by the transaction.",
    ))
}

fn between(
    this: &mut PgConnection,
    other: &mut PgConnection,
    before: Option<&str>,
) -> QueryResult<Option<&'static str>> {
    // Asked first: with a single server session, the next question would wait for ever.
    if ask(other, PROCESS)?.as_deref() == before {
        return Ok(Some("Two clients were on one server session"));
    }
    let moved = ask_at_once(this, PROCESS)?.as_deref() != before;
    Ok(moved.then_some("Two transactions of one client were on two server sessions"))
}

/// The proof: a lock that one connection has, the other does not get. Not to be tried behind a
/// pooler, which may have just one session for the two.
pub(super) fn exclusion(one: &mut PgConnection, two: &mut PgConnection) -> QueryResult<Finding> {
    let key = "('x' || md5(random()::text))::bit(64)::bigint";
    let key = ask_at_once(one, key)?.unwrap_or_default();
    let lock = format!("pg_try_advisory_xact_lock(bigint '{key}')");
    for connection in [&mut *one, &mut *two] {
        connection.batch_execute("BEGIN")?;
    }
    let granted = ask(one, &lock).and_then(|first| Ok([first, ask(two, &lock)?]));
    for connection in [one, two] {
        connection.batch_execute("ROLLBACK")?;
    }
    Ok(
        match granted?.map(|granted| granted.as_deref() == Some("true")) {
            [true, false] => Finding::fine(
                "exclusion",
                "A lock on one connection kept the other one out.",
            ),
            [true, true] => Finding::new(
                Level::Unfit,
                "exclusion",
                "Two connections got the same exclusive lock at once: locks protect nothing here.",
                "Keep locks in a PostgreSQL, and connect to it directly.",
            ),
            [false, _] => Finding::new(
                Level::Warning,
                "exclusion",
                "A lock that nobody has was not granted.",
                "Look at `pglock ls`, and run this again.",
            ),
        },
    )
}
