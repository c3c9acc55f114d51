//! What is told is what happened.

use pglock::{
    Error, IntoTarget, Lock, Row, Table as Whole, transaction_lock, with_lock,
    with_transaction_lock,
};

use crate::attacks::prepared;
use crate::harness::{Harness, InTransaction, holds, on, sql};
use crate::oracle::{Oracle, Table, unique_key, unique_name};

/// Runs a text in the body of a transaction that locks the target.
fn in_body<H: Harness>(target: impl IntoTarget, text: &str) -> Result<(), Error> {
    H::with(|backend| {
        prepared(backend, &unique_key());
        Lock::new(backend, target).run_in_transaction(|tx| sql(tx, text))
    })
}

/// Whatever is locked: a key, a row, a table.
fn on_every_target<H: Harness>(check: impl Fn(&Table, &str, &dyn Fn(&str) -> Result<(), Error>)) {
    let (key, table, other) = (unique_key(), Table::new(), Table::new());
    connect_and(&other.insert());
    check(&table, "key", &|text| in_body::<H>(&key, text));
    check(&table, "several keys", &|text| {
        H::with(|backend| {
            Lock::new(backend, [unique_key(), unique_key()]).run_in_transaction(|tx| sql(tx, text))
        })
    });
    check(&table, "row", &|text| {
        in_body::<H>(Row::new(other.name.as_str(), "n", 1), text)
    });
    check(&table, "table", &|text| {
        in_body::<H>(Whole::new(other.name.as_str()), text)
    });
}

fn connect_and(text: &str) {
    Oracle::new().client.batch_execute(text).unwrap();
}

pub fn a_reset_in_the_body_loses_nothing<H: Harness>() {
    on_every_target::<H>(|table, target, run| {
        for reset in [
            "RESET ALL",
            "RESET ALL; RESET ALL",
            "DEALLOCATE ALL",
            "DEALLOCATE ALL; RESET ALL",
        ] {
            let rows = table.rows();
            let done = run(&format!("{0}; {reset}; {0}", table.insert()));
            assert!(done.is_ok(), "{target}: {reset}: {done:?}");
            assert_eq!(table.rows(), rows + 2, "{target}: {reset}");
        }
    });
}

pub fn a_reset_hides_no_end_of_the_transaction<H: Harness>() {
    on_every_target::<H>(|table, target, run| {
        for end in [
            "RESET ALL; COMMIT",
            "COMMIT; RESET ALL",
            "RESET ALL; COMMIT; BEGIN",
            "COMMIT; RESET ALL; BEGIN",
            "COMMIT; BEGIN; RESET ALL",
            "RESET ALL; COMMIT AND CHAIN",
        ] {
            let rows = table.rows();
            let lost = run(&format!("{0}; {end}", table.insert()));
            assert!(
                matches!(lost, Err(Error::LockLost { .. })),
                "{target}: {end}: {lost:?}"
            );
            assert_eq!(table.rows(), rows + 1, "{target}: {end}");
        }
    });
}

/// Another transaction in its place, beside what looks as if it had the lock: the session holds the key too,
/// or the table is locked for another reason, as by a foreign key.
pub fn nothing_else_looks_like_the_transaction<H: Harness>() {
    let (key, table, other) = (unique_key(), Table::new(), Table::new());
    connect_and(&other.insert());
    for (end, stays) in [
        ("ROLLBACK; BEGIN", 0),
        ("ROLLBACK AND CHAIN", 0),
        ("COMMIT; BEGIN", 1),
        ("RESET ALL; ROLLBACK; BEGIN", 0),
    ] {
        let again = format!("LOCK TABLE {} IN ROW SHARE MODE", other.name);
        let text = format!("{}; {end}; {again}", table.insert());
        H::with(|backend| {
            let (before, rows) = (table.rows(), || table.rows());
            let lost = with_lock(&mut *backend, &key, |conn| {
                with_transaction_lock(conn, &key, |tx| sql(tx, &text))
            });
            assert!(
                matches!(lost, Err(Error::LockLost { .. })),
                "{end}: {lost:?}"
            );
            assert_eq!(rows(), before + stays, "{end}");
            let row = Row::new(other.name.as_str(), "n", 1);
            let lost = Lock::new(backend, row).run_in_transaction(|tx| sql(tx, &text));
            assert!(
                matches!(lost, Err(Error::LockLost { .. })),
                "{end}: {lost:?}"
            );
            assert_eq!(rows(), before + 2 * stays, "{end}");
        });
    }
}

/// A table, and what makes it fail as if a connection were lost: to read the view, and to commit after an
/// insert. A foreign server's errors do so, and any trigger's can.
struct FarAway {
    table: Table,
    fails: String,
}

