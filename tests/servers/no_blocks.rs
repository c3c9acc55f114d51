//! A server on which no block of PL/pgSQL may be run.

use std::collections::BTreeSet;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{
    Error, Lock, LockBackend, transaction_lock, try_transaction_lock, try_with_lock, with_lock,
    with_transaction_lock,
};
use postgres::{Client, NoTls};

use super::{granted_on, on_server};

#[test]
fn without_blocks_locks_are_taken_and_waited_for() {
    let server = on_server("no_blocks", "");
    let revoke = "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; CREATE ROLE plain LOGIN";
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client.batch_execute(revoke).unwrap();
    let plain = server.url().replace("postgres@", "plain@");
    on_every_driver!(locks_without_a_wait(&plain));
    on_every_driver!(waits_for_less_than_a_slice(&plain));
    on_every_driver!(waits_for_longer(&plain));
    client.batch_execute("DROP EXTENSION plpgsql").unwrap();
    on_every_driver!(locks_without_a_wait(&plain));
    on_every_driver!(waits_for_longer(&plain));
}

fn locks_without_a_wait<B: LockBackend>(backend: &mut B, url: &str) {
    let mut other = Client::connect(url, NoTls).unwrap();
    other.batch_execute("SELECT pg_advisory_lock(9)").unwrap();
    for _ in 0..4 {
        with_lock(backend, 1, |_| {
            assert_eq!(granted_on(url), 2);
            Ok::<_, Error>(())
        })
        .unwrap();
        with_transaction_lock(backend, 1, |tx| {
            assert_eq!(granted_on(url), 2);
            assert!(!try_transaction_lock(tx, 9)?);
            assert!(try_transaction_lock(tx, 2)?);
            transaction_lock(tx, 3)?;
            tx.send("SELECT 1")?;
            Ok::<_, Error>(())
        })
        .unwrap();
        let none = try_with_lock(backend, 9, |_| Ok::<_, Error>(())).unwrap();
        assert_eq!(none, None);
        let mut lock = Lock::new(&mut *backend, [1, 2]);
        lock.run(|_| Ok::<_, Error>(())).unwrap();
        lock.batch_execute("SELECT 1").unwrap();
    }
    drop(other);
    while granted_on(url) > 0 {}
}

/// The first slice is in the server's queue, and needs no block.
fn waits_for_less_than_a_slice<B: LockBackend>(backend: &mut B, url: &str) {
    let mut other = Client::connect(url, NoTls).unwrap();
    other.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut looker = Client::connect(url, NoTls).unwrap();
            while !super::has_waiter(&mut looker) {}
            other.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
        });
        with_lock(backend, 1, |_| Ok::<_, Error>(())).unwrap();
    });
}

/// In slices of the server's queue, each of which ends as an error at the server.
fn waits_for_longer<B: LockBackend>(backend: &mut B, url: &str) {
    for in_transaction in [false, true] {
        let mut other = Client::connect(url, NoTls).unwrap();
        other.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut looker = Client::connect(url, NoTls).unwrap();
                let begun = "SELECT waitstart::text FROM pg_locks WHERE waitstart IS NOT NULL";
                let mut slices = BTreeSet::<String>::new();
                while slices.len() < 2 {
                    let rows = looker.query(begun, &[]).unwrap();
                    slices.extend(rows.iter().map(|row| row.get::<_, String>(0)));
                }
                drop(other);
            });
            match in_transaction {
                false => with_lock(&mut *backend, 1, |_| Ok::<_, Error>(())),
                true => with_transaction_lock(&mut *backend, 1, |_| Ok::<_, Error>(())),
            }
            .unwrap();
        });
    }
    let mut other = Client::connect(url, NoTls).unwrap();
    other.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    let mut lock = Lock::new(&mut *backend, 1).timeout(Duration::from_millis(1_200));
    for told in [lock.run(|_| Ok(())), lock.run_in_transaction(|_| Ok(()))] {
        assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
    }
    // Its text must not run without the lock, so this form knows no other way.
    let told = lock.batch_execute("SELECT 1");
    assert!(matches!(told, Err(Error::Database { .. })), "{told:?}");
    drop(other);
    while granted_on(url) > 0 {}
}
