//! What a session sends that is kept: it changes some of the session's settings, and puts them back.

use std::time::Duration;

use super::call;
use crate::key::Key;

const SETTINGS: &str = "pg_catalog.pg_settings WHERE name IN ('idle_session_timeout', 'statement_timeout', \
    'transaction_timeout', 'tcp_keepalives_idle', 'tcp_user_timeout')";

/// Notes the settings in one of the session's own. Its row is the server process, and the session's
/// `idle_session_timeout` in milliseconds.
pub(crate) fn note() -> String {
    format!(
        "SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_backend_pid(), max(setting) FILTER (WHERE name = 'idle_session_timeout')) \
         || left(pg_catalog.set_config('pglock.found', pg_catalog.json_object_agg(name, setting)::text, false), 0) AS line \
         FROM {SETTINGS}"
    )
}

/// Lets the server end the session after a silence, and for no other reason: nor must a network that is silent
/// end it before. Its row is the server process; nothing is set in another one.
pub(crate) fn settle(silence: Duration, pid: i32) -> String {
    format!(
        "SELECT pg_catalog.pg_backend_pid()::text || left(count(pg_catalog.set_config(name, CASE name \
         WHEN 'idle_session_timeout' THEN '{}' \
         WHEN 'tcp_keepalives_idle' THEN greatest(setting::int, {})::text ELSE '0' END, false))::text, 0) AS line \
         FROM {SETTINGS} AND pg_catalog.pg_backend_pid() = {pid}",
        silence.as_millis(),
        silence.as_secs() + 1,
    )
}

/// The server process of the session.
pub(crate) const PID: &str = "SELECT pg_catalog.pg_backend_pid()::text AS line";

/// Ends another session of the same role.
pub(crate) fn end(pid: i32) -> String {
    format!("SELECT pg_catalog.pg_terminate_backend({pid})")
}

/// Puts the settings back, and lets locks go: each is a key, and the function that does it.
pub(crate) fn leave<'k>(held: impl Iterator<Item = &'k (Key, &'static str)>) -> String {
    let settings = "SELECT count(pg_catalog.set_config(key, value, false)) \
        FROM pg_catalog.json_each_text(pg_catalog.current_setting('pglock.found')::json)";
    let unlock: Vec<_> = held.map(|(key, unlock)| call(unlock, key)).collect();
    match unlock.is_empty() {
        true => settings.to_owned(),
        false => format!("{settings}; SELECT {}", unlock.join(", ")),
    }
}
