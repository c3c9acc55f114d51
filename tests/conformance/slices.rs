//! A wait that is longer than a slice: how the server sees it, and what ends it.

use std::time::Duration;

use pglock::{
    Error, Key, Lock, StopToken, inspect, transaction_lock, with_lock, with_transaction_lock,
};

use crate::harness::{Harness, InTransaction, holds, on, sql, third_driver};
use crate::oracle::{Oracle, Table, unique_key, url, wait_until};

/// Another session, on the driver that needs no feature.
fn connect() -> third_driver::Connection {
    third_driver::Connection::connect(&url()).unwrap()
}

/// Waits until the waiter for the key is in its second slice or later, and returns how many
/// milliseconds it had waited before that.
pub(crate) fn wait_for_second_slice(oracle: &mut Oracle, key: &Key) -> i32 {
    wait_until("the second slice of a wait", || {
        let pid = oracle.wait_for_waiter(key);
        let query = "SELECT substring(query FROM 'waited ([0-9]+) ms')::int FROM pg_stat_activity WHERE pid = $1";
        oracle.client.query_one(query, &[&pid]).unwrap().get(0)
    })
}

pub fn a_long_wait_ends_with_the_lock<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        for in_transaction in [false, true] {
            oracle.lock(&key);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    let waited = wait_for_second_slice(&mut oracle, &key);
                    let waiters = inspect::waiters(&mut connect(), &key).unwrap();
                    if let [waiter] = waiters.as_slice() {
                        let whole = waiter.waiting_for.unwrap();
                        assert!(whole >= Duration::from_millis(waited.try_into().unwrap()));
                    }
                    oracle.client.batch_execute(&table.insert()).unwrap();
                    oracle.unlock(&key);
                });
                let sees = table.assert_rows(1 + u32::from(in_transaction));
                match in_transaction {
                    false => with_lock(backend, &key, |conn| sql(conn, &sees)),
                    true => with_transaction_lock(backend, &key, |tx| sql(tx, &sees)),
                }
                .unwrap();
            });
            oracle.assert_free(&key);
        }
    });
}

pub fn an_index_is_built_concurrently_under_a_wait<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        std::thread::scope(|threads| {
            with_lock(backend, &key, |conn| {
                threads.spawn(|| {
                    with_lock(&mut connect(), &key, |_| Ok::<_, Error>(())).unwrap();
                });
                threads.spawn(|| {
                    with_transaction_lock(&mut connect(), &key, |_| Ok::<_, Error>(())).unwrap();
                });
                oracle.wait_for_waiters(&key, 2);
                sql(
                    conn,
                    &format!("CREATE INDEX CONCURRENTLY ON {} (n)", table.name),
                )
            })
            .unwrap();
        });
        let valid = "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = $1::text::regclass";
        let valid = oracle.client.query_one(valid, &[&table.name]).unwrap();
        assert_eq!(valid.get::<_, Option<bool>>(0), Some(true));
    });
}

pub fn the_sessions_own_timeouts_end_a_long_wait<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        on(backend, "SET lock_timeout = '1100ms'").unwrap();
        let told = with_lock(backend, &key, |_| Ok::<_, Error>(()));
        assert!(
            matches!(told, Err(Error::Timeout { timeout: None, .. })),
            "{told:?}"
        );
        on(
            backend,
            "SET lock_timeout = 0; SET statement_timeout = '1100ms'",
        )
        .unwrap();
        let told = with_lock(backend, &key, |_| Ok::<_, Error>(()));
        assert!(matches!(told, Err(Error::Canceled { .. })), "{told:?}");
        on(backend, "SET statement_timeout = 0").unwrap();
        assert_eq!(oracle.rows(&key).len(), 1);
    });
}

pub fn a_token_ends_the_wait<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        let token = StopToken::new();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                oracle.wait_for_waiter(&key);
                token.stop();
            });
            let told = Lock::new(&mut *backend, &key)
                .stop_on(&token)
                .run(|_| Ok::<_, Error>(()));
            assert!(matches!(told, Err(Error::Stopped { .. })), "{told:?}");
        });
        assert_eq!(oracle.rows(&key).len(), 1);
        let told = Lock::new(&mut *backend, unique_key())
            .stop_on(&token)
            .run_in_transaction(|_| Ok::<_, Error>(()));
        assert!(matches!(told, Err(Error::Stopped { .. })), "{told:?}");
        with_lock(backend, unique_key(), |_| Ok::<_, Error>(())).unwrap();
    });
}

pub fn a_name_is_shown_where_that_was_asked_for<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        let token = StopToken::new();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                oracle.wait_for_waiter(&key);
                let label = wait_until("a labelled waiter", || {
                    let waiters = inspect::waiters(&mut connect(), &key).unwrap();
                    waiters.into_iter().next()?.label
                });
                assert!(label.contains(key.name().unwrap()), "{label}");
                token.stop();
            });
            let mut lock = Lock::new(&mut *backend, &key)
                .labelled(true)
                .stop_on(&token);
            lock.run(|_| Ok::<_, Error>(())).unwrap_err();
        });
    });
}

