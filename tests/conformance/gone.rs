//! A session whose prepared statements are gone: that is no error.

use std::time::Duration;

use pglock::{
    Error, Key, Lock, LockBackend, LockGuard, Semaphore, transaction_lock, try_transaction_lock,
    try_with_lock, with_lock, with_transaction_lock,
};

use crate::harness::{Harness, InTransaction, holds, on, sql};
use crate::oracle::{Oracle, unique_key, unique_name};

/// Every form of a lock of the session's, the transaction's and the message's, and a try in vain.
fn every_form<B: LockBackend>(backend: &mut B, keys: &Keys) {
    let [key, other, taken] = &keys.0;
    let mut oracle = Oracle::new();
    with_lock(backend, key, |conn| {
        oracle.holder(key);
        with_lock(conn, key, |_| Ok::<_, Error>(()))
    })
    .unwrap();
    Lock::new(&mut *backend, [key, other])
        .shared()
        .run(|_| Ok::<_, Error>(()))
        .unwrap();
    with_transaction_lock(backend, key, |tx| in_a_transaction(tx, keys)).unwrap();
    let mut lock = Lock::new(&mut *backend, key);
    lock.batch_execute("SELECT 1").unwrap();
    let mut guard = lock.acquire().unwrap();
    assert!(LockGuard::is_held(&mut guard).unwrap());
    LockGuard::downgrade(&mut guard).unwrap();
    LockGuard::release(guard).unwrap();
    let name = unique_name("semaphore");
    let mut semaphore = Semaphore::new(&mut *backend, name, 2);
    semaphore.run(|_| Ok::<_, Error>(())).unwrap();
    let none = try_with_lock(backend, taken, |_| Ok::<_, Error>(())).unwrap();
    assert_eq!(none, None);
    let mut lock = Lock::new(backend, taken).timeout(Duration::from_millis(1));
    for told in [lock.run(|_| Ok(())), lock.run_in_transaction(|_| Ok(()))] {
        assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
    }
}

/// A lock of the caller's transaction, which stays usable.
fn in_a_transaction<B>(transaction: &mut B, keys: &Keys) -> Result<(), Error>
where
    B: pglock::driver::TransactionBackend,
{
    let [_, other, taken] = &keys.0;
    transaction_lock(transaction, other)?;
    assert!(try_transaction_lock(transaction, other)?);
    assert!(!try_transaction_lock(transaction, taken)?);
    let mut lock = Lock::new(&mut *transaction, taken).timeout(Duration::from_millis(1));
    let told = lock.acquire().map(drop);
    assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
    Lock::new(&mut *transaction, other).batch_execute("SELECT 1")?;
    on(transaction, "SELECT 1")
}

/// Two that are free, and one that another session holds.
struct Keys([Key; 3]);

fn keys(oracle: &mut Oracle) -> Keys {
    let keys = Keys([unique_key(), unique_key(), unique_key()]);
    oracle.lock(&keys.0[2]);
    keys
}

pub fn a_session_whose_statements_are_gone_locks<H: Harness>() {
    let mut oracle = Oracle::new();
    let keys = keys(&mut oracle);
    for gone in ["DEALLOCATE ALL", "DISCARD ALL"] {
        H::with(|backend| {
            for _ in 0..3 {
                every_form(backend, &keys);
            }
            for _ in 0..3 {
                on(backend, gone).unwrap();
                every_form(backend, &keys);
            }
        });
    }
    oracle.assert_free(&keys.0[0]);
}

pub fn a_body_whose_statements_are_gone_keeps_its_lock<H: Harness>() {
    let mut oracle = Oracle::new();
    let keys = keys(&mut oracle);
    let [key, other, _] = &keys.0;
    H::with(|backend| {
        for _ in 0..3 {
            every_form(backend, &keys);
        }
        for _ in 0..3 {
            with_lock(backend, key, |conn| {
                sql(conn, "DEALLOCATE ALL")?;
                oracle.holder(key);
                with_lock(conn, other, |conn| sql(conn, "DEALLOCATE ALL"))?;
                sql(conn, "DEALLOCATE ALL")?;
                with_transaction_lock(conn, other, |tx| {
                    sql(tx, "DEALLOCATE ALL")?;
                    in_a_transaction(tx, &keys)
                })?;
                sql(conn, "DEALLOCATE ALL")
            })
            .unwrap();
            oracle.assert_free(key);
            let mut lock = Lock::new(&mut *backend, key);
            let mut guard = lock.acquire().unwrap();
            sql(&mut *guard, "DEALLOCATE ALL").unwrap();
            assert!(LockGuard::is_held(&mut guard).unwrap());
            LockGuard::release(guard).unwrap();
            lock.batch_execute("DEALLOCATE ALL").unwrap();
            lock.batch_execute("SELECT 1").unwrap();
            oracle.assert_free(key);
        }
    });
}

/// A session that has lost its number while it held a lock looks at what it holds, with each acquire. The keys
/// that it looks for are no part of the statement.
pub fn a_session_of_nobodys_prepares_no_statement_a_key<H: Harness>() {
    let other = unique_key().as_i64().unwrap();
    H::with(|backend| {
        let lose = format!("SELECT pg_advisory_lock({other}); SET pglock.client = ''");
        on(backend, &lose).unwrap();
        for _ in 0..20 {
            let (key, name) = (unique_key(), unique_name("gone"));
            for _ in 0..3 {
                with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
                with_transaction_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
                let mut semaphore = Semaphore::new(&mut *backend, &name, 2);
                semaphore.run(|_| Ok::<_, Error>(())).unwrap();
            }
        }
        let few = "(SELECT count(*) < 20 FROM pg_prepared_statements)";
        assert!(holds(backend, few), "a statement a key");
        on(backend, &format!("SELECT pg_advisory_unlock({other})")).unwrap();
    });
}

/// DISCARD ALL lets go of the locks too: that is told, as of any body that gives its lock away.
pub fn a_body_that_discards_all_is_told<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        for _ in 0..3 {
            with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
        }
        let lost = with_lock(backend, &key, |conn| sql(conn, "DISCARD ALL"));
        assert!(matches!(lost, Err(Error::LockLost { .. })), "{lost:?}");
        with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
    });
    Oracle::new().assert_free(&key);
}

pub fn a_transaction_whose_statements_are_gone_locks<H: InTransaction>() {
    let mut oracle = Oracle::new();
    let keys = keys(&mut oracle);
    H::with(|backend| {
        for _ in 0..3 {
            in_a_transaction(backend, &keys).unwrap();
        }
        for _ in 0..3 {
            on(backend, "DEALLOCATE ALL").unwrap();
            in_a_transaction(backend, &keys).unwrap();
            on(backend, "DEALLOCATE ALL").unwrap();
            let [_, other, taken] = &keys.0;
            assert!(!try_transaction_lock(backend, taken).unwrap());
            on(backend, "DEALLOCATE ALL").unwrap();
            Lock::new(&mut *backend, [other.clone(), unique_key()])
                .acquire()
                .map(drop)
                .unwrap();
        }
    });
}
