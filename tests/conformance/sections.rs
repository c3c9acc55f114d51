//! A section outside a transaction: held for as long as it runs, and free afterwards, whatever
//! happens in it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pglock::driver::Session;
use pglock::{
    Error, Key, Lock, LockGuard, Mode, Scope, try_with_lock, with_lock, with_transaction_lock,
};

use crate::harness::{Harness, Refusal, holds, on, sql};
use crate::oracle::{Oracle, Table, unique_key, unique_name};

pub fn every_kind_of_key_is_held_for_the_body_and_free_afterwards<H: Harness>() {
    let mut oracle = Oracle::new();
    let pid = std::process::id();
    let name = unique_name("'); DROP TABLE seat; --\0 %s $1 \u{1F512}");
    let long = unique_name(&"x".repeat(10_000));
    let keys = [
        Key::from(name.clone()),
        Key::from(long),
        Key::namespaced("a namespace", name),
        Key::from(-i64::from(pid)),
        Key::from((-1, i32::try_from(pid).unwrap())),
    ];
    H::with(|backend| {
        for key in keys {
            // Other backends may check the same numbers at the same time, so this may have to wait.
            with_lock(backend, &key, |_| {
                assert_eq!(oracle.held(&key), ["ExclusiveLock"], "{key:?}");
                Ok::<_, Error>(())
            })
            .unwrap();
        }
        let empty = Key::namespaced(unique_name("namespace"), "");
        with_lock(backend, &empty, |_| {
            oracle.holder(&empty);
            Ok::<_, Error>(())
        })
        .unwrap();
        oracle.assert_free(&empty);
    });
}

pub fn shared_holders_share_and_keep_exclusive_ones_out<H: Harness>() {
    let (mut oracle, mut other, key) = (Oracle::new(), Oracle::new(), unique_key());
    H::with(|backend| {
        other.lock_shared(&key);
        let mut lock = Lock::new(&mut *backend, &key).shared();
        assert_eq!(lock.lock_info().mode(), Mode::Shared);
        lock.run(|_| {
            assert_eq!(oracle.held(&key), ["ShareLock", "ShareLock"]);
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(oracle.held(&key), ["ShareLock"]);
        assert!(
            try_with_lock(backend, &key, |_| Ok::<_, Error>(()))
                .unwrap()
                .is_none()
        );
        other.unlock_shared(&key);
        oracle.assert_free(&key);
    });
}

/// The test forces the order: the first section writes and ends once `pg_locks` shows the second one
/// waiting.
pub fn a_second_section_waits_for_the_first_and_sees_its_writes<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        oracle.write_when_waited_for(&key, &table, || {
            with_lock(backend, &key, |conn| sql(conn, &table.assert_rows(1))).unwrap();
        });
    });
}

pub fn the_bodys_error_comes_out_as_it_is_and_frees_the_lock<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let error = with_lock(backend, &key, |_| Err::<(), _>(Refusal::Body)).unwrap_err();
        assert!(matches!(error, Refusal::Body), "{error:?}");
        oracle.assert_free(&key);

        // Neither a failed statement nor an aborted transaction changes that.
        for statement in ["SELECT 1 / 0", "BEGIN; SELECT 1 / 0", "BEGIN"] {
            let error = with_lock(backend, &key, |conn| {
                let _ = sql(conn, statement);
                Err::<(), _>(Refusal::Body)
            });
            assert!(
                matches!(error, Err(Refusal::Body)),
                "{statement}: {error:?}"
            );
            oracle.assert_free(&key);
        }
        with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
    });
}

pub fn the_bodys_error_is_not_masked_by_a_lost_connection<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let error = with_lock(backend, &key, |_| {
            let pid = oracle.holder(&key);
            oracle.terminate(pid);
            Err::<(), _>(Refusal::Body)
        });
        assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
        oracle.assert_free(&key);
    });
}

pub fn a_panic_frees_the_lock_and_goes_on<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        for statement in ["", "BEGIN", "BEGIN; SELECT 1 / 0"] {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                with_lock(backend, &key, |conn| -> Result<(), Error> {
                    oracle.holder(&key);
                    let _ = sql(conn, statement);
                    resume_unwind(Box::new("of the body"))
                })
            }));
            assert_eq!(
                *panic.unwrap_err().downcast::<&str>().unwrap(),
                "of the body"
            );
            oracle.assert_free(&key);
        }
    });
}

pub fn a_transaction_left_open_is_rolled_back_and_told<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        for statement in ["BEGIN; ", "BEGIN; SELECT 1 / 0; "] {
            let error = with_lock(backend, &key, |conn| {
                let _ = sql(conn, &format!("{statement}{}", table.insert()));
                Ok::<_, Error>(())
            });
            let error = error.unwrap_err();
            assert!(
                matches!(error, Error::TransactionLeftOpen { .. }),
                "{error:?}"
            );
            oracle.assert_free(&key);
            assert_eq!(table.rows(), 0);
        }
        // The rollback was the section's: the next one commits as usual.
        with_lock(backend, &key, |conn| sql(conn, &table.insert())).unwrap();
        assert_eq!(table.rows(), 1);
    });
}

pub fn a_lock_that_the_body_gave_away_is_told<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let error = with_lock(backend, &key, |conn| {
            sql(conn, "SELECT pg_advisory_unlock_all()")?;
            oracle.assert_free(&key);
            Ok::<_, Error>(())
        });
        let error = error.unwrap_err();
        assert!(error.is_lock_lost(), "{error:?}");
        assert!(error.to_string().contains(&key.to_string()), "{error}");
    });
}

