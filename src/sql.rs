//! Every statement that pglock sends, and why it has its form. All of them go through the simple
//! query protocol: one message is one round trip, however many statements it has, and outside a
//! transaction one implicit transaction.
//!
//! A statement asks for something and its *answer* is a text: empty for yes, else one of the words
//! of [`Answer`]. The functions that lock never stand in a query with a FROM clause (the planner
//! may call them more than once, or for rows that a filter drops), and nothing but numbers comes
//! from the user.

use std::fmt::{self, Write as _};

use crate::backends::{Answers, Failure};
use crate::error::BoxError;
use crate::key::Key;
use crate::request::{LockInfo, Mode, Wait};

/// What the server says when it does not do what a statement asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Another session holds the lock.
    Busy,
    /// At a release, or when asked: this session does not hold the lock.
    NotHeld,
    /// A transaction is open in which there should be none.
    InTransaction,
    /// The transaction's snapshot would be older than the lock.
    StaleSnapshot,
    /// The server is a standby.
    InRecovery,
}

/// Marks, in the text of an error, an answer that came as an error.
const MARK: &str = "pglock:";

impl Answer {
    const ALL: [Self; 5] = [
        Self::Busy,
        Self::NotHeld,
        Self::InTransaction,
        Self::StaleSnapshot,
        Self::InRecovery,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NotHeld => "not held",
            Self::InTransaction => "in transaction",
            Self::StaleSnapshot => "stale snapshot",
            Self::InRecovery => "in recovery",
        }
    }

    /// Reads the answer at the beginning of a text. `None` is a yes.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|answer| text.starts_with(answer.word()))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

// The SQLSTATEs that pglock tells apart:
// https://www.postgresql.org/docs/current/errcodes-appendix.html
pub(crate) const TIMEOUT: &str = "55P03";
pub(crate) const DEADLOCK: &str = "40P01";
pub(crate) const CANCELED: &str = "57014";
pub(crate) const OUT_OF_MEMORY: &str = "53200";
pub(crate) const NO_TRANSACTION: &str = "25P01";
pub(crate) const IN_FAILED_TRANSACTION: &str = "25P02";

impl Failure {
    /// A server's error, for a driver to report. An answer of pglock's that came as an error is
    /// recognised by its text, and so is an SQLSTATE that was carried in it.
    pub fn from_error(sqlstate: Option<&str>, message: &str, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        let marked = message.split_once(MARK).map(|(_, rest)| rest);
        if let Some(answer) = marked.and_then(Answer::read) {
            return Self::Refused(answer);
        }
        match marked.and_then(|rest| rest.get(..5)).or(sqlstate) {
            Some(state) if is_connection_loss(state) => Self::Lost(source),
            state => Self::Sql {
                sqlstate: state.map(str::to_owned),
                source,
            },
        }
    }
}

