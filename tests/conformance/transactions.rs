//! The transaction forms, where pglock opens the transaction.

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use pglock::{Error, Lock, Scope, try_with_transaction_lock, with_lock, with_transaction_lock};

use crate::harness::{Harness, Refusal, on, sql};
use crate::oracle::{Oracle, Table, unique_key};

pub fn work_is_committed_with_the_lock<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        with_transaction_lock(backend, &key, |tx| {
            assert_eq!(oracle.held(&key), ["ExclusiveLock"]);
            sql(tx, &table.insert())?;
            assert_eq!(table.rows(), 0, "not before the COMMIT");
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(table.rows(), 1);
        oracle.assert_free(&key);
        // The connection is outside a transaction again, for pglock and for its driver.
        with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
    });
}

/// The COMMIT lets the waiter in, and the waiter sees what was committed.
pub fn the_next_holder_sees_the_commit<H: Harness>() {
    let (mut oracle, mut other, key, table) =
        (Oracle::new(), Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        std::thread::scope(|threads| {
            let waiter = with_transaction_lock(backend, &key, |tx| {
                sql(tx, &table.insert())?;
                let waiter = threads.spawn(|| {
                    other.lock(&key);
                    other.count(&table.name)
                });
                oracle.wait_for_waiter(&key);
                Ok::<_, Error>(waiter)
            });
            assert_eq!(waiter.unwrap().join().unwrap(), 1);
        });
    });
}

/// The read is a statement of its own, after the wait: its snapshot is younger than the lock.
pub fn a_transaction_that_waited_sees_what_was_committed<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        for timeout in [None, Some(Duration::from_secs(60))] {
            let mut lock = Lock::new(&mut *backend, &key);
            if let Some(timeout) = timeout {
                lock = lock.timeout(timeout);
            }
            oracle.write_when_waited_for(&key, &table, || {
                lock.run_in_transaction(|tx| sql(tx, &table.assert_rows(1)))
                    .unwrap();
            });
        }
    });
}

pub fn an_error_rolls_the_work_back<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        for statement in ["SELECT 1", "SELECT 1 / 0"] {
            let error = with_transaction_lock(backend, &key, |tx| {
                sql(tx, &table.insert())?;
                let _ = sql(tx, statement);
                Err::<(), _>(Refusal::Body)
            });
            assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
            oracle.assert_free(&key);
        }
        assert_eq!(table.rows(), 0);
        with_transaction_lock(backend, &key, |tx| sql(tx, &table.insert())).unwrap();
        assert_eq!(table.rows(), 1);
    });
}

pub fn an_error_commits_the_work_where_that_was_asked_for<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).rollback_on_error(false);
        let error = lock.run_in_transaction(|tx| {
            sql(tx, &table.insert())?;
            Err::<(), _>(Refusal::Body)
        });
        assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
        assert_eq!(table.rows(), 1);
        // A transaction that cannot commit is rolled back, and the body's error wins.
        let error = lock.run_in_transaction(|tx| {
            let _ = sql(tx, "SELECT 1 / 0");
            Err::<(), _>(Refusal::Body)
        });
        assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
        oracle.assert_free(&key);
    });
}

pub fn a_panic_rolls_the_work_back<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            with_transaction_lock(backend, &key, |tx| -> Result<(), Error> {
                sql(tx, &table.insert())?;
                resume_unwind(Box::new("of the body"))
            })
        }));
        assert_eq!(
            *panic.unwrap_err().downcast::<&str>().unwrap(),
            "of the body"
        );
        oracle.assert_free(&key);
        assert_eq!(table.rows(), 0);
        with_transaction_lock(backend, &key, |tx| sql(tx, &table.insert())).unwrap();
        assert_eq!(table.rows(), 1);
    });
}

pub fn a_swallowed_sql_error_is_no_commit<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        let result = with_transaction_lock(backend, &key, |tx| {
            sql(tx, &table.insert())?;
            let _ = sql(tx, "SELECT 1 / 0");
            Ok::<_, Error>(())
        });
        assert!(
            matches!(result, Err(Error::NotCommitted { .. })),
            "{result:?}"
        );
        assert_eq!(table.rows(), 0);
        oracle.assert_free(&key);
        with_transaction_lock(backend, &key, |tx| sql(tx, &table.insert())).unwrap();
        assert_eq!(table.rows(), 1);
    });
}

pub fn a_commit_that_fails_is_no_commit<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    let deferred = format!(
        "ALTER TABLE {} ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED",
        table.name
    );
    oracle.client.batch_execute(&deferred).unwrap();
    H::with(|backend| {
        let twice = format!("{}; {}", table.insert(), table.insert());
        let result = with_transaction_lock(backend, &key, |tx| sql(tx, &twice));
        assert!(
            matches!(result, Err(Error::NotCommitted { .. })),
            "{result:?}"
        );
        assert_eq!(table.rows(), 0);
        oracle.assert_free(&key);
        with_transaction_lock(backend, &key, |tx| sql(tx, &table.insert())).unwrap();
        assert_eq!(table.rows(), 1);
    });
}

