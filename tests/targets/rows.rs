//! Rows, in a transaction that pglock opens.

use std::thread;
use std::time::Duration;

use pglock::{Error, Lock, Row, try_with_transaction_lock, with_transaction_lock};

use crate::harness::{Harness, holds, on, sql};
use crate::oracle::{Oracle, connect, unique_name};
use crate::seats::{SHORT, Seats, never, nothing, wait_for_waiter};

pub fn a_row_is_locked_for_the_body<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        with_transaction_lock(backend, seats.row(1), |tx| {
            assert!(!seats.is_free(1, "KEY SHARE"), "as strong as FOR UPDATE");
            assert!(seats.is_free(2, "UPDATE"), "no other row");
            sql(tx, &seats.book(1, "ada"))
        })
        .unwrap();
        assert_eq!(seats.buyer(1).as_deref(), Some("ada"), "committed");
        assert!(seats.is_free(1, "UPDATE"));

        let error = with_transaction_lock(backend, seats.row(2), |tx| {
            sql(tx, &seats.book(2, "ada"))?;
            Err::<(), _>(Error::body("no"))
        });
        error.unwrap_err();
        assert_eq!(seats.buyer(2), None, "rolled back");
        assert!(seats.is_free(2, "UPDATE"));
    });
}

pub fn a_second_section_waits_for_the_row_and_sees_its_writes<H: Harness>() {
    let seats = Seats::new();
    let mut holder = seats.holder();
    H::with(|backend| {
        thread::scope(|threads| {
            threads.spawn(|| {
                let (_, kind) = wait_for_waiter(&mut Oracle::new(), holder.pid);
                assert_eq!(kind, "transactionid");
                holder.run(&format!("{}; COMMIT", seats.book(1, "ada")));
            });
            let taken = format!(
                "SELECT 1 / (buyer = 'ada')::int FROM {} WHERE id = 1",
                seats.name
            );
            let mut lock = Lock::new(backend, seats.row(1)).timeout(Duration::from_secs(30));
            lock.run_in_transaction(|tx| sql(tx, &taken)).unwrap();
        });
    });
}

pub fn shared_holders_share_the_row<H: Harness>() {
    let seats = Seats::new();
    let _reader = seats.other("SELECT FROM seats WHERE id = 1 FOR SHARE");
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, seats.row(1)).shared();
        let held = lock.try_run_in_transaction(|_| {
            assert!(seats.is_free(1, "SHARE"));
            assert!(!seats.is_free(1, "NO KEY UPDATE"));
            Ok::<_, Error>(())
        });
        assert!(held.unwrap().is_some());
        let busy = try_with_transaction_lock(backend, seats.row(1), |_| never());
        assert!(busy.unwrap().is_none());
    });
}

pub fn the_gentler_lock_lets_references_in<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let row = seats.row(1).no_key_update();
        with_transaction_lock(backend, &row, |_| {
            assert!(seats.is_free(1, "KEY SHARE"));
            assert!(!seats.is_free(1, "SHARE"));
            Ok::<_, Error>(())
        })
        .unwrap();
    });
}

pub fn a_row_by_several_columns<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let table = ("public", seats.name.clone());
        let row = Row::new(table, "id", 1).and("day", "2026-11-20");
        with_transaction_lock(backend, &row, |_| {
            assert!(!seats.is_free(1, "UPDATE"));
            assert!(seats.is_free(2, "UPDATE"));
            Ok::<_, Error>(())
        })
        .unwrap();
        // All that match.
        let row = Row::new(seats.name.as_str(), "day", "2026-11-20");
        with_transaction_lock(backend, row, |_| {
            assert!((1..=3).all(|id| !seats.is_free(id, "UPDATE")));
            Ok::<_, Error>(())
        })
        .unwrap();
    });
}

pub fn a_held_row_is_busy_and_holds_nothing<H: Harness>() {
    let seats = Seats::new();
    let holder = seats.holder();
    H::with(|backend| {
        let busy = try_with_transaction_lock(backend, seats.row(1), |_| never());
        assert!(busy.unwrap().is_none());

        let mut lock = Lock::new(&mut *backend, seats.row(1)).timeout(SHORT);
        let error = lock.run_in_transaction(|_| never()).unwrap_err();
        let timeout = matches!(
            error,
            Error::Timeout {
                timeout: Some(SHORT),
                ..
            }
        );
        assert!(timeout && error.is_retryable(), "{error:?}");
        let shown = format!("row id = 1 of \"{}\" (exclusive)", seats.name);
        assert!(error.to_string().contains(&shown), "{error}");
        let handled = lock.run_in_transaction_or_else(|_| Ok::<_, Error>(1), |_| Ok(2));
        assert_eq!(handled.unwrap(), 2);
        assert!(lock.try_run_in_transaction(|_| never()).unwrap().is_none());

        drop(holder);
        on(&mut *backend, &seats.book(2, "in autocommit again")).unwrap();
        assert!(seats.buyer(2).is_some());
        assert!(seats.is_free(2, "UPDATE"));
    });
}