/// A pooler gives this process a server session that another process has used.
pub fn a_session_that_holds_the_key_for_another_process_is_refused<H: Harness>() {
    let (mut oracle, key, other) = (Oracle::new(), unique_key(), unique_key());
    let call = |function: &str, key: &Key| format!("SELECT {function}({})", key.as_i64().unwrap());
    let ok =
        |backend: &mut H::Backend<'_>, key: &Key| with_lock(backend, key, |_| Ok::<_, Error>(()));
    H::with(|backend| {
        ok(&mut *backend, &key).unwrap();

        let bears_another = "SET pglock.client = '0123456789abcdef'";
        on(backend, bears_another).unwrap();
        on(backend, &call("pg_advisory_lock", &key)).unwrap();
        for _ in 0..2 {
            let refused = ok(&mut *backend, &key);
            assert!(
                matches!(refused, Err(Error::SharedSession { .. })),
                "{refused:?}"
            );
        }
        oracle.holder(&key);
        // Other keys are free, and do not change that.
        with_lock(backend, &other, |conn| {
            let refused = with_lock(conn, &key, |_| Ok::<_, Error>(()));
            assert!(
                matches!(refused, Err(Error::SharedSession { .. })),
                "{refused:?}"
            );
            oracle.holder(&other);
            Ok::<_, Error>(())
        })
        .unwrap();
        oracle.assert_free(&other);

        // If the other process holds nothing, its number does not matter.
        on(backend, &call("pg_advisory_unlock", &key)).unwrap();
        with_lock(backend, &key, |conn| {
            with_lock(conn, &key, |_| Ok::<_, Error>(()))
        })
        .unwrap();
        on(backend, bears_another).unwrap();
        with_lock(backend, &key, |conn| {
            with_lock(conn, &key, |_| Ok::<_, Error>(()))
        })
        .unwrap();

        // Another process waits in line on the session, for whatever: it may get the key next.
        on(backend, "SET pglock.client = '0123456789abcdef'").unwrap();
        on(backend, "SET pglock.idle = 'word 0'").unwrap();
        on(backend, &call("pg_advisory_lock", &other)).unwrap();
        let refused = ok(&mut *backend, &key);
        assert!(
            matches!(refused, Err(Error::SharedSession { .. })),
            "{refused:?}"
        );
        on(backend, &call("pg_advisory_unlock", &other)).unwrap();
        on(backend, "SET pglock.idle = ''").unwrap();

        // A session that has lost its number may hold anybody's locks.
        for reset in ["RESET ALL", "SET pglock.client = ''"] {
            on(backend, reset).unwrap();
            on(backend, &call("pg_advisory_lock", &key)).unwrap();
            let refused = ok(&mut *backend, &key);
            assert!(
                matches!(refused, Err(Error::SharedSession { .. })),
                "{reset}: {refused:?}"
            );
            ok(&mut *backend, &other).unwrap();
            let refused = ok(&mut *backend, &key);
            assert!(
                matches!(refused, Err(Error::SharedSession { .. })),
                "{reset}: {refused:?}"
            );
            oracle.holder(&key);
            on(backend, &call("pg_advisory_unlock", &key)).unwrap();
            ok(&mut *backend, &key).unwrap();
            oracle.assert_free(&key);
        }
    });
    // A lock that the session's owner took with SQL stays the owner's.
    H::with(|backend| {
        on(backend, &call("pg_advisory_lock", &key)).unwrap();
        ok(&mut *backend, &key).unwrap();
        oracle.holder(&key);
    });
}

/// A pooler gives this process a server session whose lock another process holds, and the forms that begin
/// their own transaction would get it too.
pub fn a_session_that_holds_the_key_is_refused_to_transactions<H: Harness>() {
    let (mut oracle, key, other) = (Oracle::new(), unique_key(), unique_key());
    H::with(|backend| {
        for number in ["0123456789abcdef", ""] {
            on(backend, &format!("SET pglock.client = '{number}'")).unwrap();
            let lock = format!("SELECT pg_advisory_lock({})", key.as_i64().unwrap());
            on(backend, &lock).unwrap();
            for timeout in [None, Some(Duration::ZERO), Some(Duration::from_secs(1))] {
                let mut lock = Lock::new(&mut *backend, &key);
                if let Some(timeout) = timeout {
                    lock = lock.timeout(timeout);
                }
                let refused = [
                    lock.run_in_transaction(|_| Ok::<_, Error>(())),
                    lock.batch_execute("SELECT 1"),
                ];
                for refused in refused {
                    assert!(
                        matches!(refused, Err(Error::SharedSession { .. })),
                        "{number:?} {timeout:?}: {refused:?}"
                    );
                }
            }
            oracle.holder(&key);
            with_transaction_lock(&mut *backend, &other, |_| Ok::<_, Error>(())).unwrap();
            let mut lock = Lock::new(&mut *backend, &other);
            lock.batch_execute("SELECT 1").unwrap();
            on(backend, "SELECT pg_advisory_unlock_all()").unwrap();
            with_transaction_lock(&mut *backend, &key, |_| Ok::<_, Error>(())).unwrap();
        }
    });
}

