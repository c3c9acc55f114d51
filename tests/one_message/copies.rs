//! COPY from and to the client, for which a message has no place: drivers return at it, half done.

use std::time::Duration;

use pglock::{Error, Lock};

use crate::harness::{Harness, InTransaction, holds, on};
use crate::of_statements;
use crate::oracle::{Oracle, Table, unique_key};

/// Short ones and long ones, at the end and before it.
fn texts(table: &Table) -> [String; 6] {
    let (insert, name) = (table.insert(), &table.name);
    let much = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT";
    [
        format!("{insert}; COPY {name} FROM STDIN"),
        format!("{insert}; COPY {name} FROM STDIN; {insert}"),
        format!("{insert}; copy {name} TO STDOUT"),
        format!("COPY {name} TO STDOUT; {insert}; SELECT 'COMMIT'"),
        format!("{insert}; {much}; {insert}"),
        format!("{insert}; {much}; SELECT 1 / 0"),
    ]
}

/// Whether the connection lives. `postgres` loses it where the server waits for data.
#[track_caller]
fn is_told(error: &Error, text: &str) -> bool {
    match error {
        Error::ClientCopy { .. } => true,
        Error::ConnectionLost { .. } if text.contains("STDIN") => false,
        error => panic!("{text}: {error:?}"),
    }
}

pub fn a_copy_from_or_to_the_client_is_told<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    for text in texts(&table) {
        for timeout in [None, Some(Duration::from_secs(9))] {
            H::with(|backend| {
                let mut lock = Lock::new(&mut *backend, &key);
                if let Some(timeout) = timeout {
                    lock = lock.timeout(timeout);
                }
                let error = lock.batch_execute(&text).unwrap_err();
                if is_told(&error, &text) {
                    oracle.assert_free(&key);
                    assert!(lock.try_batch_execute(&text).is_err());
                    assert!(holds(backend, "now() = statement_timestamp()"), "{text}");
                }
                oracle.wait_until_free(&key);
            });
            assert_eq!(table.rows(), 0, "{text}");
        }
    }
}

pub fn a_text_with_that_word_is_one_section<H: Harness>() {
    let (key, mut oracle) = (unique_key(), Oracle::new());
    H::with(|backend| {
        let table = Table::new();
        let mut lock = Lock::new(&mut *backend, &key);
        let insert = table.insert();
        lock.batch_execute(&format!("{insert}; SELECT 'copy'"))
            .unwrap();
        lock.batch_execute(&format!(
            "COPY {} TO PROGRAM 'cat >/dev/null'; {insert} -- copy",
            table.name
        ))
        .unwrap();
        assert_eq!(table.rows(), 2);
        of_statements(
            lock.batch_execute(&format!("{insert}; SELECT 'copy'; SELECT 1 / 0"))
                .unwrap_err(),
        );
        let lost = lock.batch_execute(&format!("{insert}; SELECT 'copy'; COMMIT; {insert}"));
        assert!(matches!(lost, Err(Error::LockLost { .. })), "{lost:?}");
        assert_eq!(table.rows(), 3);
        oracle.assert_free(&key);
        let deferred = format!(
            "ALTER TABLE {} ADD CONSTRAINT id EXCLUDE (n WITH =) DEFERRABLE INITIALLY DEFERRED",
            table.name
        );
        on(backend, &format!("TRUNCATE {}; {deferred}", table.name)).unwrap();
        let mut lock = Lock::new(&mut *backend, &key);
        of_statements(
            lock.batch_execute(&format!("{insert}; {insert}; SELECT 'copy'"))
                .unwrap_err(),
        );
        oracle.assert_free(&key);
        assert_eq!(table.rows(), 0);
        lock.batch_execute(&insert).unwrap();
    });
}

pub fn a_copy_from_or_to_the_client_leaves_the_transaction_as_it_was<H: InTransaction>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    for text in texts(&table) {
        H::with(|backend| {
            on(backend, &table.insert()).unwrap();
            let error = Lock::new(&mut *backend, &key).batch_execute(&text);
            if is_told(&error.unwrap_err(), &text) {
                oracle.assert_free(&key);
                on(backend, &table.assert_rows(1)).unwrap();
            }
        });
        oracle.wait_until_free(&key);
    }
}

pub fn a_text_with_that_word_keeps_the_lock_for_the_transaction<H: InTransaction>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    H::with(|backend| {
        let text = format!("{}; SELECT 'copy'", table.insert());
        Lock::new(&mut *backend, &key).batch_execute(&text).unwrap();
        oracle.holder(&key);
        on(backend, &table.assert_rows(1)).unwrap();
        let text = format!("{text}; SELECT 1 / 0");
        of_statements(
            Lock::new(&mut *backend, &key)
                .batch_execute(&text)
                .unwrap_err(),
        );
        on(backend, &table.assert_rows(1)).unwrap();
    });
    oracle.wait_until_free(&key);
    assert_eq!(table.rows(), 0);
}
