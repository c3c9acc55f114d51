//! Whether the transaction is still the one that pglock has given a name to.
//!
//! The name is a setting that ends with the transaction. `RESET ALL` wipes it out: it is empty then, as it
//! is in another transaction. So the transaction also locks the hash of its name, for itself: that tells the
//! two apart, and nothing else does. (The session may hold the same keys beside it, and another transaction
//! can have locked the same table.)

use super::statement::{Conditions, Parameter, Statement};
use super::{quote_literal, raise};

/// Where a transaction that pglock opens has its name.
pub(super) const TRANSACTION: &str = "pglock.transaction";
/// Where a message has it: a transaction of pglock's may be around the message.
pub(super) const MESSAGE: &str = "pglock.message";
/// Where the session has the name of a message whose transaction was committed.
const COMMITTED: &str = "pglock.committed";

/// The class of the pairs that stand for the names of transactions: `pglk`.
pub(crate) const NAMES: i32 = 0x7067_6c6b;

/// Gives the transaction a name, which ends with it. It is locked shared, so that equal hashes do not meet.
pub(super) fn named(setting: &str, name: &str) -> String {
    format!(
        "pg_catalog.concat(pg_catalog.set_config('{setting}', {name}, true), \
         pg_catalog.pg_try_advisory_xact_lock_shared({NAMES}, pg_catalog.hashtext({name})))"
    )
}

/// The same for a message. Its name stays with the session if, and only if, the transaction commits.
pub(super) fn named_message(name: &str) -> String {
    let named = named(MESSAGE, name);
    format!("{named} || pg_catalog.set_config('{COMMITTED}', {name}, false)")
}

/// Whether the transaction in which a message got its name was committed: `true` or `false`.
pub(crate) fn was_committed(name: &str) -> String {
    format!("SELECT (coalesce(current_setting('{COMMITTED}', true), '') = '{name}')::text AS line")
}

/// Fails with `not held` where the transaction does not have the name.
///
/// The statement is planned each time. So all but the comparison of names is a text that runs only if it is
/// needed. It has no row unless it fails, so that a server without libxml can run it.
pub(super) fn still_ours(setting: &str, name: &str) -> String {
    let reset = format!(
        "current_setting('{setting}', true) = '' AND EXISTS (SELECT FROM pg_catalog.pg_locks \
         WHERE granted AND pid = pg_backend_pid() AND locktype = 'advisory' AND objsubid = 2 \
         AND classid = {NAMES} AND objid::bigint = pg_catalog.hashtext('{name}')::bigint & 4294967295)"
    );
    let look = quote_literal(raise(&reset, "'not held'"));
    format!(
        "SELECT CASE current_setting('{setting}', true) WHEN '{name}' THEN NULL \
         ELSE pg_catalog.query_to_xml({look}, false, true, '') END"
    )
}

/// Whether the transaction has the name.
pub(super) fn bears(name: &str) -> Statement {
    let write = || {
        let mut conditions = Conditions::new();
        let name = conditions.text_parameter(name);
        conditions.and(&[
            "pg_catalog.current_setting('",
            TRANSACTION,
            "', true) = ",
            &name,
        ]);
        Statement::new(conditions, "'not held'")
    };
    let parameters = vec![Parameter::Text(name.to_owned())];
    Statement::known(b"commit".to_vec(), parameters, write)
}