/// What a wait in slices has for its transaction is not what the session holds for another process.
pub fn a_session_that_has_lost_its_number_waits_in_transactions<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let many: Vec<_> = (0..20).map(|_| unique_key()).chain([key.clone()]).collect();
    H::with(|backend| {
        for (number, keys) in [("0123456789abcdef", vec![key.clone()]), ("", many.clone())] {
            on(backend, &format!("SET pglock.client = '{number}'")).unwrap();
            for one_message in [false, true] {
                oracle.lock(&key);
                std::thread::scope(|threads| {
                    threads.spawn(|| {
                        // Before the second slice, the acquire is sent once more for the session's number.
                        wait_until("a quiet slice", || {
                            (wait_for_second_slice(&mut oracle, &key) > 600).then_some(())
                        });
                        oracle.unlock(&key);
                    });
                    let mut lock = Lock::new(&mut *backend, keys.clone());
                    match one_message {
                        false => lock.run_in_transaction(|_| Ok::<_, Error>(())).unwrap(),
                        true => lock.batch_execute("SELECT 1").unwrap(),
                    }
                });
                oracle.assert_free(&key);
            }
        }
    });
}

/// The same in a transaction of the caller's, whose own locks look alike, and are granted again.
pub fn a_session_that_holds_the_key_is_refused_to_the_callers_transaction<H: InTransaction>() {
    let (mut oracle, key, other) = (Oracle::new(), unique_key(), unique_key());
    let number = key.as_i64().unwrap();
    H::with(|backend| {
        for (suffix, bears) in [("", "0123456789abcdef"), ("_shared", "")] {
            let taken = format!(
                "SELECT set_config('pglock.client', '{bears}', false), pg_advisory_lock{suffix}({number})"
            );
            on(backend, &taken).unwrap();
            for timeout in [None, Some(Duration::ZERO), Some(Duration::from_secs(1))] {
                for keys in [&[key.clone()][..], &[key.clone(), other.clone()]] {
                    let mut lock = Lock::new(&mut *backend, keys);
                    if let Some(timeout) = timeout {
                        lock = lock.timeout(timeout);
                    }
                    let refused = [
                        lock.run(|_| Ok::<_, Error>(())),
                        lock.batch_execute("SELECT 1"),
                    ];
                    for refused in refused {
                        assert!(
                            matches!(refused, Err(Error::SharedSession { .. })),
                            "{suffix} {timeout:?}: {refused:?}"
                        );
                    }
                }
            }
            oracle.holder(&key); // it has not gone meanwhile
            for _ in 0..2 {
                transaction_lock(backend, &other).unwrap();
                let mut lock = Lock::new(&mut *backend, &other);
                lock.batch_execute("SELECT 1").unwrap();
            }
            on(
                backend,
                &format!("SELECT pg_advisory_unlock{suffix}({number})"),
            )
            .unwrap();
            transaction_lock(backend, &key).unwrap();
            transaction_lock(backend, &key).unwrap();
            on(backend, "ROLLBACK; BEGIN").unwrap();
            on(backend, "SET pglock.client = ''").unwrap();
        }
    });
}

/// The wait is inside a savepoint, which ends with each slice.
pub fn a_long_wait_in_a_transaction_ends_with_the_lock<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        on(backend, "CREATE TEMP TABLE work (n int) ON COMMIT DROP").unwrap();
        on(backend, "SET LOCAL lock_timeout = '1234s'").unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                wait_for_second_slice(&mut oracle, &key);
                oracle.unlock(&key);
            });
            transaction_lock(backend, &key).unwrap();
        });
        assert!(holds(backend, "current_setting('lock_timeout') = '1234s'"));
        Oracle::new().holder(&key);
        on(backend, "INSERT INTO work VALUES (1)").unwrap();
    });
}

/// Both wait in slices, each for what the other holds.
pub fn a_deadlock_of_two_long_waits_is_found<H: InTransaction>() {
    let (ours, theirs) = (unique_key(), unique_key());
    let mut oracle = Oracle::new();
    H::with(|backend| {
        transaction_lock(backend, &ours).unwrap();
        std::thread::scope(|threads| {
            let (ours, theirs) = (&ours, &theirs);
            let other = threads.spawn(move || {
                let mut client = connect();
                let mut transaction = client.transaction().unwrap();
                transaction_lock(&mut transaction, theirs).unwrap();
                let told = transaction_lock(&mut transaction, ours);
                on(&mut transaction, "ROLLBACK").unwrap();
                told
            });
            oracle.wait_for_waiter(ours);
            let told = transaction_lock(backend, theirs);
            if let Err(error) = &told {
                assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
                on(backend, "ROLLBACK").unwrap(); // so that the other goes on
            }
            let others = other.join().unwrap();
            assert!(told.is_err() || others.is_err());
            if let Err(error) = others {
                assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
            }
        });
    });
}
