//! Behind a pooler in transaction mode: the transaction forms work, and a session lock whose release
//! lands on another server is told.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "support/bouncer.rs"]
mod bouncer;
#[path = "support/server.rs"]
mod server;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bouncer::Bouncer;
use pglock::driver::Session;
use pglock::{
    Error, Lock, LockBackend, try_with_transaction_lock, with_lock, with_transaction_lock,
};
use postgres::{Client, NoTls};

#[cfg(feature = "diesel")]
fn connection(bouncer: &Bouncer) -> diesel::PgConnection {
    diesel::Connection::establish(&bouncer.url()).unwrap()
}

#[test]
fn transaction_scope_works_through_a_pooler() {
    let Some(bouncer) = Bouncer::start("bouncer-transaction") else {
        return;
    };
    #[cfg(feature = "postgres")]
    excludes_others(|| bouncer.client());
    #[cfg(feature = "diesel")]
    excludes_others(|| connection(&bouncer));
    assert_eq!(bouncer.holder(), None);
}

#[test]
fn one_message_works_through_a_pooler() {
    let Some(bouncer) = Bouncer::start("bouncer-message") else {
        return;
    };
    #[cfg(feature = "postgres")]
    loses_no_increment(&bouncer, || bouncer.client());
    #[cfg(feature = "diesel")]
    loses_no_increment(&bouncer, || connection(&bouncer));
    assert_eq!(bouncer.holder(), None);
}

/// What is read by one statement is written by the next, a moment later: without the lock, increments
/// are lost.
fn loses_no_increment<B: LockBackend>(bouncer: &Bouncer, connect: impl Fn() -> B + Sync) {
    let mut client = Client::connect(&bouncer.server.url(), NoTls).unwrap();
    client
        .batch_execute("DROP TABLE IF EXISTS counter; CREATE TABLE counter AS SELECT 0 AS n")
        .unwrap();
    let increment = "SELECT set_config('my.n', n::text, true) FROM counter; SELECT pg_sleep(0.001); \
        UPDATE counter SET n = current_setting('my.n')::int + 1";
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut backend = connect();
                for _ in 0..10 {
                    let mut lock = Lock::new(&mut backend, "counter");
                    lock.batch_execute(increment).unwrap();
                }
            });
        }
    });
    let row = client.query_one("SELECT n FROM counter", &[]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 40);
}

fn excludes_others<B: LockBackend>(connect: impl Fn() -> B + Sync) {
    with_transaction_lock(&mut connect(), "key", |_| {
        let busy = try_with_transaction_lock(&mut connect(), "key", |_| Ok::<_, Error>(()))?;
        assert!(busy.is_none());
        Ok::<_, Error>(())
    })
    .unwrap();
    // A counter that loses increments as soon as two are in at once.
    let counter = AtomicI64::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut backend = connect();
                for _ in 0..10 {
                    let counted = with_transaction_lock(&mut backend, "key", |tx| {
                        let count = counter.load(Ordering::Relaxed);
                        tx.send("SELECT pg_sleep(0.001)").unwrap();
                        counter.store(count + 1, Ordering::Relaxed);
                        Ok::<_, Error>(())
                    });
                    counted.unwrap();
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 40);
}

#[test]
fn a_session_lock_that_a_pooler_has_moved_is_told() {
    let Some(bouncer) = Bouncer::start("bouncer-session") else {
        return;
    };
    #[cfg(feature = "postgres")]
    is_told_of_the_move(&bouncer, &mut bouncer.client());
    #[cfg(feature = "diesel")]
    is_told_of_the_move(&bouncer, &mut connection(&bouncer));
}

/// The server process that has the lock is given to somebody else while the section runs, so the
/// release gets another one.
fn is_told_of_the_move<B: LockBackend>(bouncer: &Bouncer, backend: &mut B) {
    let mut others: Vec<_> = (0..8).map(|_| bouncer.client()).collect();
    let mut taken = Vec::new();
    let outcome = with_lock(backend, "key", |_| {
        let holder = bouncer.holder();
        assert!(holder.is_some());
        for other in &mut others {
            let mut transaction = other.transaction().unwrap();
            let row = transaction.query_one("SELECT pg_backend_pid()", &[]);
            let pid: i32 = row.unwrap().get(0);
            taken.push(transaction);
            if Some(pid) == holder {
                return Ok::<_, Error>(());
            }
        }
        panic!("nobody got the holder's server process");
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error:?}");
    assert!(error.to_string().contains("pooler"), "{error}");

    // The pooler has kept the lock, out of reach of this client, until it ends that server process.
    let holder = bouncer.holder().expect("the pooler's server process");
    drop(taken);
    Client::connect(&bouncer.server.url(), NoTls)
        .unwrap()
        .execute("SELECT pg_terminate_backend($1)", &[&holder])
        .unwrap();
    let start = Instant::now();
    while bouncer.holder().is_some() {
        assert!(start.elapsed() < Duration::from_secs(30), "still held");
    }
}
