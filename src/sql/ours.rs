//! Whether the transaction is still the one that pglock has given a name to.
//!
//! The name is a setting that ends with the transaction. `RESET ALL` wipes it out: it is empty then, as it
//! is in another transaction. What the transaction has locked tells the two apart.

use super::statement::{Conditions, Parameter, Statement};
use super::{advisory_rows, literal, raise};
use crate::key::Key;
use crate::request::LockInfo;
use crate::targets::{TableName, Target};

/// Where a transaction that pglock opens has its name.
pub(super) const TRANSACTION: &str = "pglock.transaction";
/// Where a message has it: a transaction of pglock's may be around the message.
pub(super) const MESSAGE: &str = "pglock.message";
/// Where the session has the name of a message whose transaction was committed.
const COMMITTED: &str = "pglock.committed";

/// Gives the transaction a name, which ends with it.
pub(super) fn named(setting: &str, name: &str) -> String {
    format!("pg_catalog.set_config('{setting}', {name}, true)")
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

/// Fails with `not held` where the transaction does not have the name. `trace` is a condition that shows
/// what it has locked.
///
/// The statement is planned each time. So all but the comparison of names is a text that runs only if it is needed. It has no row unless it fails,
/// so that a server without libxml can run it.
pub(super) fn still_ours(setting: &str, name: &str, trace: &str) -> String {
    let reset = format!("current_setting('{setting}', true) = '' AND {trace}");
    let look = literal(raise(&reset, "'not held'"));
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

/// Whether `pg_locks` shows what a transaction holds since it has acquired this lock.
///
/// One key is enough: a transaction releases all of them at once. A row shows as the lock on its table. A
/// table is looked for by its bare name, since `RESET ALL` resets the `search_path` too.
pub(crate) fn trace(lock: &LockInfo) -> String {
    match lock.target() {
        Target::Keys(_) | Target::Range(_) | Target::Slots(_) => trace_of_key(&lock.keys()[0]),
        Target::Row(row) => trace_of_table(&row.table, "RowShare"),
        Target::FirstFree(pick) => trace_of_table(&pick.table, "RowShare"),
        Target::Table(table) => trace_of_table(&table.name, &camel(&lock.table_mode(table))),
    }
}

pub(crate) fn trace_of_key(key: &Key) -> String {
    exists(
        "pg_catalog.pg_locks l",
        &advisory_rows(std::slice::from_ref(key)),
    )
}

fn trace_of_table(name: &TableName, mode: &str) -> String {
    exists(
        "pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation",
        &format!(
            "l.locktype = 'relation' AND c.relname = {} AND l.mode = '{mode}Lock'",
            literal(&name.table)
        ),
    )
}

fn exists(from: &str, rows: &str) -> String {
    format!("EXISTS (SELECT FROM {from} WHERE l.granted AND l.pid = pg_backend_pid() AND {rows})")
}

/// `SHARE ROW EXCLUSIVE` is `ShareRowExclusive` in `pg_locks`.
fn camel(mode: &impl ToString) -> String {
    let mode = mode.to_string();
    let words = mode.split(' ');
    words
        .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TableMode;

    #[test]
    fn a_mode_is_written_as_in_pg_locks() {
        assert_eq!(camel(&TableMode::ShareRowExclusive), "ShareRowExclusive");
        assert_eq!(camel(&TableMode::Share), "Share");
    }
}
