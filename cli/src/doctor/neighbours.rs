//! Two connections side by side: whether they are two sessions of one PostgreSQL, and keep each other
//! out.

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::Error;

use super::finding::{Finding, Level};
use super::{ask, ask_at_once};
use crate::exit::chain;

/// How often the two connections try to disturb each other.
const ROUNDS: usize = 4;

const PROCESS: &str = "pg_backend_pid()";

const TRANSACTIONS_ONLY: &str = "Connect past the pooler, or through one in session mode; or use only the \
     transaction forms (with_transaction_lock; pglock run --scope transaction).";

/// A server that speaks PostgreSQL's protocol, but whose advisory locks lock nothing.
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
            "No transaction can be opened: {reason}. That is what a pooler in statement mode says; behind one, nothing can be locked."
        ),
        "Connect past the pooler, or through one in session mode.",
    )
}

/// One connection asks twice, with a transaction of the other in between. If another server process
/// answers, or the other connection got the same one, a pooler deals out sessions per transaction.
pub(super) fn pooler(one: &mut PgConnection, two: &mut PgConnection) -> QueryResult<Finding> {
    let (mut this, mut other) = (one, two);
    for _ in 0..ROUNDS {
        let before = ask_at_once(this, PROCESS)?;
        other.batch_execute("BEGIN")?;
        let seen = between(this, other, before.as_deref());
        other.batch_execute("ROLLBACK")?;
        if let Some(seen) = seen? {
            let sentence = format!(
                "{seen}: there is a pooler in transaction mode, and a session lock goes to whoever gets its server session next."
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
        "Two connections each kept their server session: no pooler deals sessions out per transaction.",
    ))
}

fn between(
    this: &mut PgConnection,
    other: &mut PgConnection,
    before: Option<&str>,
) -> QueryResult<Option<&'static str>> {
    // This comes first: with a single server session, the next question would wait for ever.
    if ask(other, PROCESS)?.as_deref() == before {
        return Ok(Some("Two clients shared one server session"));
    }
    let moved = ask_at_once(this, PROCESS)?.as_deref() != before;
    Ok(moved.then_some("Two transactions of one client ran in two server sessions"))
}

/// The proof: what one connection has locked, the other cannot lock. Not behind a pooler, which may
/// have only one session for both.
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
                "A lock that nobody holds was not granted.",
                "Look at `pglock ls`, and run this again.",
            ),
        },
    )
}
