//! Outside a transaction.

use pglock::{Error, Lock, Row, Scope, Table as Whole};

use crate::harness::{Harness, holds, on};
use crate::oracle::{Oracle, Table, unique_key};
use crate::{assert, holds_key, of_statements};

pub fn statements_run_under_the_lock_and_are_committed<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let text = assert(&holds_key(&key, "ExclusiveLock")) + &table.insert();
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key);
        for rows in [1, 2] {
            lock.batch_execute(&text).unwrap();
            oracle.assert_free(&key);
            assert_eq!(table.rows(), rows);
        }
        assert!(lock.try_batch_execute(&text).unwrap());
        assert_eq!(table.rows(), 3);
    });
}

/// A driver that looks for a refusal reads the first column of each row.
pub fn rows_without_a_column_do_no_harm<H: Harness>() {
    H::with(|backend| {
        let mut lock = Lock::new(backend, unique_key());
        lock.batch_execute("SELECT FROM generate_series(1, 3)")
            .unwrap();
    });
}

pub fn several_keys_and_shared_mode<H: Harness>() {
    let (keys, mut oracle) = ([unique_key(), unique_key()], Oracle::new());
    let both = |mode| -> String {
        keys.iter()
            .map(|key| assert(&holds_key(key, mode)))
            .collect()
    };
    H::with(|backend| {
        Lock::new(&mut *backend, keys.clone())
            .batch_execute(&both("ExclusiveLock"))
            .unwrap();
        oracle.lock_shared(&keys[1]);
        let mut shared = Lock::new(&mut *backend, keys.clone()).shared();
        shared.batch_execute(&both("ShareLock")).unwrap();
        let mut exclusive = Lock::new(&mut *backend, keys.clone());
        assert!(!exclusive.try_batch_execute("SELECT 1").unwrap());
        assert_eq!(oracle.rows(&keys[0]), []);
        assert_eq!(oracle.rows(&keys[1]).len(), 1, "the oracle's");
    });
}

pub fn rows_and_tables<H: Harness>() {
    let table = Table::new();
    let insert = table.insert();
    Oracle::new().client.batch_execute(&insert).unwrap();
    let mode = |mode: &str| {
        assert(&format!(
            "EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND mode = '{mode}' \
             AND relation = '{}'::regclass)",
            table.name
        ))
    };
    H::with(|backend| {
        let row = || Row::new(table.name.as_str(), "n", 1);
        let update = format!("UPDATE {} SET n = 2", table.name);
        let mut lock = Lock::new(&mut *backend, row());
        lock.batch_execute(&(mode("RowShareLock") + &update))
            .unwrap();
        let error = lock.batch_execute(&insert).unwrap_err();
        assert!(matches!(error, Error::NoSuchRow { .. }), "{error:?}");
        let error = Lock::new(&mut *backend, Row::new("no such table", "n", 1))
            .batch_execute(&insert)
            .unwrap_err();
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        Lock::new(&mut *backend, Whole::new(table.name.as_str()))
            .batch_execute(&(mode("ExclusiveLock") + &insert))
            .unwrap();
        assert_eq!(table.rows(), 2);
    });
}

pub fn an_error_of_the_statements_is_the_drivers_and_rolls_back<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key);
        for failing in [
            "SELECT 1 / 0",
            "SELECT FROM no_such_table",
            "not SQL",
            "SELECT 'open",
        ] {
            let text = format!("{}; {failing}", table.insert());
            of_statements(lock.batch_execute(&text).unwrap_err());
            oracle.assert_free(&key);
            of_statements(lock.try_batch_execute(&text).unwrap_err());
            oracle.assert_free(&key);
        }
        lock.batch_execute(&table.insert()).unwrap();
    });
    assert_eq!(table.rows(), 1);
}

/// It is not mistaken for an error of the lock.
pub fn an_sqlstate_of_the_locks_in_the_statements_is_theirs<H: Harness>() {
    let (key, mut oracle) = (unique_key(), Oracle::new());
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).timeout(std::time::Duration::from_secs(9));
        for state in ["55P03", "40P01", "57014", "53200", "25001", "40001"] {
            let text = format!("DO $$ BEGIN RAISE 'busy' USING ERRCODE = '{state}'; END $$");
            let told = of_statements(lock.batch_execute(&text).unwrap_err());
            assert!(told == state || told == "busy", "{told}");
            oracle.assert_free(&key);
        }
    });
}

