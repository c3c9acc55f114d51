//! What is told is what happened.

use pglock::{Error, Lock};

use crate::harness::Harness;
use crate::oracle::{Oracle, Table, unique_key};

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
