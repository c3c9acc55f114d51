//! The wait for a connection of the pool: it ends, and counts towards the timeout.

use std::thread;
use std::time::Duration;

use pglock::driver::{BoxError, Session};
use pglock::{Error, Key, Lock, LockBackend, QueuedPool, with_lock, with_transaction_lock};
use r2d2::event::CheckoutEvent;
use r2d2::{HandleEvent, ManageConnection, Pool, PooledConnection};

use crate::oracle::{self, Oracle, unique_key};
use crate::timeouts::Timeouts;
use crate::{held_by, never};

with_each_manager!(no_connection_to_be_had_is_an_error_and_no_hang);

fn no_connection_to_be_had_is_an_error_and_no_hang<M>(manager: M, application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let timeout = Duration::from_millis(100);
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(timeout)
        .build_unchecked(manager);
    let key = Key::from("no connection");
    let _only = pool.get_timeout(Duration::from_secs(30)).unwrap();
    let refused = [
        with_lock(&mut pool.clone(), &key, |_| Ok::<_, Error>(())),
        Lock::new(pool.clone(), &key)
            .timeout(Duration::ZERO)
            .run(|_| Ok(())),
        with_transaction_lock(&mut pool.clone(), &key, |_| Ok(())),
        with_lock(&mut QueuedPool::new(pool.clone()), &key, |_| Ok(())),
    ];
    for result in refused {
        let Err(error @ Error::Checkout { .. }) = result else {
            panic!("{result:?}")
        };
        assert!(error.to_string().contains("\"no connection\""), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(error.is_busy() && error.is_retryable(), "{error:?}");
    }
    assert_eq!(held_by(application), 0);
}

with_each_manager!(waiters_that_use_the_pool_up_are_told_and_end);

#[cfg(feature = "postgres")]
#[test]
fn a_pool_that_cannot_connect_is_not_busy() {
    let nowhere = "host=/nowhere user=nobody".parse().unwrap();
    let manager = r2d2_postgres::PostgresConnectionManager::new(nowhere, postgres::NoTls);
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(Duration::from_millis(50))
        .build_unchecked(manager);
    let refused = with_lock(&mut &pool, "nowhere", |_| Ok::<_, Error>(()));
    let Err(error @ Error::Checkout { .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(!error.is_busy() && !error.is_retryable(), "{error:?}");
}

/// The holder needs a second connection, and the waiters hold all others: it gets an error within the
/// pool's timeout, and then the waiters go on.
fn waiters_that_use_the_pool_up_are_told_and_end<M>(manager: M, application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = Pool::builder()
        .max_size(3)
        .connection_timeout(Duration::from_secs(1))
        .build(manager)
        .unwrap();
    let (mut oracle, key) = (Oracle::new(), unique_key());
    thread::scope(|threads| {
        let held = with_lock(&mut &pool, &key, |_| {
            let wait = || with_lock(&mut &pool, &key, |_| Ok::<_, Error>(()));
            let waiters = [threads.spawn(wait), threads.spawn(wait)];
            oracle.wait_for_waiters(&key, waiters.len());
            let refused = with_lock(&mut &pool, unique_key(), |_| Ok::<_, Error>(()));
            assert!(
                matches!(refused, Err(Error::Checkout { .. })),
                "{refused:?}"
            );
            Ok::<_, Error>(waiters)
        });
        for waiter in held.unwrap() {
            waiter.join().unwrap().unwrap();
        }
    });
    assert_eq!(held_by(application), 0);
}

with_each_manager!(a_timeout_bounds_the_wait_for_a_connection);

/// If the pool's own timeout is shorter, that one ends the wait.
fn a_timeout_bounds_the_wait_for_a_connection<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    const POOLS: Duration = Duration::from_millis(200);
    let timeouts = Timeouts::default();
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(POOLS)
        .event_handler(Box::new(timeouts.clone()))
        .build(manager)
        .unwrap();
    let _only = pool.get().unwrap();
    let queued = QueuedPool::new(pool.clone());
    for millis in [1, 10, 1_000, u64::MAX] {
        let timeout = Duration::from_millis(millis);
        for waited in [
            waits(&pool, timeout, &timeouts),
            waits(&queued, timeout, &timeouts),
        ] {
            let bound = timeout.min(POOLS);
            assert!(waited.iter().all(|waited| *waited <= bound), "{waited:?}");
            assert_eq!(waited.len(), 4);
        }
    }
}

/// How long each form would wait for a connection.
fn waits<B>(pool: &B, timeout: Duration, timeouts: &Timeouts) -> Vec<Duration>
where
    B: LockBackend + Clone,
{
    let key = unique_key();
    let lock = || Lock::new(pool.clone(), &key).timeout(timeout);
    let results = [
        lock().run(never),
        lock().shared().run(never),
        lock().try_run(never).map(|_: Option<()>| ()),
        lock().run_in_transaction_or_else(|tx| never(tx), |_| panic!("no conflict")),
    ];
    for result in results {
        assert!(matches!(result, Err(Error::Checkout { .. })), "{result:?}");
    }
    timeouts.take()
}

with_each_manager!(the_server_waits_for_what_the_pool_leaves_of_a_timeout);

/// In whatever way the backend finds its connection.
fn the_server_waits_for_what_the_pool_leaves_of_a_timeout<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = Pool::builder()
        .max_size(1)
        .event_handler(Box::new(Slow))
        .build(manager)
        .unwrap();
    leaves(pool.clone());
    leaves(QueuedPool::new(pool.clone()));
    leaves(HandWrittenBackend(pool));
}

/// Makes each checkout take `TAKES`.
#[derive(Debug)]
struct Slow;

const TAKES: Duration = Duration::from_millis(50);

impl HandleEvent for Slow {
    fn handle_checkout(&self, _: CheckoutEvent) {
        thread::sleep(TAKES); // what is measured
    }
}

struct HandWrittenBackend<M: ManageConnection>(Pool<M>);

impl<M: ManageConnection<Connection: Session>> LockBackend for HandWrittenBackend<M> {
    type Session = M::Connection;
    type Handle<'a> = PooledConnection<M>;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self.0.get()?)
    }
}

