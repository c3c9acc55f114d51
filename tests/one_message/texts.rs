//! What a text can contain: COMMIT and ROLLBACK, comments, strings.

use pglock::{Error, Lock};

use crate::harness::{Harness, holds, on};
use crate::of_statements;
use crate::oracle::{Oracle, Table, unique_key};

const IDLE: &str = "now() = statement_timestamp()";

/// The text ends the transaction: what comes before takes effect as it says, what comes after does not.
fn is_told<H: Harness>(end: &str, committed: i64) {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let text = format!("{0}; {end}; {0}", table.insert());
    H::with(|backend| {
        let error = Lock::new(&mut *backend, &key).batch_execute(&text);
        let error = error.unwrap_err();
        assert!(matches!(error, Error::LockLost { .. }), "{error:?}");
        oracle.assert_free(&key);
        assert!(holds(backend, IDLE));
    });
    assert_eq!(table.rows(), committed);
}

pub fn a_commit_in_the_text_is_told<H: Harness>() {
    is_told::<H>("COMMIT", 1);
    is_told::<H>("end/**/", 1);
}

pub fn a_rollback_in_the_text_is_told<H: Harness>() {
    is_told::<H>("ROLLBACK", 0);
    is_told::<H>("aBORT", 0);
}

pub fn a_commit_and_a_begin_are_told<H: Harness>() {
    is_told::<H>("COMMIT; BEGIN", 1);
    is_told::<H>("BEGIN; COMMIT; START TRANSACTION", 1);
}

pub fn a_transaction_left_open_is_rolled_back_and_told<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let text = format!("{0}; BEGIN; {0}", table.insert());
    H::with(|backend| {
        let error = Lock::new(&mut *backend, &key).batch_execute(&text);
        let error = error.unwrap_err();
        assert!(
            matches!(error, Error::TransactionLeftOpen { .. }),
            "{error:?}"
        );
        oracle.assert_free(&key);
        assert!(holds(backend, IDLE));
    });
    assert_eq!(table.rows(), 0);
}

pub fn a_failed_transaction_of_the_text_is_rolled_back<H: Harness>() {
    let (key, table, mut oracle) = (unique_key(), Table::new(), Oracle::new());
    let text = format!("BEGIN; {}; SELECT 1 / 0", table.insert());
    H::with(|backend| {
        of_statements(
            Lock::new(&mut *backend, &key)
                .batch_execute(&text)
                .unwrap_err(),
        );
        oracle.assert_free(&key);
        assert!(holds(backend, IDLE));
    });
    assert_eq!(table.rows(), 0);
}

pub fn words_in_strings_and_blocks_do_no_harm<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    let text = format!(
        "DO $$ BEGIN {}; END $$; SELECT 'begin; commit', CASE WHEN true THEN 1 END -- rollback",
        table.insert()
    );
    H::with(|backend| Lock::new(backend, &key).batch_execute(&text).unwrap());
    assert_eq!(table.rows(), 1);
}

pub fn any_text_ends_where_it_ends<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    let mut oracle = Oracle::new();
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key);
        for end in [
            "",
            ";",
            ";;\n;",
            " -- no more",
            " -- commit",
            " /* commit */",
            "\n",
        ] {
            lock.batch_execute(&(table.insert() + end)).unwrap();
        }
        for nothing in ["", ";", "-- nothing", "/* begin */"] {
            lock.batch_execute(nothing).unwrap();
        }
        for open in [
            " /* open",
            "; SELECT 'open",
            "; SELECT $$open -- end",
            "; SELECT \"open",
        ] {
            of_statements(lock.batch_execute(&(table.insert() + open)).unwrap_err());
            oracle.assert_free(&key);
        }
        on(backend, "SET standard_conforming_strings = off").unwrap();
        Lock::new(&mut *backend, &key)
            .batch_execute(&table.insert())
            .unwrap();
    });
    assert_eq!(table.rows(), 8);
}

pub fn a_nul_is_refused<H: Harness>() {
    let table = Table::new();
    H::with(|backend| {
        let text = table.insert() + "; SELECT " + &pglock::quote_literal("a\0b");
        let error = Lock::new(backend, unique_key())
            .batch_execute(&text)
            .unwrap_err();
        assert!(matches!(error, Error::NulByte { .. }), "{error:?}");
    });
    assert_eq!(table.rows(), 0);
}
