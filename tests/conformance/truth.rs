//! What is told is what happened.

use pglock::{Error, IntoTarget, Lock, Row, Table as Whole};

use crate::harness::{Harness, sql};
use crate::oracle::{Oracle, Table, unique_key};

/// Runs a text in the body of a transaction that locks the target.
fn in_body<H: Harness>(target: impl IntoTarget, text: &str) -> Result<(), Error> {
    H::with(|backend| Lock::new(backend, target).run_in_transaction(|tx| sql(tx, text)))
}

/// Whatever is locked: a key, a row, a table.
fn on_every_target<H: Harness>(check: impl Fn(&Table, &str, &dyn Fn(&str) -> Result<(), Error>)) {
    let (key, table, other) = (unique_key(), Table::new(), Table::new());
    connect_and(&other.insert());
    check(&table, "key", &|text| in_body::<H>(&key, text));
    check(&table, "several keys", &|text| {
        H::with(|backend| {
            Lock::all(backend, [unique_key(), unique_key()]).run_in_transaction(|tx| sql(tx, text))
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
        for reset in ["RESET ALL", "RESET ALL; RESET ALL"] {
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