/// Whether an error is the last that a session says: connection exceptions, shutdowns, and the two
/// timeouts that end an idle session.
fn is_connection_loss(sqlstate: &str) -> bool {
    sqlstate.starts_with("08")
        || matches!(sqlstate, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}

/// A session lock, outside a transaction.
///
/// Waiting happens for the transaction, which here is the message; only then the lock, had already,
/// is taken for the session by a statement of its own. A `lock_timeout` that fires in the instant
/// of the grant thus leaves nothing behind. A try does not wait, and does both in one statement.
pub(crate) fn acquire(lock: &LockInfo, wait: Wait, answers: Answers) -> String {
    carry(&session_lock(lock, wait), answers)
}

/// The same for a session that holds the lock, and lets go of it before. In one message: between
/// two, sessions that come later could be first again and again.
///
/// That it was held needs no look. If it was not, nothing is left to do.
pub(crate) fn acquire_again(lock: &LockInfo, wait: Wait, answers: Answers) -> String {
    let mut statements = session_lock(lock, wait);
    statements.insert(0, format!("left(({})::text, 0)", not_unlocked(lock)));
    carry(&statements, answers)
}

fn session_lock(lock: &LockInfo, wait: Wait) -> Vec<String> {
    let session = all_locked(lock, "");
    let guarded = |then: &str| format!("CASE {IN_RECOVERY} {OPEN_TRANSACTION} ELSE {then} END");
    match wait {
        Wait::No => {
            let both = format!(
                "CASE WHEN {} AND {} THEN '' ELSE 'busy' END",
                tried(lock, "_xact"),
                tried(lock, "")
            );
            vec![guarded(&both)]
        }
        Wait::Session | Wait::Millis(_) => vec![guarded(&waited(lock, wait)), guarded(&session)],
    }
}

/// A transaction lock inside the caller's transaction, which stays usable whatever happens: behind
/// a savepoint.
///
/// An answer comes as an error here, so that nothing of several keys stays held; [`UNDO`] must
/// follow a failure.
pub(crate) fn acquire_in_transaction(lock: &LockInfo, wait: Wait, answers: Answers) -> String {
    let asked = format!(
        "CASE {IN_RECOVERY} {STALE_SNAPSHOT} ELSE {} END",
        transaction_lock(lock, wait)
    );
    let statement = match answers {
        Answers::Rows => raise(&asked),
        Answers::Errors => carry(&[asked], answers),
    };
    in_savepoint(&statement)
}

/// A transaction lock in a transaction that pglock opens: directly after its BEGIN, or before it in
/// the same message.
///
/// BEGIN turns the message's implicit transaction into a real one and keeps its locks. A
/// transaction that has written already is the caller's own, by a raw BEGIN of which the driver
/// does not know: it would be committed with ours.
pub(crate) fn acquire_at_begin(lock: &LockInfo, wait: Wait, answers: Answers) -> String {
    let asked = format!(
        "CASE {IN_RECOVERY} WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN 'in transaction' {STALE_SNAPSHOT} ELSE {} END",
        transaction_lock(lock, wait)
    );
    carry(&[asked], answers)
}

/// Leaves the caller's transaction as it was before a failed statement behind a savepoint, its
/// settings included.
pub(crate) const UNDO: &str = "ROLLBACK TO SAVEPOINT pglock; RELEASE SAVEPOINT pglock";

/// The savepoint around a body, where a driver lets it be named.
#[cfg(feature = "postgres")]
pub(crate) const BODY: &str = "pglock_body";

/// Leaves the caller's transaction as it was before a body behind that savepoint.
#[cfg(feature = "postgres")]
pub(crate) const UNDO_BODY: &str =
    "ROLLBACK TO SAVEPOINT pglock_body; RELEASE SAVEPOINT pglock_body";

/// Releases a session lock, and says whether it was held. In an open transaction it does nothing
/// and says so: the lock would be gone before the COMMIT.
pub(crate) fn release(lock: &LockInfo, answers: Answers) -> String {
    let not_held = not_unlocked(lock);
    ask(
        &format!("CASE {OPEN_TRANSACTION} WHEN {not_held} THEN 'not held' ELSE '' END"),
        answers,
    )
}

/// Gives the lock to whoever waits for it at the server, and takes it back if nobody does. Like
/// [`release`] it says whether the lock was held, and does nothing in an open transaction.
///
/// A release grants the lock to the first waiter before it returns. Of several keys, as in
/// [`acquire`], none is had for the session until all are had for the message.
#[cfg(feature = "r2d2")]
pub(crate) fn give_way(lock: &LockInfo, answers: Answers) -> String {
    ask(
        &format!(
            "CASE {OPEN_TRANSACTION} WHEN {} THEN 'not held' WHEN {} AND {} THEN '' ELSE 'busy' END",
            not_unlocked(lock),
            tried(lock, "_xact"),
            tried(lock, "")
        ),
        answers,
    )
}

/// Rolls back whatever is open, aborted or not, then releases.
pub(crate) fn rollback_and_release(lock: &LockInfo, answers: Answers) -> String {
    format!("ROLLBACK; {}", release(lock, answers))
}

/// Whether this session holds the lock, for the session or the transaction, as `pg_locks` knows it.
pub(crate) fn held(lock: &LockInfo, answers: Answers) -> String {
    ask(&held_expression(lock), answers)
}

/// The same inside a transaction, which "no" must not abort.
pub(crate) fn held_in_transaction(lock: &LockInfo) -> String {
    in_savepoint(&raise(&held_expression(lock)))
}

/// COMMIT, preceded by a statement that fails where COMMIT would silently roll back (the
/// transaction is aborted), and that tells when the transaction, and the lock with it, has been
/// ended already.
pub(crate) fn commit(answers: Answers) -> String {
    let ended = ask(
        "CASE WHEN now() = statement_timestamp() THEN 'not held' ELSE '' END",
        answers,
    );
    format!("{ended}; COMMIT")
}

/// Ends the session from inside, and with it all that it holds.
pub(crate) const END_SESSION: &str = "ROLLBACK; SELECT pg_terminate_backend(pg_backend_pid())";

/// A standby grants the keys that its primary grants to others.
const IN_RECOVERY: &str = "WHEN pg_is_in_recovery() THEN 'in recovery'";

/// Only in a message's implicit transaction does the transaction start with the statement. This
/// sees a raw BEGIN, of which no driver knows. (Simple query protocol only.)
const OPEN_TRANSACTION: &str = "WHEN now() <> statement_timestamp() THEN 'in transaction'";

/// Above READ COMMITTED the snapshot of the statement that waits for the lock is the snapshot of
/// all that follow.
const STALE_SNAPSHOT: &str =
    "WHEN current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale snapshot'";

fn transaction_lock(lock: &LockInfo, wait: Wait) -> String {
    match wait {
        Wait::No => format!("CASE WHEN {} THEN '' ELSE 'busy' END", tried(lock, "_xact")),
        Wait::Session | Wait::Millis(_) => waited(lock, wait),
    }
}

/// Waits for the transaction-level locks, one after the other, under `lock_timeout`.
///
/// An array evaluates its elements in order: keep the old setting, set ours, lock, shrink it to
/// what is left before each further key (it applies to each wait). Then the old setting is put
/// back, as the text that it was: RESET would destroy a value that the caller had set. `left` of a
/// text's beginning is the answer "yes".
fn waited(lock: &LockInfo, wait: Wait) -> String {
    let Wait::Millis(millis) = wait else {
        return all_locked(lock, "_xact");
    };
    let mut elements =
        format!("current_setting('lock_timeout'), set_config('lock_timeout', '{millis}', true)");
    for (i, key) in lock.keys().iter().enumerate() {
        if i > 0 {
            let _ = write!(
                elements,
                ", set_config('lock_timeout', greatest(1, {millis} - {ELAPSED_MILLIS})::text, true)"
            );
        }
        let _ = write!(
            elements,
            ", pg_advisory_xact_lock{}({})::text",
            suffix(lock),
            key.arguments()
        );
    }
    format!("left(set_config('lock_timeout', (ARRAY[{elements}])[1], true), 0)")
}

const ELAPSED_MILLIS: &str =
    "(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000)::int";

fn all_locked(lock: &LockInfo, level: &str) -> String {
    let locked = each(lock, ",", |key, s| {
        format!("pg_advisory{level}_lock{s}({key})::text")
    });
    format!("(ARRAY[{locked}])[1]")
}

/// Releases all keys, and is true if any was not held.
fn not_unlocked(lock: &LockInfo) -> String {
    let unlocked = each(lock, "+", |key, s| {
        format!("pg_advisory_unlock{s}({key})::int")
    });
    format!("{unlocked} <> {}", lock.keys().len())
}

fn tried(lock: &LockInfo, level: &str) -> String {
    each(lock, " AND ", |key, s| {
        format!("pg_try_advisory{level}_lock{s}({key})")
    })
}

fn each(lock: &LockInfo, separator: &str, call: impl Fn(&str, &str) -> String) -> String {
    let calls: Vec<_> = lock
        .keys()
        .iter()
        .map(|key| call(&key.arguments(), suffix(lock)))
        .collect();
    calls.join(separator)
}

fn suffix(lock: &LockInfo) -> &'static str {
    match lock.mode() {
        Mode::Exclusive => "",
        Mode::Shared => "_shared",
    }
}