pub fn a_locked_table_does_not_hold_up_an_attempt<H: Harness>() {
    let seats = Seats::new();
    let _holder = seats.other("LOCK TABLE seats IN EXCLUSIVE MODE");
    H::with(|backend| {
        let busy = try_with_transaction_lock(backend, seats.row(1), |_| never());
        assert!(busy.unwrap().is_none());
    });
}

pub fn other_ends_of_the_wait_are_told_apart<H: Harness>() {
    let seats = Seats::new();
    let holder = seats.holder();
    H::with(|backend| {
        on(backend, "SET lock_timeout = '20ms'").unwrap();
        let error = with_transaction_lock(backend, seats.row(1), |_| never()).unwrap_err();
        let timeout = matches!(error, Error::Timeout { timeout: None, .. });
        assert!(timeout, "{error:?}");
        on(backend, "RESET lock_timeout").unwrap();

        thread::scope(|threads| {
            threads.spawn(|| {
                let mut oracle = Oracle::new();
                let (waiter, _) = wait_for_waiter(&mut oracle, holder.pid);
                oracle.cancel(waiter);
            });
            let error = with_transaction_lock(backend, seats.row(1), |_| never()).unwrap_err();
            assert!(matches!(error, Error::Canceled { .. }), "{error:?}");
        });
        thread::scope(|threads| {
            threads.spawn(|| {
                let mut oracle = Oracle::new();
                let (waiter, _) = wait_for_waiter(&mut oracle, holder.pid);
                oracle.terminate(waiter);
            });
            let error = with_transaction_lock(backend, seats.row(1), |_| never()).unwrap_err();
            assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
        });
    });
}

pub fn a_deadlock_is_told<H: Harness>() {
    let seats = Seats::new();
    let mut other = seats.other("SET LOCAL deadlock_timeout = '10min'");
    other.run(&seats.book(2, "other"));
    H::with(|backend| {
        thread::scope(|threads| {
            let ours = backend.session_pid();
            let result = with_transaction_lock(backend, seats.row(1), |tx| {
                threads.spawn(|| other.run(&seats.book(1, "other")));
                wait_for_waiter(&mut Oracle::new(), ours);
                with_transaction_lock(tx, seats.row(2), |_| never())
            });
            assert!(matches!(result, Err(Error::Deadlock { .. })), "{result:?}");
        });
    });
}

/// The server process of a backend's session.
trait SessionPid {
    fn session_pid(&mut self) -> i32;
}

impl<B: pglock::LockBackend> SessionPid for B {
    fn session_pid(&mut self) -> i32 {
        use pglock::driver::Session;
        let mut session = self.session().unwrap();
        let pid = session.query("SELECT pg_backend_pid()::text AS line");
        pid.unwrap()[0].parse().unwrap()
    }
}

pub fn settings_are_as_they_were<H: Harness>() {
    let seats = Seats::new();
    let holder = seats.holder();
    H::with(|backend| {
        on(backend, "SET lock_timeout = '7s'").unwrap();
        let is_kept = "current_setting('lock_timeout') = '7s'";
        let mut lock = Lock::new(&mut *backend, seats.row(1)).timeout(SHORT);
        lock.run_in_transaction(|_| never()).unwrap_err();
        assert!(holds(backend, is_kept), "after a failure");
        drop(holder);
        let mut lock = Lock::new(&mut *backend, seats.row(1)).timeout(SHORT);
        let in_body =
            lock.run_in_transaction(|tx| sql(tx, &format!("SELECT 1 / ({is_kept})::int")));
        in_body.unwrap();
        assert!(holds(backend, is_kept), "after a success");
    });
}

pub fn a_missing_row_is_told<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let error = with_transaction_lock(backend, seats.row(4), |_| never()).unwrap_err();
        assert!(matches!(error, Error::NoSuchRow { .. }), "{error:?}");
        assert!(error.to_string().contains("row id = 4 of"), "{error}");
        let error = try_with_transaction_lock(backend, seats.row(4), |_| never()).unwrap_err();
        assert!(matches!(error, Error::NoSuchRow { .. }), "{error:?}");
        on(backend, &seats.book(1, "in autocommit again")).unwrap();
        assert!(seats.buyer(1).is_some());
    });
}

pub fn a_row_deleted_in_the_wait_is_missing<H: Harness>() {
    let seats = Seats::new();
    let mut holder = seats.holder();
    H::with(|backend| {
        thread::scope(|threads| {
            threads.spawn(|| {
                wait_for_waiter(&mut Oracle::new(), holder.pid);
                holder.run(&format!("DELETE FROM {} WHERE id = 1; COMMIT", seats.name));
            });
            let error = with_transaction_lock(backend, seats.row(1), |_| never()).unwrap_err();
            assert!(matches!(error, Error::NoSuchRow { .. }), "{error:?}");
        });
    });
}

