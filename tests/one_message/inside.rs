//! Inside a transaction of the caller's.

use std::time::Duration;

use pglock::{Error, Lock, LockBackend, with_transaction_lock};

use crate::harness::{
    DieselConnection, Harness, InTransaction, PostgresClient, PostgresTransaction, on,
};
use crate::oracle::{Oracle, Table, unique_key};
use crate::{assert, holds_key, of_statements};

pub fn the_lock_stays_until_the_transaction_ends<H: InTransaction>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    H::with(|backend| {
        let text = assert(&holds_key(&key, "ExclusiveLock")) + &table.insert();
        Lock::new(&mut *backend, &key).batch_execute(&text).unwrap();
        oracle.holder(&key);
        assert_eq!(table.rows(), 0, "nothing is committed");
        on(backend, &table.assert_rows(1)).unwrap();
    });
    oracle.wait_until_free(&key);
    assert_eq!(table.rows(), 0);
}

pub fn an_error_of_the_statements_leaves_the_transaction_as_it_was<H: InTransaction>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    H::with(|backend| {
        on(backend, &table.insert()).unwrap();
        for failing in [
            "SELECT 1 / 0",
            "CALL no()",
            "DO $$ BEGIN PERFORM 1 / 0; END $$",
        ] {
            let text = format!("{}; {failing}", table.insert());
            let error = Lock::new(&mut *backend, &key).batch_execute(&text);
            of_statements(error.unwrap_err());
            oracle.assert_free(&key);
            on(backend, &table.assert_rows(1)).unwrap();
        }
        // The server has not reached the savepoint.
        let error = Lock::new(&mut *backend, &key).batch_execute("not SQL");
        of_statements(error.unwrap_err());
        on(backend, "SELECT 1").unwrap_err();
    });
}

pub fn a_held_lock_leaves_the_transaction_as_it_was<H: InTransaction>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    oracle.lock(&key);
    H::with(|backend| {
        on(backend, &table.insert()).unwrap();
        let mut lock = Lock::new(&mut *backend, &key);
        assert!(!lock.try_batch_execute(&table.insert()).unwrap());
        let mut lock = Lock::new(&mut *backend, &key).timeout(Duration::from_millis(20));
        let error = lock.batch_execute(&table.insert()).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        on(backend, &table.assert_rows(1)).unwrap();
    });
    assert_eq!(oracle.rows(&key).len(), 1, "the oracle's");
}

pub fn a_lock_timeout_of_the_statements_is_theirs<H: InTransaction>() {
    let (key, other, mut oracle) = (unique_key(), unique_key(), Oracle::new());
    oracle.lock(&other);
    let text = format!("SELECT pg_advisory_xact_lock({})", other.as_i64().unwrap());
    H::with(|backend| {
        on(backend, "SET LOCAL lock_timeout = '20ms'").unwrap();
        let error = Lock::new(&mut *backend, &key).batch_execute(&text);
        let told = of_statements(error.unwrap_err());
        assert!(told == "55P03" || told.contains("lock timeout"), "{told}");
        oracle.assert_free(&key);
        on(backend, "SELECT 1").unwrap();
    });
}

pub fn a_commit_in_the_text_is_told<H: InTransaction>() {
    for end in ["COMMIT", "COMMIT; BEGIN"] {
        let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
        H::with(|backend| {
            let text = format!("{0}; {end}; {0}", table.insert());
            let error = Lock::new(&mut *backend, &key).batch_execute(&text);
            let error = error.unwrap_err();
            assert!(matches!(error, Error::LockLost { .. }), "{end}: {error:?}");
            oracle.assert_free(&key);
        });
        assert_eq!(table.rows(), 1, "{end}");
    }
}

pub fn an_aborted_transaction_is_told<H: InTransaction>() {
    H::with(|backend| {
        on(backend, "SELECT 1 / 0").unwrap_err();
        for text in ["SELECT 1", "SELECT 1 -- begin"] {
            let error = Lock::new(&mut *backend, unique_key()).batch_execute(text);
            let error = error.unwrap_err();
            assert!(
                matches!(error, Error::TransactionAborted { .. }),
                "{error:?}"
            );
        }
    });
}

/// The transaction's COMMIT looks for its name.
fn keeps_its_name<B: LockBackend>(backend: &mut B) {
    let table = Table::new();
    let block = format!("DO $$ BEGIN {}; END $$", table.insert());
    with_transaction_lock(backend, unique_key(), |tx| {
        Lock::new(tx, unique_key()).batch_execute(&block)
    })
    .unwrap();
    assert_eq!(table.rows(), 1);
}

#[test]
fn the_transaction_of_a_lock_keeps_its_name() {
    PostgresClient::with(keeps_its_name);
    DieselConnection::with(keeps_its_name);
}

/// A raw COMMIT that the driver has not seen.
#[test]
fn a_transaction_that_has_ended_is_told() {
    let table = Table::new();
    PostgresTransaction::with(|backend| {
        on(backend, "COMMIT").unwrap();
        let error = Lock::new(&mut *backend, unique_key()).batch_execute(&table.insert());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::NotInTransaction { .. }), "{error:?}");
    });
    assert_eq!(table.rows(), 0);
}