/// VALUES, unlike a plain list, takes any number of keys.
fn held_expression(lock: &LockInfo) -> String {
    let mode = match lock.mode() {
        Mode::Exclusive => "ExclusiveLock",
        Mode::Shared => "ShareLock",
    };
    let rows: Vec<_> = lock
        .keys()
        .iter()
        .map(Key::pg_locks)
        .map(|(c, o, s)| format!("({c}, {o}, {s})"))
        .collect();
    format!(
        "CASE WHEN (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() \
         AND mode = '{mode}' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (classid, objid, objsubid) IN (VALUES {})) = {} THEN '' ELSE 'not held' END",
        rows.join(", "),
        rows.len()
    )
}

fn in_savepoint(statement: &str) -> String {
    format!("SAVEPOINT pglock; {statement}; RELEASE SAVEPOINT pglock")
}

/// A statement that gives its answer in a row where the driver reads rows, as an error where it
/// does not.
fn ask(expression: &str, answers: Answers) -> String {
    match answers {
        Answers::Rows => format!("SELECT {expression}"),
        Answers::Errors => raise(expression),
    }
}

/// Fails with the answer in the error's text, under any `lc_messages`: a number cannot be read from
/// it.
fn raise(expression: &str) -> String {
    format!("SELECT ('{MARK}' || nullif({expression}, ''))::int")
}

/// Expressions one after the other, each a statement of its own.
///
/// A driver without rows has no SQLSTATE either, so there a block catches every error and carries
/// its SQLSTATE in the text of one of its own. OTHERS alone would not catch a cancel.
fn carry(expressions: &[String], answers: Answers) -> String {
    match answers {
        Answers::Rows => {
            let statements: Vec<_> = expressions
                .iter()
                .map(|expression| format!("SELECT {expression}"))
                .collect();
            statements.join("; ")
        }
        Answers::Errors => {
            let mut body = String::new();
            for expression in expressions {
                let _ = write!(body, "IF answer = '' THEN answer := {expression}; END IF; ");
            }
            format!(
                "DO $pglock$ DECLARE answer text := ''; BEGIN \
                 BEGIN {body}EXCEPTION WHEN OTHERS OR query_canceled THEN answer := SQLSTATE || ' ' || SQLERRM; END; \
                 IF answer <> '' THEN RAISE EXCEPTION '{MARK}%', answer; END IF; END $pglock$"
            )
        }
    }
}