pub fn what_needs_no_transaction_is_refused_by_the_server<H: Harness>() {
    let table = Table::new();
    H::with(|backend| {
        let text = format!("VACUUM {}", table.name);
        let error = Lock::new(backend, unique_key()).batch_execute(&text);
        let told = of_statements(error.unwrap_err());
        assert!(told == "25001" || told.contains("VACUUM"), "{told}");
    });
}

pub fn a_raw_transaction_is_told<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    H::with(|backend| {
        for begin in ["BEGIN", "BEGIN; SELECT 1"] {
            on(backend, begin).unwrap();
            let error = Lock::new(&mut *backend, &key).batch_execute(&table.insert());
            let error = error.unwrap_err();
            assert!(matches!(error, Error::InTransaction { .. }), "{error:?}");
            on(backend, "ROLLBACK").unwrap();
        }
        on(backend, "SET pglock_test.session = 'this'").unwrap();
        on(backend, "BEGIN; SELECT 1").unwrap();
        let mut bounded = Lock::new(&mut *backend, &key).timeout(std::time::Duration::from_secs(9));
        let error = bounded.batch_execute(&table.insert()).unwrap_err();
        assert!(matches!(error, Error::InTransaction { .. }), "{error:?}");
        // The transaction goes on: what follows must not be committed. (A pool may not take the connection back.)
        let this = "coalesce(current_setting('pglock_test.session', true), '') = 'this'";
        on(backend, &crate::assert(this)).unwrap_err();
        on(backend, "ROLLBACK").unwrap();
        on(backend, "BEGIN").unwrap();
        on(backend, "SELECT 1 / 0").unwrap_err();
        if on(backend, "SELECT 1").is_ok() {
            return; // another connection: the pool did not take that one back
        }
        let error = Lock::new(&mut *backend, &key).batch_execute(&table.insert());
        let error = error.unwrap_err();
        assert!(
            matches!(error, Error::TransactionAborted { .. }),
            "{error:?}"
        );
        on(backend, "ROLLBACK").unwrap();
    });
    assert_eq!(table.rows(), 0);
}

pub fn a_stale_snapshot_is_told<H: Harness>() {
    let table = Table::new();
    H::with(|backend| {
        on(
            backend,
            "SET default_transaction_isolation = 'repeatable read'",
        )
        .unwrap();
        let error = Lock::new(&mut *backend, unique_key()).batch_execute(&table.insert());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::StaleSnapshot { .. }), "{error:?}");
    });
    assert_eq!(table.rows(), 0);
}

pub fn the_session_scope_is_refused<H: Harness>() {
    H::with(|backend| {
        let mut lock = Lock::new(backend, unique_key()).scope(Scope::Session);
        let error = lock.batch_execute("SELECT 1").unwrap_err();
        assert!(matches!(error, Error::WrongScope { .. }), "{error:?}");
    });
}

pub fn a_connection_that_dies_in_the_statements_is_told<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let text = table.insert() + "; SELECT pg_terminate_backend(pg_backend_pid())";
    H::with(|backend| {
        let error = Lock::new(backend, &key).batch_execute(&text).unwrap_err();
        let unknown = matches!(
            error,
            Error::ConnectionLost {
                committing: true,
                ..
            }
        );
        assert!(unknown, "{error:?}");
        oracle.wait_until_free(&key);
    });
    assert_eq!(table.rows(), 0);
}

pub fn settings_are_the_callers_own<H: Harness>() {
    let own = "current_setting('lock_timeout') = '7777ms'";
    H::with(|backend| {
        on(backend, "SET lock_timeout = '7777ms'").unwrap();
        let timeout = std::time::Duration::from_secs(5);
        Lock::new(&mut *backend, unique_key())
            .timeout(timeout)
            .batch_execute(&assert(own))
            .unwrap();
        assert!(holds(backend, own));
        Lock::new(&mut *backend, unique_key())
            .batch_execute(&(assert(own) + "SET lock_timeout = '8s'"))
            .unwrap();
        assert!(holds(backend, "current_setting('lock_timeout') = '8s'"));
    });
}
