//! Who holds locks and who waits: one text for each row of the views.
//!
//! What users chose travels as hexadecimal digits. A role's name has the bytes of the database in which it
//! was created, and in another database, or another `client_encoding`, they may be no text: the server would
//! refuse the whole answer, or the driver to read it.

use super::ours::NAMES;
use super::{advisory_rows, is_in_the_way};
use crate::key::Key;
use crate::targets::LockInfo;

const OWN: &str = "(l.pid IS NOT DISTINCT FROM pg_backend_pid())";

/// Through JSON, since the column is not there before PostgreSQL 14.
const WAIT_START: &str = "(pg_catalog.to_jsonb(l) ->> 'waitstart')::timestamptz";

/// Each slice of a wait says how long the wait has lasted, behind what must be first in a message.
const WAITED_BEFORE: &str = "coalesce(substring(q.label FROM '^E?''(?:[A-Za-z_ ]+; )*/[*]pglock waited ([0-9]{1,12}) ms')::bigint, 0) * interval '1 ms'";

/// A question says for how long the lock was held by then; `l` is the lock's row.
const HELD_BEFORE: &str = "substring(q.label FROM '^E?''(?:[A-Za-z_ ]+; )*/[*]pglock held ([0-9]{1,12}) ms on ' \
    || pg_catalog.concat_ws('.', l.classid, l.objid, l.objsubid) || ' ')::bigint * interval '1 ms'";

/// The name in a label: still escaped, and with its quotes doubled.
const NAME: &str = "substring(q.label FROM '^E?''(?:[A-Za-z_ ]+; )*/[*]pglock (?:waited [0-9]+ ms |held [0-9]+ ms on [0-9.]+ )?key (.*?)[*]/')";

/// The encodings of one byte a character that has every byte. Where one does not, the server may refuse.
const WHOLE: &str = "'LATIN1', 'LATIN2', 'LATIN4', 'LATIN5', 'LATIN6', 'LATIN7', 'LATIN8', 'LATIN9', 'LATIN10', \
    'ISO_8859_5', 'KOI8R', 'KOI8U', 'WIN866', 'WIN1256'";

/// The claims on these keys, or on all but those that are names of transactions; see `crate::claim` for the fields.
pub(crate) fn claims_of(keys: &[Key], condition: &str) -> String {
    let seconds = |since: &str| format!("extract(epoch FROM clock_timestamp() - {since})::text");
    format!(
        "SELECT pg_catalog.array_to_string(ARRAY[l.classid::text, l.objid::text, l.objsubid::text, l.mode, l.granted::text, {OWN}::text, l.pid::text, \
         {application}, {user}, host(a.client_addr), a.state, {state}, {transaction}, {connected}, {waiting}, {held}, \
         CASE WHEN NOT l.granted THEN pg_catalog.array_to_string(pg_blocking_pids(l.pid), ' ') END, {label}], chr(31), '') AS line \
         FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         CROSS JOIN LATERAL (SELECT CASE WHEN {labelled} \
         THEN pg_catalog.encode({query}, 'escape') END AS label) q WHERE {rows} AND {condition} \
         ORDER BY l.classid, l.objid, l.objsubid, l.granted DESC, {WAIT_START} - {WAITED_BEFORE}, l.pid",
        application = digits(&bytes("a.application_name")),
        user = digits(&bytes("a.usename::text")),
        state = seconds("a.state_change"),
        transaction = seconds("a.xact_start"),
        connected = seconds("a.backend_start"),
        waiting = seconds(&format!("({WAIT_START} - {WAITED_BEFORE})")),
        held = seconds(&format!("(a.query_start - {HELD_BEFORE})")),
        label = digits(&format!("('''' || {NAME} || '''')::bytea")),
        query = bytes("a.query"),
        labelled = labelled(),
        rows = match keys.is_empty() {
            true => format!(
                "{} AND NOT (l.objsubid = 2 AND l.classid = {NAMES})",
                advisory_rows(keys)
            ),
            false => advisory_rows(keys),
        },
    )
}

/// Whether a session's statement begins with a label, or with what pglock sends in front of one.
fn labelled() -> String {
    let starts = ["", super::FIRST, super::SAVEPOINT].map(|first| {
        format!("pg_catalog.starts_with(a.query COLLATE pg_catalog.\"C\", '{first}/*pglock ')")
    });
    format!("({})", starts.join(" OR "))
}

/// The claims of other sessions that keep the lock from being acquired.
pub(crate) fn claims_in_the_way(lock: &LockInfo) -> String {
    let condition = format!(
        "l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND {}",
        is_in_the_way(lock)
    );
    claims_of(lock.keys(), &condition)
}

/// A text's bytes, in the quotes that `quote_literal` puts around them: it copies what it does not double,
/// and asks for no encoding.
fn bytes(text: &str) -> String {
    format!("pg_catalog.quote_literal({text})::bytea")
}

/// The digits of bytes, in UTF-8 as far as the server can tell.
fn digits(bytes: &str) -> String {
    format!(
        "pg_catalog.encode(CASE WHEN getdatabaseencoding() IN ({WHOLE}) \
         THEN pg_catalog.convert({bytes}, getdatabaseencoding(), 'UTF8') ELSE {bytes} END, 'hex')"
    )
}

/// Only while the session has the claim: its process number may belong to another by now.
pub(crate) fn signal(key: &Key, pid: i32, function: &str) -> String {
    format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = {pid} AND {}) \
         THEN pg_catalog.{function}({pid}) ELSE false END::text AS line",
        advisory_rows(std::slice::from_ref(key))
    )
}
