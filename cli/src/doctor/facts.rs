//! What the server says of itself and of this connection.

use diesel::QueryResult;
use diesel::pg::PgConnection;
use serde_json::Value;

use super::ask_at_once;

const FACTS: &str = "SELECT json_build_object(\
     'version', current_setting('server_version'), \
     'version_num', current_setting('server_version_num')::int, \
     'in_recovery', pg_is_in_recovery(), \
     'socket', inet_client_addr() IS NULL, \
     'user', quote_ident(current_user), \
     'sees_all', pg_has_role('pg_read_all_stats', 'USAGE'), \
     'ends_all', pg_has_role('pg_signal_backend', 'USAGE'), \
     'settings', (SELECT json_object_agg(name, setting) FROM pg_settings))";

/// Without the fast path, which relations use and advisory locks do not.
const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE NOT fastpath";

pub(super) struct Facts {
    facts: Value,
    /// Entries in the lock table; `None`: this user may not look.
    pub(super) locks: Option<u64>,
}

impl Facts {
    pub(super) fn gather(connection: &mut PgConnection) -> QueryResult<Self> {
        let facts = ask_at_once(connection, FACTS)?.unwrap_or_default();
        let locks = ask_at_once(connection, LOCKS).ok().flatten();
        Ok(Self {
            facts: serde_json::from_str(&facts).unwrap_or_default(),
            locks: locks.and_then(|count| count.parse().ok()),
        })
    }

    pub(super) fn says(&self, fact: &str) -> bool {
        self.facts[fact].as_bool().unwrap_or_default()
    }

    pub(super) fn text(&self, fact: &str) -> &str {
        self.facts[fact].as_str().unwrap_or_default()
    }

    pub(super) fn version(&self) -> u64 {
        self.facts["version_num"].as_u64().unwrap_or_default()
    }

    /// A setting of this session; `None` where the server has no such setting.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.facts["settings"][name].as_str()
    }

    /// A setting that is a number, in its own unit.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.setting(name)?.parse().ok()
    }
}
