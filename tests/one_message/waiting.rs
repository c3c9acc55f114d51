//! The wait for the lock, and its ends.

use std::thread;
use std::time::Duration;

use pglock::{Error, Lock, Row, StopToken, with_lock};

use crate::harness::{Harness, on};
use crate::of_statements;
use crate::oracle::{Oracle, Table, unique_key, wait_until};

const SOON: Duration = Duration::from_millis(20);

pub fn nothing_runs_while_the_lock_is_held<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    oracle.lock(&key);
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key);
        assert!(!lock.try_batch_execute(&table.insert()).unwrap());
        for keep_place in [false, true] {
            let mut lock = Lock::new(&mut *backend, &key)
                .timeout(SOON)
                .keep_place(keep_place);
            assert!(!lock.try_batch_execute(&table.insert()).unwrap());
            match lock.batch_execute(&table.insert()).unwrap_err() {
                Error::Timeout {
                    timeout, holders, ..
                } => {
                    assert_eq!(timeout, Some(SOON));
                    assert_eq!(holders.len(), 1);
                }
                error => panic!("{error:?}"),
            }
        }
        assert_eq!(oracle.rows(&key).len(), 1, "the oracle's");
    });
    assert_eq!(table.rows(), 0);
}

pub fn a_wait_of_several_slices_sees_what_was_written<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    oracle.lock(&key);
    let text = table.assert_rows(1) + "; " + &table.insert();
    thread::scope(|threads| {
        threads.spawn(|| {
            wait_until("a second slice", || {
                let pid = oracle.wait_for_waiter(&key);
                let waiting =
                    "SELECT FROM pg_stat_activity WHERE pid = $1 AND query LIKE '/*pglock waited %'";
                oracle.client.query_opt(waiting, &[&pid]).unwrap()
            });
            oracle.client.batch_execute(&table.insert()).unwrap();
            oracle.unlock(&key);
        });
        H::with(|backend| Lock::new(backend, &key).batch_execute(&text).unwrap());
    });
    assert_eq!(table.rows(), 2);
    Oracle::new().assert_free(&key);
}

/// Without a timeout of the lock, and under the session's own, it could be the end of a slice.
pub fn a_lock_timeout_of_the_statements_is_theirs<H: Harness>() {
    let (key, other, mut oracle) = (unique_key(), unique_key(), Oracle::new());
    oracle.lock(&other);
    let text = format!("SELECT pg_advisory_xact_lock({})", other.as_i64().unwrap());
    H::with(|backend| {
        on(backend, "SET lock_timeout = '20ms'").unwrap();
        for timeout in [
            None,
            Some(Duration::from_millis(10)),
            Some(Duration::from_secs(5)),
        ] {
            let mut lock = Lock::new(&mut *backend, &key);
            if let Some(timeout) = timeout {
                lock = lock.timeout(timeout);
            }
            let told = of_statements(lock.batch_execute(&text).unwrap_err());
            assert!(told == "55P03" || told.contains("lock timeout"), "{told}");
            oracle.assert_free(&key);
        }
    });
}

pub fn the_sessions_own_lock_timeout_is_a_timeout<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    oracle.lock(&key);
    H::with(|backend| {
        on(backend, "SET lock_timeout = '20ms'").unwrap();
        for keep_place in [false, true] {
            let mut lock = Lock::new(&mut *backend, &key).keep_place(keep_place);
            let error = lock.batch_execute(&table.insert()).unwrap_err();
            assert!(
                matches!(error, Error::Timeout { timeout: None, .. }),
                "{error:?}"
            );
        }
    });
    assert_eq!(table.rows(), 0);
}

/// Not every driver can say in the first slice whether it hit the wait or the statements.
pub fn a_cancel_holds_nothing<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    oracle.lock(&key);
    H::with(|backend| {
        for keep_place in [false, true] {
            let error = thread::scope(|threads| {
                threads.spawn(|| {
                    let mut oracle = Oracle::new();
                    let pid = oracle.wait_for_waiter(&key);
                    oracle.cancel(pid);
                });
                let mut lock = Lock::new(&mut *backend, &key).keep_place(keep_place);
                lock.batch_execute(&table.insert()).unwrap_err()
            });
            let told = match error {
                Error::Canceled { .. } => true,
                Error::Body(_) => !keep_place,
                _ => false,
            };
            assert!(told);
        }
    });
    assert_eq!(oracle.rows(&key).len(), 1, "the oracle's");
    assert_eq!(table.rows(), 0);
}

pub fn a_stopped_wait_holds_nothing<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let token = StopToken::new();
    oracle.lock(&key);
    let error = thread::scope(|threads| {
        threads.spawn(|| {
            Oracle::new().wait_for_waiter(&key);
            token.stop();
        });
        H::with(|backend| {
            let mut lock = Lock::new(backend, &key).stop_on(&token);
            lock.batch_execute(&table.insert()).unwrap_err()
        })
    });
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    assert_eq!(oracle.rows(&key).len(), 1, "the oracle's");
    assert_eq!(table.rows(), 0);
}

pub fn a_wait_in_its_place_is_bounded_too<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let text = table.assert_rows(1) + "; " + &table.insert();
    H::with(|backend| {
        oracle.write_when_waited_for(&key, &table, || {
            let mut lock = Lock::new(backend, &key).keep_place(true);
            lock.batch_execute(&text).unwrap();
        });
    });
    assert_eq!(table.rows(), 2);
}

pub fn a_row_that_is_locked_times_out<H: Harness>() {
    let (table, mut oracle) = (Table::new(), Oracle::new());
    oracle.client.batch_execute(&table.insert()).unwrap();
    let update = format!("UPDATE {} SET n = 1", table.name);
    oracle
        .client
        .batch_execute(&format!("BEGIN; {update}"))
        .unwrap();
    H::with(|backend| {
        let row = || Row::new(table.name.as_str(), "n", 1);
        let mut lock = Lock::new(&mut *backend, row());
        assert!(!lock.try_batch_execute(&table.insert()).unwrap());
        let mut lock = Lock::new(&mut *backend, row()).timeout(SOON);
        let error = lock.batch_execute(&table.insert()).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    });
    oracle.client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(table.rows(), 1);
}

/// The server's own check would come after ten minutes: pglock's check between two slices finds it.
pub fn a_deadlock_is_told_and_nothing_runs<H: Harness>() {
    let (ours, theirs, table) = (unique_key(), unique_key(), Table::new());
    let (mut oracle, mut other) = (Oracle::new(), Oracle::new());
    other
        .client
        .batch_execute("SET deadlock_timeout = '10min'")
        .unwrap();
    other.lock(&theirs);
    H::with(|backend| {
        thread::scope(|threads| {
            let told = with_lock(backend, &ours, |conn| {
                threads.spawn(|| other.lock(&ours));
                oracle.wait_for_waiter(&ours);
                Lock::new(conn, &theirs).batch_execute(&table.insert())
            });
            let error = told.unwrap_err();
            assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
        });
    });
    assert_eq!(oracle.rows(&theirs).len(), 1, "the other session's");
    assert_eq!(table.rows(), 0);
}
