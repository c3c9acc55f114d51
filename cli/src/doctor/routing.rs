//! Whether what a section reads comes from the server session that holds its lock: pgpool-II and others send
//! reads to a standby.

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use super::finding::{Finding, Level};
use super::neighbours::{PROCESS, RANDOM_KEY};
use super::{ask, ask_at_once};

const NAME: &str = "routing";

/// Where reads go is often drawn by lot, once for a session.
const SESSIONS: usize = 16;

const ADVICE: &str = "Connect past it, to the primary, or switch its balancing off (pgpool-II: load_balance_mode = off).";

/// Asks over two sessions, and over new ones, one after the other, while they can be opened.
pub(super) fn routing(
    sessions: &mut [PgConnection],
    open: impl Fn() -> Option<PgConnection>,
) -> QueryResult<Finding> {
    let pgpool = is_pgpool(&mut sessions[0]);
    let mut asked = sessions.len();
    for session in sessions {
        if let Some(seen) = astray(session)? {
            return Ok(unfit(seen));
        }
    }
    while asked < SESSIONS
        && let Some(mut session) = open()
    {
        if let Some(seen) = astray(&mut session)? {
            return Ok(unfit(seen));
        }
        asked += 1;
    }
    let sentence =
        format!("Over {asked} connections, reads went to the server session that had the lock.");
    Ok(match pgpool {
        true => Finding::new(
            Level::Warning,
            NAME,
            format!(
                "{sentence} But there is pgpool-II, and others may go to a standby if it balances reads."
            ),
            "See that PGPOOL SHOW load_balance_mode says off.",
        ),
        false => Finding::fine(NAME, sentence),
    })
}

fn unfit(seen: &str) -> Finding {
    let sentence = format!(
        "{seen}: what a section reads may come from a standby that does not know yet what the last holder wrote."
    );
    Finding::new(Level::Unfit, NAME, sentence, ADVICE)
}

/// Compares the session that acquires a transaction's lock with those that answer after it.
fn astray(session: &mut PgConnection) -> QueryResult<Option<&'static str>> {
    let key = ask_at_once(session, RANDOM_KEY)?.unwrap_or_default();
    let lock = format!("SELECT {PROCESS} FROM pg_try_advisory_xact_lock(bigint '{key}')");
    session.batch_execute("BEGIN")?;
    let within = ask(session, &lock).and_then(|holder| Ok((holder, ask(session, PROCESS)?)));
    session.batch_execute("ROLLBACK")?;
    let (holder, within) = within?;
    let outside = ask(session, PROCESS)?;
    Ok(match (within == holder, outside == holder) {
        (true, true) => None,
        (false, _) => Some("A transaction's read went to another server session than its lock"),
        (true, false) => {
            Some("A read outside a transaction went to another server session than a lock")
        }
    })
}

/// It answers this question itself, which PostgreSQL does not understand.
fn is_pgpool(session: &mut PgConnection) -> bool {
    session.batch_execute("SHOW pool_version").is_ok()
}
