//! Settings that somebody else has made for the session.

use std::time::Duration;

use pglock::driver::{BoxError, Session};
use pglock::{Error, Lock, try_with_lock, with_lock, with_transaction_lock};

use crate::harness::{Harness, on, sql};
use crate::oracle::{Oracle, Table, unique_key};

pub fn no_setting_changes_what_a_lock_does<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    let taken = unique_key();
    oracle.lock(&taken);
    let settings = [
        "search_path = ''",
        "standard_conforming_strings = off",
        "client_encoding = 'LATIN1'",
        "DateStyle = 'German, DMY'",
        "IntervalStyle = 'sql_standard'",
        "TimeZone = 'Pacific/Chatham'",
        "extra_float_digits = -15",
        "plpgsql.extra_errors = 'all'",
        "plpgsql.variable_conflict = 'error'",
        "default_transaction_deferrable = on",
        "row_security = off",
        "transaction_timeout = '1h'", // from PostgreSQL 17
        "idle_session_timeout = '1h'",
        "idle_in_transaction_session_timeout = '1h'",
        "statement_timeout = '1h'",
        "lock_timeout = '1h'",
    ];
    H::with(|backend| {
        for setting in settings {
            let known = on(backend, &format!("SET {setting}")).is_ok();
            assert!(known || setting.starts_with("transaction_"), "{setting}");
        }
        let insert = table.insert().replace("INTO ", "INTO public.");
        with_lock(backend, &key, |conn| {
            oracle.holder(&key);
            sql(conn, &insert)
        })
        .unwrap();
        with_transaction_lock(backend, &key, |tx| sql(tx, &insert)).unwrap();
        assert_eq!(table.rows(), 2);
        let busy = try_with_lock(backend, &taken, |_| Ok::<_, Error>(()));
        assert!(busy.unwrap().is_none());
        let mut lock = Lock::new(&mut *backend, &taken).timeout(Duration::from_millis(20));
        let timeouts = [
            lock.run(|_| Ok::<_, Error>(())),
            lock.run_in_transaction(|_| Ok::<_, Error>(())),
        ];
        for timeout in timeouts {
            assert!(matches!(timeout, Err(Error::Timeout { .. })), "{timeout:?}");
        }

        // A read-only transaction can still lock.
        on(backend, "SET default_transaction_read_only = on").unwrap();
        with_transaction_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
        with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
        oracle.assert_free(&key);
    });
}

pub fn a_section_that_idles_too_long_is_told<H: Harness>() {
    for begin in ["", "BEGIN; "] {
        let (mut oracle, key) = (Oracle::new(), unique_key());
        H::with(|backend| {
            let mut told_early = false;
            let outcome = with_lock(backend, &key, |conn| {
                let pid = oracle.holder(&key);
                told_early = sql(conn, &format!("{begin}{IMPATIENT}")).is_err();
                oracle.wait_for_end(pid);
                Ok::<_, Error>(())
            });
            let Err(Error::LockLost {
                source: Some(source),
                ..
            }) = outcome
            else {
                panic!("{begin}: {outcome:?}");
            };
            assert_reason::<H>(&source, told_early);
            oracle.assert_free(&key);
        });
    }
}

pub fn a_transaction_that_idles_too_long_is_told<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        let mut told_early = false;
        let outcome = with_transaction_lock(backend, &key, |tx| {
            let pid = oracle.holder(&key);
            told_early = sql(tx, &format!("{}; {IMPATIENT}", table.insert())).is_err();
            oracle.wait_for_end(pid);
            Ok::<_, Error>(())
        });
        let Err(Error::ConnectionLost {
            committing: true,
            source,
            ..
        }) = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_reason::<H>(&source, told_early);
        oracle.assert_free(&key);
        assert_eq!(table.rows(), 0);
    });
}

/// The server's reason is the error's source, unless a slow client got it together with its last
/// reply. Of several messages, libpq gives diesel only the last, which is libpq's own.
fn assert_reason<H: Harness>(source: &BoxError, told_early: bool) {
    if crate::SessionOf::<'_, H>::HAS_SQLSTATE && !told_early {
        assert!(format!("{source:?}").contains("timeout"), "{source:?}");
    }
}

const IMPATIENT: &str =
    "SET idle_session_timeout = '10ms'; SET idle_in_transaction_session_timeout = '10ms'";