pub fn a_connection_that_died_in_the_body_is_told<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let error = with_lock(backend, &key, |_| {
            let pid = oracle.holder(&key);
            oracle.terminate(pid);
            Ok::<_, Error>(())
        });
        let error = error.unwrap_err();
        assert!(
            matches!(
                error,
                Error::LockLost {
                    source: Some(_),
                    ..
                }
            ),
            "{error:?}"
        );
        oracle.assert_free(&key);
    });
}

pub fn a_nested_section_leaves_the_outer_hold_alone<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        Lock::new(backend, &key)
            .run(|conn| {
                // A body's connection is a backend like any other, here for a nested guard.
                nested::<H>(conn, &key, &mut oracle);
                oracle.holder(&key);
                Ok::<_, Error>(())
            })
            .unwrap();
        oracle.assert_free(&key);
    });
}

fn nested<H: Harness>(conn: &mut crate::SessionOf<'_, H>, key: &Key, oracle: &mut Oracle) {
    let mut lock = Lock::new(conn, key);
    lock.run(|_| Ok::<_, Error>(())).unwrap();
    oracle.holder(key);
    let busy = lock.try_run(|_| Ok::<_, Error>(())).unwrap();
    assert!(busy.is_some(), "a session never keeps itself out");
    lock.run(|_| Err::<(), _>(Refusal::Body)).unwrap_err();
    oracle.holder(key);
}

pub fn several_keys_are_held_together_and_freed_together<H: Harness>() {
    let mut oracle = Oracle::new();
    let keys = [unique_key(), unique_key(), unique_key()];
    H::with(|backend| {
        let twice: Vec<_> = keys.iter().chain(&keys).collect();
        let mut lock = Lock::new(&mut *backend, twice);
        assert_eq!(lock.lock_info().keys().len(), 3);
        lock.run(|_| {
            for key in &keys {
                oracle.holder(key);
            }
            Ok::<_, Error>(())
        })
        .unwrap();
        for key in &keys {
            oracle.assert_free(key);
        }
        let none = Lock::new(backend, [0_i64; 0]).run(|_| Ok::<_, Error>(()));
        assert!(matches!(none, Err(Error::NoKeys)), "{none:?}");
    });
}

pub fn a_guard_holds_says_what_it_is_and_releases<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key);
        let mut guard = lock.acquire().unwrap();
        assert_eq!(
            LockGuard::lock_info(&guard).keys(),
            std::slice::from_ref(&key)
        );
        assert_eq!(LockGuard::mode(&guard), Mode::Exclusive);
        assert_eq!(LockGuard::scope(&guard), Scope::Session);
        assert!(format!("{guard:?}").contains("Session"), "{guard:?}");
        sql(&mut *guard, "SELECT 1").unwrap();
        let lines = guard.query("SELECT line FROM (VALUES ('a'), (NULL), ('b')) AS rows (line)");
        assert_eq!(lines.unwrap(), ["a", "b"]);
        oracle.holder(&key);
        assert!(LockGuard::is_held(&mut guard).unwrap());
        LockGuard::release(guard).unwrap();
        oracle.assert_free(&key);

        let guard = lock.try_acquire().unwrap().expect("it is free");
        oracle.holder(&key);
        drop(guard);
        oracle.assert_free(&key);

        let mut guard = lock.acquire().unwrap();
        sql(&mut *guard, "SELECT pg_advisory_unlock_all()").unwrap();
        assert!(!LockGuard::is_held(&mut guard).unwrap());
        assert!(LockGuard::release(guard).unwrap_err().is_lock_lost());

        let mut guard = lock.acquire().unwrap();
        let pid = oracle.holder(&key);
        oracle.terminate(pid);
        assert!(!LockGuard::is_held(&mut guard).unwrap());
        assert!(LockGuard::release(guard).unwrap_err().is_lock_lost());
    });
}

pub fn a_session_lock_is_refused_in_a_raw_transaction<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        on(backend, "BEGIN").unwrap();
        let refused = with_lock(backend, &key, |_| -> Result<(), Error> {
            panic!("the body must not run")
        });
        assert!(
            matches!(refused, Err(Error::InTransaction { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
        on(backend, "ROLLBACK").unwrap();

        // If asked for, the lock has the transaction's scope, and lasts as long as the transaction.
        on(backend, "BEGIN").unwrap();
        let mut lock = Lock::new(&mut *backend, &key).scope(Scope::Transaction);
        lock.run(|_| Ok::<_, Error>(())).unwrap();
        oracle.holder(&key);
        on(backend, "COMMIT").unwrap();
        oracle.assert_free(&key);
    });
}

/// Only the caller may commit it.
pub fn a_raw_transaction_with_work_in_it_is_not_committed<H: Harness>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        on(backend, &format!("BEGIN; {}", table.insert())).unwrap();
        let refused = with_transaction_lock(backend, &key, |_| -> Result<(), Error> {
            panic!("the body must not run")
        });
        assert!(
            matches!(refused, Err(Error::InTransaction { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
        let _ = on(backend, "COMMIT");
        assert_eq!(table.rows(), 0);
    });
}

pub fn an_aborted_raw_transaction_is_told<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        on(backend, "BEGIN; SELECT 1 / 0").unwrap_err();
        if holds(backend, "true") {
            return; // a pool that tests its connections has dropped this one
        }
        let refused = with_lock(backend, &key, |_| -> Result<(), Error> {
            panic!("the body must not run")
        });
        assert!(
            matches!(refused, Err(Error::TransactionAborted { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
        on(backend, "ROLLBACK").unwrap();
        with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
    });
}

pub fn a_transaction_lock_is_refused_outside_a_transaction<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key).scope(Scope::Transaction);
        let refused = lock.run(|_| -> Result<(), Error> { panic!("the body must not run") });
        assert!(
            matches!(refused, Err(Error::NotInTransaction { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
    });
}
