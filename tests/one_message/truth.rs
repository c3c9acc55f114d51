//! What is told is what happened.

use pglock::{Error, Lock};

use crate::harness::{Harness, InTransaction, on};
use crate::of_statements;
use crate::oracle::{Oracle, Table, connect, unique_key, unique_name};

pub fn a_reset_in_the_text_loses_nothing<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    let text = format!("SELECT 'COMMIT'; {0}; RESET ALL; {0}", table.insert());
    H::with(|backend| Lock::new(backend, &key).batch_execute(&text).unwrap());
    assert_eq!(table.rows(), 2);
}

pub fn a_reset_hides_no_end_of_the_transaction<H: Harness>() {
    let (key, mut oracle) = (unique_key(), Oracle::new());
    H::with(|backend| {
        for end in [
            "RESET ALL; COMMIT",
            "COMMIT; RESET ALL",
            "COMMIT; RESET ALL; BEGIN",
        ] {
            let table = Table::new();
            let text = format!("{0}; {end}; {0}", table.insert());
            let lost = Lock::new(&mut *backend, &key).batch_execute(&text);
            assert!(
                matches!(lost, Err(Error::LockLost { .. })),
                "{end}: {lost:?}"
            );
            assert_eq!(table.rows(), 1, "{end}");
            oracle.assert_free(&key);
        }
    });
}

/// A function that fails with an SQLSTATE, so that the text needs no word like BEGIN.
struct Fails(String);

impl Fails {
    fn new() -> Self {
        let name = unique_name("fails");
        let create = format!(
            "CREATE FUNCTION {name}(state text) RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'of the text' USING ERRCODE = state; END $$"
        );
        connect().batch_execute(&create).unwrap();
        Self(name)
    }

    fn with(&self, state: &str) -> String {
        format!("SELECT {}('{state}')", self.0)
    }
}

impl Drop for Fails {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP FUNCTION {}", self.0));
    }
}

/// The states with which an acquire finds no transaction, or an aborted one; and those of a connection
/// that is lost, which a foreign server's error can have.
const STATES: [&str; 9] = [
    "25P01", "25P02", "25001", "08000", "08006", "08P01", "57P01", "57P05", "25P03",
];

pub fn an_error_of_the_text_is_never_the_acquires<H: Harness>() {
    let (key, table, fails, mut oracle) = (unique_key(), Table::new(), Fails::new(), Oracle::new());
    let failing = STATES.map(|state| (state, fails.with(state)));
    let failing = failing.iter().map(|(state, text)| (*state, text.as_str()));
    let savepoints = [
        ("25P01", "SAVEPOINT a"),
        ("25P01", "RELEASE SAVEPOINT a"),
        ("25P01", "ROLLBACK TO SAVEPOINT a"),
    ];
    let failing: Vec<_> = failing.chain(savepoints).collect();
    H::with(|backend| {
        on(backend, "SET pglock_test.session = 'this'").unwrap();
        for (state, text) in failing {
            for behind in ["", "; SELECT 'begin'"] {
                let text = format!("{}; {text}{behind}", table.insert());
                let error = Lock::new(&mut *backend, &key).batch_execute(&text);
                let told = of_statements(error.unwrap_err());
                assert!(
                    told == state || told == "of the text" || told.contains("SAVEPOINT"),
                    "{text}: {told}"
                );
                oracle.assert_free(&key);
            }
        }
        // The connection lives, and a pool has kept it.
        on(
            backend,
            &crate::assert("current_setting('pglock_test.session') = 'this'"),
        )
        .unwrap();
    });
    assert_eq!(table.rows(), 0);
}

pub fn an_error_of_the_text_in_a_transaction_is_never_the_acquires<H: InTransaction>() {
    let (key, table, fails, mut oracle) = (unique_key(), Table::new(), Fails::new(), Oracle::new());
    H::with(|backend| {
        on(backend, &table.insert()).unwrap();
        for state in STATES {
            for behind in ["", "; SELECT 'begin'"] {
                let text = format!("{}; {}{behind}", table.insert(), fails.with(state));
                let error = Lock::new(&mut *backend, &key).batch_execute(&text);
                let told = of_statements(error.unwrap_err());
                assert!(told == state || told == "of the text", "{text}: {told}");
                oracle.assert_free(&key);
                on(backend, &table.assert_rows(1)).unwrap();
            }
        }
    });
}