/// Not with diesel, whose number is a parameter, or stands behind what `pg_stat_activity` shows.
fn leaves<B: LockBackend + Send>(mut pool: B) {
    if !B::Session::HAS_SQLSTATE {
        return;
    }
    let (mut oracle, key) = (Oracle::new(), unique_key());
    for shared in [false, true] {
        for in_transaction in [false, true] {
            oracle.lock(&key);
            let millis = thread::scope(|threads| {
                threads.spawn(|| {
                    let mut lock = Lock::new(&mut pool, &key).timeout(oracle::PATIENCE);
                    if shared {
                        lock = lock.shared();
                    }
                    match in_transaction {
                        false => lock.run(|_| Ok::<_, Error>(())).unwrap(),
                        true => lock.run_in_transaction(|_| Ok::<_, Error>(())).unwrap(),
                    }
                });
                let pid = oracle.wait_for_waiter(&key);
                let millis = lock_timeout_of(&mut oracle, pid);
                oracle.unlock(&key);
                millis
            });
            let left = oracle::PATIENCE - TAKES;
            assert!(Duration::from_millis(millis) <= left, "{millis}");
        }
    }
}

/// In milliseconds, from the text with which a session waits. What it prepared is not in it: so a second
/// use, of which only the parameters show, is read from its only number of three to five digits.
fn lock_timeout_of(oracle: &mut Oracle, pid: i32) -> u64 {
    let query = "SELECT substring(query FROM $$'([0-9]{1,5})'$$) \
                 FROM pg_stat_activity WHERE pid = $1";
    let row = oracle.client.query_one(query, &[&pid]).unwrap();
    row.get::<_, String>(0).parse().unwrap()
}
