//! Connections side by side: whether each is a session of its own of one PostgreSQL, and they keep each
//! other out.

use std::thread;
use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::Error;

use super::finding::{Finding, Level};
use super::{ask, ask_at_once};
use crate::exit::chain;

/// How often the connections try to disturb each other.
const ROUNDS: usize = 6;

/// A pooler may take a session back a moment after it has passed the answer on.
const TAKES_BACK: Duration = Duration::from_millis(5);

pub(super) const PROCESS: &str = "pg_backend_pid()";

/// A key that nobody else uses.
pub(super) const RANDOM_KEY: &str = "('x' || md5(random()::text))::bit(64)::bigint";

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

/// One connection asks twice in a row, and again while the others have transactions open. If another server
/// process answers, or one of the others got the same one, a pooler deals out sessions per transaction. In
/// which order it deals them, nobody knows, so all take turns.
pub(super) fn pooler(sessions: &mut [PgConnection]) -> QueryResult<Finding> {
    for _ in 0..ROUNDS {
        if let Some(seen) = disturbed(sessions)? {
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
        sessions.rotate_left(1);
    }
    let sentence = format!(
        "{} connections each kept their server session: no pooler deals sessions out per transaction.",
        sessions.len()
    );
    Ok(Finding::fine("pooler", sentence))
}

fn disturbed(sessions: &mut [PgConnection]) -> QueryResult<Option<&'static str>> {
    const MOVED: &str = "Two transactions of one client ran in two server sessions";
    let [this, others @ ..] = sessions else {
        return Ok(None);
    };
    let before = ask_at_once(this, PROCESS)?;
    if ask_at_once(this, PROCESS)? != before {
        return Ok(Some(MOVED));
    }
    thread::sleep(TAKES_BACK);
    for i in 0..others.len() {
        others[i].batch_execute("BEGIN")?;
        // Before anything else: with all server sessions taken, the next question would wait for ever.
        let shared = ask(&mut others[i], PROCESS).map(|process| process == before);
        if !matches!(shared, Ok(false)) {
            roll_back(&mut others[..=i])?;
            return Ok(shared?.then_some("Two clients shared one server session"));
        }
    }
    let moved = ask_at_once(this, PROCESS).map(|process| process != before);
    roll_back(others)?;
    Ok(moved?.then_some(MOVED))
}

fn roll_back(sessions: &mut [PgConnection]) -> QueryResult<()> {
    let mut all = sessions.iter_mut();
    all.try_for_each(|session| session.batch_execute("ROLLBACK"))
}

/// The proof: what one connection has locked, the other cannot lock. Not behind a pooler, which may
/// have only one session for both.
pub(super) fn exclusion(two: &mut [PgConnection]) -> QueryResult<Finding> {
    let key = ask_at_once(&mut two[0], RANDOM_KEY)?.unwrap_or_default();
    let lock = format!("pg_try_advisory_xact_lock(bigint '{key}')");
    for connection in &mut *two {
        connection.batch_execute("BEGIN")?;
    }
    let granted = ask(&mut two[0], &lock).and_then(|first| Ok([first, ask(&mut two[1], &lock)?]));
    roll_back(two)?;
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
