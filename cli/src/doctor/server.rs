//! The server: its version, its role, its transactions, its language, and the rights of this user.

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use super::facts::Facts;
use super::finding::{Finding, Level};
use crate::exit::chain;

/// The oldest version that pglock supports.
const OLDEST: u64 = 14;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(facts), standby(facts), failover(), isolation(facts)];
    findings.extend(read_only(facts));
    findings.extend([lock_table(facts), sight(facts), reach(facts)]);
    findings
}

fn version(facts: &Facts) -> Finding {
    let version = facts.text("version");
    match facts.version() / 10_000 < OLDEST {
        true => Finding::new(
            Level::Unfit,
            "version",
            format!("This is PostgreSQL {version}; pglock needs {OLDEST} or later."),
            "Upgrade the server.",
        ),
        false => Finding::fine("version", format!("This is PostgreSQL {version}.")),
    }
}

fn standby(facts: &Facts) -> Finding {
    match facts.says("in_recovery") {
        true => Finding::new(
            Level::Unfit,
            "standby",
            "This server is a standby: its locks keep out nobody on the primary, so pglock refuses them.",
            "Connect to the primary; libpq finds it among several hosts with target_session_attrs=read-write.",
        ),
        false => Finding::fine("standby", "This server is a primary."),
    }
}

fn failover() -> Finding {
    Finding::new(
        Level::Note,
        "failover",
        "Locks are in the memory of this server: a failover or a restart loses them all, while the clients' sections go on.",
        "Under a lock, write only on the connection that holds it, or in the same transaction: both end with the server.",
    )
}

fn isolation(facts: &Facts) -> Finding {
    let level = facts
        .setting("default_transaction_isolation")
        .unwrap_or_default();
    let user = facts.text("user");
    match level {
        "repeatable read" | "serializable" => Finding::new(
            Level::Unfit,
            "isolation",
            format!(
                "Transactions begin as {level}: the transaction forms refuse to lock, since the snapshot would be older than the lock."
            ),
            format!(
                "ALTER ROLE {user} SET default_transaction_isolation = 'read committed', or use the session forms only."
            ),
        ),
        _ => Finding::fine(
            "isolation",
            "Transactions begin as read committed: they see what was committed before they acquired a lock.",
        ),
    }
}

fn read_only(facts: &Facts) -> Option<Finding> {
    let is_on = |name: &str| facts.setting(name) == Some("on");
    if !is_on("default_transaction_read_only") {
        return None;
    }
    let serializable = facts.setting("default_transaction_isolation") == Some("serializable");
    let deferred = match serializable && is_on("default_transaction_deferrable") {
        true => "; and each first waits for a safe snapshot, which no lock's timeout bounds",
        false => "",
    };
    let user = facts.text("user");
    Some(Finding::new(
        Level::Warning,
        "read_only",
        format!(
            "Transactions begin read only: they can hold a lock, but not write under it{deferred}."
        ),
        format!("ALTER ROLE {user} SET default_transaction_read_only = off."),
    ))
}

fn lock_table(facts: &Facts) -> Finding {
    const NAME: &str = "lock_table";
    let number = |name| facts.number(name).unwrap_or_default();
    let sessions = number("max_connections") + number("max_prepared_transactions");
    let room = number("max_locks_per_transaction") * sessions;
    let Some(taken) = facts.locks else {
        return Finding::new(
            Level::Warning,
            NAME,
            "This user may not read pg_locks: pglock cannot say who holds a lock, and pglock run cannot check its own.",
            format!("GRANT SELECT ON pg_locks TO {}.", facts.text("user")),
        );
    };
    let sentence = format!(
        "The lock table has room for some {room} locks of all databases together, and {taken} are in it: each key is one lock."
    );
    match taken > room / 4 * 3 {
        true => Finding::new(
            Level::Warning,
            NAME,
            sentence,
            "Hold fewer locks at once, or raise max_locks_per_transaction and restart the server.",
        ),
        false => Finding::fine(NAME, sentence),
    }
}

/// The proof: a block runs.
pub(super) fn language(connection: &mut PgConnection, facts: &Facts) -> QueryResult<Finding> {
    const NAME: &str = "language";
    connection.batch_execute("BEGIN")?;
    let ran = connection.batch_execute("DO LANGUAGE plpgsql 'BEGIN END'");
    connection.batch_execute("ROLLBACK")?;
    let Err(error) = ran else {
        return Ok(Finding::fine(
            NAME,
            "PL/pgSQL works, which waits that leave nothing in the log, and those for rows and slots, need.",
        ));
    };
    Ok(Finding::new(
        Level::Unfit,
        NAME,
        format!(
            "PL/pgSQL does not work here: {}. Waits for rows and slots need it; other waits are had without it, but leave errors in the log.",
            chain(&error)
        ),
        format!(
            "GRANT USAGE ON LANGUAGE plpgsql TO {}; if the language is not there, CREATE EXTENSION plpgsql.",
            facts.text("user")
        ),
    ))
}

fn sight(facts: &Facts) -> Finding {
    let user = facts.text("user");
    match facts.says("sees_all") {
        true => Finding::fine(
            "sight",
            format!("{user} sees what the sessions of all users do, and since when."),
        ),
        false => Finding::new(
            Level::Note,
            "sight",
            format!(
                "{user} sees who holds a lock, but not what other users' sessions do, nor since when."
            ),
            format!("GRANT pg_read_all_stats TO {user}."),
        ),
    }
}

fn reach(facts: &Facts) -> Finding {
    let user = facts.text("user");
    match facts.says("ends_all") {
        true => Finding::fine(
            "reach",
            format!("{user} may end the sessions of other users (pglock kill)."),
        ),
        false => Finding::new(
            Level::Note,
            "reach",
            format!("{user} may end only its own sessions (pglock kill)."),
            format!("GRANT pg_signal_backend TO {user}, which reaches all but superusers."),
        ),
    }
}