pub fn a_connection_that_died_before_the_commit_is_told<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        let result = with_transaction_lock(backend, &key, |tx| {
            sql(tx, &table.insert())?;
            let pid = oracle.holder(&key);
            oracle.terminate(pid);
            Ok::<_, Error>(())
        });
        let lost = matches!(
            result,
            Err(Error::ConnectionLost {
                committing: true,
                ..
            })
        );
        assert!(lost, "{result:?}");
        assert_eq!(table.rows(), 0);
        oracle.assert_free(&key);
    });
}

pub fn a_body_that_ends_the_transaction_itself_is_told<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    H::with(|backend| {
        let result = with_transaction_lock(backend, &key, |tx| {
            sql(tx, &format!("{}; COMMIT", table.insert()))
        });
        assert!(
            matches!(&result, Err(error) if error.is_lock_lost()),
            "{result:?}"
        );
        assert_eq!(table.rows(), 1);
        with_transaction_lock(backend, &key, |tx| sql(tx, &table.insert())).unwrap();
        assert_eq!(table.rows(), 2);
    });
}

pub fn a_held_key_opens_no_transaction<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    oracle.lock(&key);
    H::with(|backend| {
        let insert = table.insert();
        let busy = try_with_transaction_lock(backend, &key, |tx| sql(tx, &insert));
        assert!(busy.unwrap().is_none());
        let mut lock = Lock::new(&mut *backend, &key).timeout(Duration::from_millis(20));
        let timeout = lock.run_in_transaction(|tx| sql(tx, &insert));
        assert!(matches!(timeout, Err(Error::Timeout { .. })), "{timeout:?}");
        let handled = lock.run_in_transaction_or_else(|_| Ok::<_, Error>(1), |_| Ok(2));
        assert_eq!(handled.unwrap(), 2);
        assert_eq!(oracle.rows(&key).len(), 1);

        on(backend, &insert).unwrap();
        assert_eq!(table.rows(), 1, "in autocommit again");
        oracle.unlock(&key);
        assert!(
            try_with_transaction_lock(backend, &key, |tx| sql(tx, &insert))
                .unwrap()
                .is_some()
        );
        assert_eq!(table.rows(), 2);
    });
}

pub fn a_deadlock_ends_the_transaction<H: Harness>() {
    let (mut oracle, mut other) = (Oracle::new(), Oracle::new());
    let (ours, theirs, table) = (unique_key(), unique_key(), Table::new());
    other
        .client
        .batch_execute("SET deadlock_timeout = '10min'")
        .unwrap();
    other.lock(&theirs);
    H::with(|backend| {
        std::thread::scope(|threads| {
            let result = with_lock(backend, &ours, |conn| {
                threads.spawn(|| other.lock(&ours));
                oracle.wait_for_waiter(&ours);
                Lock::new(conn, &theirs).run_in_transaction(|tx| sql(tx, &table.insert()))
            });
            assert!(matches!(result, Err(Error::Deadlock { .. })), "{result:?}");
        });
        on(backend, &table.insert()).unwrap();
        assert_eq!(table.rows(), 1, "in autocommit again");
    });
}

pub fn a_stale_snapshot_is_refused_before_the_body<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        for level in ["repeatable read", "serializable"] {
            on(
                backend,
                &format!("SET default_transaction_isolation = '{level}'"),
            )
            .unwrap();
            let refused = with_transaction_lock(backend, &key, |_| -> Result<(), Error> {
                panic!("the body must not run")
            });
            assert!(
                matches!(refused, Err(Error::StaleSnapshot { .. })),
                "{refused:?}"
            );
            oracle.assert_free(&key);
            // The way out that the error names.
            with_lock(backend, &key, |conn| sql(conn, "BEGIN; SELECT 1; COMMIT")).unwrap();
        }
    });
}

pub fn the_session_scope_contradicts_a_transaction<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).scope(Scope::Session);
        let refused =
            lock.run_in_transaction(|_| -> Result<(), Error> { panic!("the body must not run") });
        assert!(
            matches!(refused, Err(Error::WrongScope { .. })),
            "{refused:?}"
        );
    });
}

/// From the third time on, the server plans nothing; a pool's connection is known wherever it stands.
pub fn a_transaction_that_begins_again_is_prepared<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let mut sent = String::new();
        for _ in 0..4 {
            with_transaction_lock(&mut *backend, &key, |_| {
                let pid = oracle.holder(&key);
                let query = "SELECT query FROM pg_stat_activity WHERE pid = $1";
                sent = oracle.client.query_one(query, &[&pid]).unwrap().get(0);
                Ok::<_, Error>(())
            })
            .unwrap();
        }
        // Of other connections a process has hints, which the tests beside this one make it give up.
        if type_name::<H::Backend<'_>>().contains("::Pool<") {
            assert!(sent.contains("EXECUTE pglock_"), "{sent}");
            assert!(!sent.contains("PREPARE"), "{sent}");
        }
    });
}