impl FarAway {
    fn new(state: &str) -> Self {
        let (table, fails) = (Table::new(), unique_name("far"));
        connect_and(&format!(
            "{insert}; CREATE FUNCTION {fails}() RETURNS boolean LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'far away' USING ERRCODE = '{state}'; END $$; \
             CREATE VIEW {fails} AS SELECT n FROM {table} WHERE {fails}(); \
             CREATE FUNCTION {fails}_at_commit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM {fails}(); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION {fails}_at_commit()",
            insert = table.insert(),
            table = table.name,
        ));
        Self { table, fails }
    }

    /// A row that cannot be locked.
    fn row(&self) -> Row {
        Row::new(self.fails.as_str(), "n", 1)
    }
}

impl Drop for FarAway {
    fn drop(&mut self) {
        connect_and(&format!(
            "DROP VIEW {0}; DROP FUNCTION {0}, {0}_at_commit CASCADE",
            self.fails
        ));
    }
}

/// Connection exceptions, and those with which the server ends a session.
const LIKE_A_LOST_CONNECTION: [&str; 6] = ["08000", "08001", "08006", "08P01", "57P01", "25P03"];

const THIS: &str = "coalesce(current_setting('pglock_test.session', true), '') = 'this'";

pub fn an_error_like_a_lost_connection_loses_none<H: Harness>() {
    for state in LIKE_A_LOST_CONNECTION {
        let (far, key, mut oracle) = (FarAway::new(state), unique_key(), Oracle::new());
        H::with(|backend| {
            on(backend, "SET pglock_test.session = 'this'").unwrap();
            let mut row = Lock::new(&mut *backend, far.row());
            let refused = row.run_in_transaction(|_| Ok::<_, Error>(()));
            assert!(
                matches!(refused, Err(Error::Database { .. })),
                "{state}: {refused:?}"
            );
            // A driver that does not show an error's context cannot tell whose it is.
            let refused = row.batch_execute("SELECT 1");
            assert!(
                matches!(refused, Err(Error::Database { .. } | Error::Body(_))),
                "{state}: {refused:?}"
            );
            let insert = far.table.insert();
            let mut lock = Lock::new(&mut *backend, &key);
            let undone = lock.run_in_transaction(|tx| sql(tx, &insert));
            assert!(
                matches!(undone, Err(Error::NotCommitted { .. })),
                "{state}: {undone:?}"
            );
            oracle.assert_free(&key);
            let body = lock.run(|conn| sql(conn, &insert));
            assert!(matches!(body, Err(Error::Body(_))), "{state}: {body:?}");
            let text = lock.batch_execute(&insert);
            assert!(matches!(text, Err(Error::Body(_))), "{state}: {text:?}");
            oracle.assert_free(&key);
            assert!(holds(backend, THIS), "{state}: another connection");
        });
        assert_eq!(far.table.rows(), 1, "{state}");
    }
}

pub fn an_error_like_a_lost_connection_leaves_the_transaction_usable<H: InTransaction>() {
    for state in LIKE_A_LOST_CONNECTION {
        let (far, table) = (FarAway::new(state), Table::new());
        H::with(|backend| {
            on(backend, &table.insert()).unwrap();
            let refused = transaction_lock(backend, far.row());
            assert!(
                matches!(refused, Err(Error::Database { .. })),
                "{state}: {refused:?}"
            );
            on(backend, &table.assert_rows(1)).unwrap();
        });
    }
}

/// A driver can return at a COPY from or to the client as if all were done. What the body is told is the
/// driver's affair; the lock is not left on the connection, and nothing is called committed that is not.
pub fn a_copy_that_the_body_leaves_open_keeps_no_lock<H: Harness>() {
    for copy in ["FROM STDIN", "TO STDOUT"] {
        let (key, mut oracle) = (unique_key(), Oracle::new());
        let table = Table::new();
        let text = format!("{}; COPY {} {copy}", table.insert(), table.name);
        H::with(|backend| {
            let _ = with_lock(backend, &key, |conn| sql(conn, &text));
            oracle.wait_until_free(&key);
        });
        let before = table.rows();
        H::with(|backend| {
            let done = with_transaction_lock(backend, &key, |tx| sql(tx, &text));
            oracle.wait_until_free(&key);
            let committed = i64::from(done.is_ok());
            assert_eq!(table.rows(), before + committed, "{copy}: {done:?}");
            let swallowed = Lock::new(&mut *backend, &key).run_in_transaction(|tx| {
                let _ = sql(tx, &text);
                Ok::<_, Error>(())
            });
            oracle.wait_until_free(&key);
            let committed = committed + i64::from(swallowed.is_ok());
            assert_eq!(table.rows(), before + committed, "{copy}: {swallowed:?}");
        });
    }
}