pub fn the_servers_errors_name_the_target<H: Harness>() {
    let seats = Seats::new();
    let name = seats.name.as_str();
    let upper = name.to_uppercase();
    let wrong = [
        (Row::new("pglock:busy", "id", 1), "does not exist"),
        (
            Row::new(("pglock_no_schema", name), "id", 1),
            "does not exist",
        ),
        (Row::new(upper.as_str(), "id", 1), "does not exist"),
        (Row::new(name, "seat", 1), "does not exist"),
        (Row::new(name, "", 1), "zero-length"),
        (Row::new(name, "id", "pglock:busy"), "invalid input syntax"),
        (Row::new(name, "id", "9999999999999"), "out of range"),
    ];
    H::with(|backend| {
        for (row, reason) in &wrong {
            let error = try_with_transaction_lock(backend, row, |_| never()).unwrap_err();
            assert!(matches!(error, Error::Database { .. }), "{error:?}");
            assert!(!error.is_retryable());
            let text = format!("{:#}", anyhow::Error::new(error));
            assert!(
                text.starts_with("cannot acquire row ") && text.contains(reason),
                "{text}"
            );
        }
        with_transaction_lock(backend, seats.row(1), |_| nothing()).unwrap();
    });
}

pub fn hostile_names_and_values_are_just_texts<H: Harness>() {
    let texts = [
        r#"it's "quoted""#,
        "a.b",
        "Upper Case",
        "$pglock$; DROP TABLE seat; --",
        r"\'; \x24 \\",
        "🔒%I%L$1",
        "E''",
        "\u{101}\\' = \u{e9}",
    ];
    H::with(|backend| {
        for text in texts {
            let schema = unique_name("schema");
            let name = format!("{text} of {schema}");
            let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let (table, column) = (quoted(&name), quoted(text));
            let mut client = connect();
            client
                .batch_execute(&format!(
                    "CREATE SCHEMA {schema}; CREATE TABLE {schema}.{table} ({column} text)"
                ))
                .unwrap();
            let insert = format!("INSERT INTO {schema}.{table} VALUES ($1)");
            client.execute(&insert, &[&text]).unwrap();

            let settings = [
                "SET standard_conforming_strings = off",
                "SET standard_conforming_strings = on",
                "SET backslash_quote = on; SET client_encoding = 'SJIS'",
                "SET client_encoding = 'GB18030'",
                "SET client_encoding = 'UTF8'",
            ];
            for set in settings {
                on(backend, set).unwrap();
                let row = Row::new((schema.as_str(), name.as_str()), text, text);
                let nowait = format!("SELECT FROM {schema}.{table} FOR UPDATE NOWAIT");
                with_transaction_lock(backend, &row, |_| {
                    connect().execute(&nowait, &[]).unwrap_err();
                    Ok::<_, Error>(())
                })
                .unwrap();
                let other = Row::new((schema.as_str(), name.as_str()), text, format!("{text}'"));
                let missing = with_transaction_lock(backend, other, |_| never()).unwrap_err();
                assert!(matches!(missing, Error::NoSuchRow { .. }), "{missing:?}");
            }
            client
                .batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))
                .unwrap();
        }
    });
}

pub fn a_nul_byte_is_refused_before_anything_is_sent<H: Harness>() {
    H::with(|backend| {
        for row in [
            Row::new("no\0table", "id", 1),
            Row::new(("no\0schema", "seat"), "id", 1),
            Row::new("seat", "i\0d", 1),
            Row::new("seat", "id", "\0"),
        ] {
            let error = with_transaction_lock(backend, row, |_| never()).unwrap_err();
            assert!(matches!(error, Error::NulByte { .. }), "{error:?}");
            assert!(!error.to_string().contains('\0'), "{error}");
        }
    });
}

pub fn a_changed_row_is_told_under_repeatable_read<H: Harness>() {
    let seats = Seats::new();
    let mut holder = seats.holder();
    H::with(|backend| {
        on(
            backend,
            "SET default_transaction_isolation = 'repeatable read'",
        )
        .unwrap();
        thread::scope(|threads| {
            threads.spawn(|| {
                wait_for_waiter(&mut Oracle::new(), holder.pid);
                holder.run(&format!("{}; COMMIT", seats.book(1, "ada")));
            });
            let error = with_transaction_lock(backend, seats.row(1), |_| never()).unwrap_err();
            assert!(matches!(error, Error::Changed { .. }), "{error:?}");
            assert!(error.is_retryable());
        });
        with_transaction_lock(backend, seats.row(1), |_| nothing()).unwrap();
    });
}

/// If a subtransaction locked the row, each update of it would cost a multixact.
#[test]
fn with_postgres_the_row_is_locked_in_the_transactions_own_name() {
    let seats = Seats::new();
    let own = format!(
        "SELECT xmax = pg_current_xact_id()::xid FROM {} WHERE id = 1",
        seats.name
    );
    with_transaction_lock(&mut connect(), seats.row(1), |tx| {
        assert!(tx.query_one(&own, &[])?.get::<_, bool>(0));
        Ok::<_, Error>(())
    })
    .unwrap();
}
