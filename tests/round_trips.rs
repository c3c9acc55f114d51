//! What a lock costs in round trips, which a proxy between the drivers and the server counts on the
//! wire.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "support/proxy.rs"]
mod proxy;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pglock::driver::Session;
use pglock::{
    Error, Key, KeyRange, Lock, LockBackend, LockGuard, Scope, Semaphore, Slots, key,
    transaction_lock, try_transaction_lock, try_with_lock, try_with_transaction_lock, with_lock,
    with_transaction_lock,
};
use postgres::{Client, NoTls};
use proxy::Proxy;

#[cfg(feature = "diesel")]
use diesel::{Connection, PgConnection};

/// The driver, which decides what a transaction of pglock's own costs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Driver {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "diesel")]
    Diesel,
}

impl Driver {
    /// For BEGIN alone: diesel sends it together with the lock.
    fn begin(self) -> usize {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => 1,
            #[cfg(feature = "diesel")]
            Self::Diesel => 0,
        }
    }

    /// For a question in the caller's transaction: diesel sends one more message, so that no snapshot stays
    /// behind.
    fn to_ask(self) -> usize {
        1 + self.without_rows()
    }

    /// diesel gets rows only from a query of its own, which cannot stand behind statements.
    fn without_rows(self) -> usize {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => 0,
            #[cfg(feature = "diesel")]
            Self::Diesel => 1,
        }
    }
}

/// A driver behind the proxy.
struct Wire {
    proxy: Proxy,
    driver: Driver,
    backend: &'static str,
}

impl Wire {
    fn new(driver: Driver, backend: &'static str) -> Self {
        Self {
            proxy: Proxy::start(),
            driver,
            backend,
        }
    }

    #[track_caller]
    fn takes(&self, round_trips: usize, work: impl FnOnce()) {
        assert_eq!(self.proxy.count(work), round_trips, "{}", self.backend);
    }
}

/// The first acquire leaves this process's number in the session, if it succeeds.
fn warm<B: LockBackend>(backend: &mut B) {
    with_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
}

/// Runs a test with each backend outside a transaction.
macro_rules! each_backend {
    (|$wire:ident, $backend:ident| $test:block) => {
        #[cfg(feature = "postgres")]
        {
            let $wire = &Wire::new(Driver::Postgres, "Client");
            let $backend = &mut $wire.proxy.client();
            warm(&mut *$backend);
            $test
        }
        #[cfg(feature = "diesel")]
        {
            let $wire = &Wire::new(Driver::Diesel, "PgConnection");
            let $backend = &mut PgConnection::establish(&$wire.proxy.url()).unwrap();
            warm(&mut *$backend);
            $test
        }
        #[cfg(all(feature = "postgres", feature = "r2d2"))]
        {
            let $wire = &Wire::new(Driver::Postgres, "Pool of Client");
            let $backend = &mut pools::postgres(&$wire.proxy);
            warm(&mut *$backend);
            $test
        }
        #[cfg(all(feature = "postgres", feature = "r2d2"))]
        {
            let $wire = &Wire::new(Driver::Postgres, "PooledConnection of Client");
            let $backend = &mut pools::postgres(&$wire.proxy).get().unwrap();
            warm(&mut *$backend);
            $test
        }
        #[cfg(all(feature = "diesel", feature = "r2d2"))]
        {
            let $wire = &Wire::new(Driver::Diesel, "Pool of PgConnection");
            let $backend = &mut pools::diesel(&$wire.proxy);
            warm(&mut *$backend);
            $test
        }
        #[cfg(all(feature = "diesel", feature = "r2d2"))]
        {
            let $wire = &Wire::new(Driver::Diesel, "PooledConnection of PgConnection");
            let $backend = &mut pools::diesel(&$wire.proxy).get().unwrap();
            warm(&mut *$backend);
            $test
        }
    };
}

/// Runs a test with each backend inside a transaction of the caller's.
macro_rules! each_transaction {
    (|$wire:ident, $backend:ident| $test:block) => {
        #[cfg(feature = "postgres")]
        {
            let $wire = &Wire::new(Driver::Postgres, "Transaction");
            let mut client = $wire.proxy.client();
            let $backend = &mut client.transaction().unwrap();
            $test
        }
        #[cfg(feature = "diesel")]
        {
            let $wire = &Wire::new(Driver::Diesel, "PgConnection in a transaction");
            let mut connection = PgConnection::establish(&$wire.proxy.url()).unwrap();
            connection.begin_test_transaction().unwrap();
            let $backend = &mut connection;
            $test
        }
        #[cfg(all(feature = "diesel", feature = "r2d2"))]
        {
            let $wire = &Wire::new(Driver::Diesel, "PooledConnection in a transaction");
            let mut connection = pools::diesel(&$wire.proxy).get().unwrap();
            connection.begin_test_transaction().unwrap();
            let $backend = &mut connection;
            $test
        }
    };
}

/// Pools of one connection, which do not test it at each checkout: that round trip is the pool's own,
/// and optional. The connection has had a lock before: see
/// `the_first_lock_on_a_pools_connection_takes_one_more`.
#[cfg(feature = "r2d2")]
mod pools {
    use pglock::driver::Session;
    use pglock::{Error, with_lock};

    use super::Proxy;

    #[cfg(feature = "postgres")]
    type PostgresManager = r2d2_postgres::PostgresConnectionManager<postgres::NoTls>;

    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(proxy: &Proxy) -> r2d2::Pool<PostgresManager> {
        pool(PostgresManager::new(proxy.config(), postgres::NoTls))
    }

    #[cfg(feature = "diesel")]
    type DieselManager = diesel::r2d2::ConnectionManager<diesel::PgConnection>;

    #[cfg(feature = "diesel")]
    pub(crate) fn diesel(proxy: &Proxy) -> r2d2::Pool<DieselManager> {
        pool(DieselManager::new(proxy.url()))
    }

    fn pool<M: r2d2::ManageConnection<Connection: Session>>(manager: M) -> r2d2::Pool<M> {
        let pool = fresh(manager);
        with_lock(&mut &pool, super::fresh_key(), |_| Ok::<_, Error>(())).unwrap();
        pool
    }

    pub(crate) fn fresh<M: r2d2::ManageConnection>(manager: M) -> r2d2::Pool<M> {
        let builder = r2d2::Pool::builder().max_size(1);
        builder.test_on_check_out(false).build(manager).unwrap()
    }
}

/// pglock asks which database it leads to.
#[cfg(all(feature = "postgres", feature = "r2d2"))]
#[test]
fn the_first_lock_on_a_pools_connection_takes_one_more() {
    let wire = &Wire::new(Driver::Postgres, "a fresh pool");
    let config = wire.proxy.config();
    let manager = r2d2_postgres::PostgresConnectionManager::new(config, NoTls);
    let pool = pools::fresh(manager);
    let locked = || with_lock(&mut &pool, fresh_key(), |_| Ok::<_, Error>(())).unwrap();
    wire.takes(3, locked);
    wire.takes(2, locked);
}

fn fresh_key() -> Key {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    key!("round_trips:{}:{number}", std::process::id())
}

fn three_keys() -> [Key; 3] {
    std::array::from_fn(|_| fresh_key())
}

/// Holds a key for as long as the connection lives, which bypasses the proxy.
fn hold(key: &Key) -> Client {
    let mut client = proxy::server().connect(NoTls).unwrap();
    let key = key.as_i64().unwrap();
    client
        .batch_execute(&format!("SELECT pg_advisory_lock('{key}')"))
        .unwrap();
    client
}

const SOON: Duration = Duration::from_millis(1);
const LATE: Duration = Duration::from_secs(60);

type Done = Result<(), Error>;

#[test]
fn the_proxy_counts_what_the_client_waits_for() {
    let proxy = Proxy::start();
    let mut client = proxy.client();
    assert_eq!(proxy.round_trips(), 0);
    assert_eq!(
        proxy.count(|| client.batch_execute("SELECT 1; SELECT 2").unwrap()),
        1
    );
    let statement = client.prepare("SELECT $1::int").unwrap();
    assert_eq!(proxy.round_trips(), 2);
    client.query_one(&statement, &[&1]).unwrap();
    assert_eq!(proxy.round_trips(), 3);
}

#[test]
fn with_lock_takes_two() {
    each_backend!(|wire, backend| {
        wire.takes(2, || {
            with_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
        });
    });
}

#[test]
fn a_timeout_costs_nothing() {
    each_backend!(|wire, backend| {
        let mut lock = Lock::new(&mut *backend, fresh_key()).timeout(LATE);
        wire.takes(2, || lock.run(|_| Done::Ok(())).unwrap());
        let mut lock = Lock::new(backend, fresh_key()).shared().timeout(LATE);
        wire.takes(2, || lock.run(|_| Done::Ok(())).unwrap());
    });
}

#[test]
fn a_shared_lock_costs_what_an_exclusive_one_does() {
    each_backend!(|wire, backend| {
        let mut lock = Lock::new(backend, fresh_key()).shared();
        wire.takes(2, || lock.run(|_| Done::Ok(())).unwrap());
    });
}

#[test]
fn several_keys_cost_what_one_does() {
    each_backend!(|wire, backend| {
        let mut lock = Lock::new(&mut *backend, three_keys());
        wire.takes(2, || lock.run(|_| Done::Ok(())).unwrap());
        let mut lock = Lock::new(&mut *backend, three_keys()).timeout(LATE);
        wire.takes(2, || lock.run(|_| Done::Ok(())).unwrap());
        let mut lock = Lock::new(&mut *backend, three_keys());
        wire.takes(2, || {
            assert!(lock.try_run(|_| Done::Ok(())).unwrap().is_some());
        });
        let mut lock = Lock::new(backend, KeyRange::new(fresh_key(), 20_261_224..20_261_227));
        wire.takes(2, || lock.run(|_| Done::Ok(())).unwrap());
    });
}

#[test]
fn a_body_that_fails_costs_nothing() {
    each_backend!(|wire, backend| {
        wire.takes(2, || {
            with_lock(backend, fresh_key(), |_| Err::<(), _>(Error::body("no"))).unwrap_err();
        });
    });
}

#[test]
fn a_nested_lock_takes_its_own_two() {
    each_backend!(|wire, backend| {
        let key = &fresh_key();
        wire.takes(4, || {
            with_lock(backend, key, |conn| with_lock(conn, key, |_| Done::Ok(()))).unwrap();
        });
    });
}

#[test]
fn try_with_lock_takes_two() {
    each_backend!(|wire, backend| {
        wire.takes(2, || {
            let ran = try_with_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
            assert!(ran.is_some());
        });
    });
}

#[test]
fn try_with_lock_when_busy_takes_one() {
    each_backend!(|wire, backend| {
        let keys = three_keys();
        let _holder = hold(&keys[1]);
        wire.takes(1, || {
            let ran = try_with_lock(backend, &keys[1], |_| Done::Ok(())).unwrap();
            assert!(ran.is_none());
        });
        let mut lock = Lock::new(&mut *backend, &keys);
        wire.takes(1, || {
            assert!(lock.try_run(|_| Done::Ok(())).unwrap().is_none());
        });
        // The handler learns who holds the lock.
        let mut lock = Lock::new(backend, &keys[1]).timeout(Duration::ZERO);
        wire.takes(2, || {
            lock.run_or_else(|_| panic!(), |_| Done::Ok(())).unwrap();
        });
        let mut lock = lock.name_holders(false);
        wire.takes(1, || {
            lock.run_or_else(|_| panic!(), |_| Done::Ok(())).unwrap();
        });
    });
}

#[test]
fn a_timeout_that_passes_takes_one_more() {
    each_backend!(|wire, backend| {
        let keys = three_keys();
        let _holder = hold(&keys[1]);
        let mut lock = Lock::new(&mut *backend, &keys[1]).timeout(SOON);
        wire.takes(2, || {
            let error = lock.run(|_| Done::Ok(())).unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
        });
        let mut lock = Lock::new(backend, &keys).timeout(SOON);
        wire.takes(2, || {
            assert!(lock.try_run(|_| Done::Ok(())).unwrap().is_none());
        });
    });
}

/// However short the session's `deadlock_timeout` is: a slice does not depend on it.
#[test]
fn a_wait_of_two_slices_takes_a_few() {
    each_backend!(|wire, backend| {
        let key = &fresh_key();
        let _holder = hold(key);
        with_lock(backend, fresh_key(), |conn| {
            Done::Ok(conn.send("SET deadlock_timeout = '1ms'")?)
        })
        .unwrap();
        let mut lock = Lock::new(backend, key).timeout(Duration::from_millis(1_500));
        let taken = wire.proxy.count(|| {
            lock.run(|_| Done::Ok(())).unwrap_err();
        });
        assert!((3..=10).contains(&taken), "{}: {taken}", wire.backend);
    });
}

fn fresh_slots(count: u32) -> Slots {
    Slots::new(fresh_key().name().unwrap(), count)
}

/// And one more if the slot that it tried first was taken.
#[test]
fn a_semaphore_with_room_takes_two() {
    each_backend!(|wire, backend| {
        let slots = fresh_slots(3);
        let mut semaphore = Semaphore::new(backend, slots.key(), 3).timeout(LATE);
        wire.takes(2, || semaphore.run(|_| Done::Ok(())).unwrap());
        let transaction = 4 + wire.driver.begin();
        wire.takes(transaction, || {
            semaphore.run_in_transaction(|_| Done::Ok(())).unwrap();
        });
        let _holders = [hold(&slots.keys()[0]), hold(&slots.keys()[2])];
        for _ in 0..8 {
            let taken = wire.proxy.count(|| {
                let ran = semaphore.try_run(|_| Done::Ok(())).unwrap();
                assert!(ran.is_some());
            });
            assert!((2..=3).contains(&taken));
        }
        let _last = hold(&slots.keys()[1]);
        let mut semaphore = semaphore.timeout(Duration::ZERO);
        wire.takes(1, || {
            assert!(semaphore.try_acquire().unwrap().is_none());
        });
        wire.takes(2, || {
            let error = semaphore.acquire().map(drop).unwrap_err();
            assert!(error.to_string().contains("held by"), "{error}");
        });
    });
}

/// However long the wait, within a slice it is a few messages.
#[test]
fn a_semaphore_asks_a_few_times_to_wait() {
    each_backend!(|wire, backend| {
        let slots = fresh_slots(1);
        let holder = hold(&slots.keys()[0]);
        let mut semaphore = Semaphore::new(backend, slots.key(), 1).timeout(LATE);
        let mut looks = proxy::server().connect(NoTls).unwrap();
        let waits = format!(
            "SELECT FROM pg_locks WHERE objid = {} AND objsubid = 1",
            slots.queue().pg_locks().1
        );
        std::thread::scope(|threads| {
            threads.spawn(move || {
                while looks.query(&waits, &[]).unwrap().is_empty() {}
                drop(holder);
            });
            // The try, the limit of the session's silence, the queue's key, a slot or a look, the slot again, and
            // the release.
            let taken = wire
                .proxy
                .count(|| semaphore.run(|_| Done::Ok(())).unwrap());
            assert!((5..=7).contains(&taken), "{}: {taken}", wire.backend);
        });
    });
}

#[test]
fn a_guard_takes_one_to_acquire_one_to_ask_and_one_to_release() {
    each_backend!(|wire, backend| {
        let mut lock = Lock::new(backend, fresh_key());
        wire.takes(3, || {
            let mut guard = lock.acquire().unwrap();
            assert_eq!(
                wire.proxy
                    .count(|| assert!(LockGuard::is_held(&mut guard).unwrap())),
                1
            );
            assert_eq!(wire.proxy.count(|| LockGuard::release(guard).unwrap()), 1);
        });
        wire.takes(2, || drop(lock.acquire().unwrap()));
    });
}

#[test]
fn with_transaction_lock_takes_three_with_postgres_and_two_with_diesel() {
    each_backend!(|wire, backend| {
        let expected = 2 + wire.driver.begin();
        wire.takes(expected, || {
            with_transaction_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
        });
        // diesel looks first, in a message of its own: in front of a BEGIN, a vain try would be an error.
        wire.takes(expected + wire.driver.without_rows(), || {
            let ran = try_with_transaction_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
            assert!(ran.is_some());
        });
        let mut lock = Lock::new(backend, three_keys()).shared().timeout(LATE);
        wire.takes(expected, || {
            lock.run_in_transaction(|_| Done::Ok(())).unwrap();
        });
    });
}

#[test]
fn a_rollback_costs_what_a_commit_does() {
    each_backend!(|wire, backend| {
        wire.takes(2 + wire.driver.begin(), || {
            with_transaction_lock(backend, fresh_key(), |_| Err::<(), _>(Error::body("no")))
                .unwrap_err();
        });
    });
}

/// With diesel, no transaction has begun yet.
#[test]
fn with_transaction_lock_refused_rolls_back_only_what_was_begun() {
    each_backend!(|wire, backend| {
        let key = &fresh_key();
        let _holder = hold(key);
        let expected = 1 + 2 * wire.driver.begin();
        wire.takes(expected, || {
            let ran = try_with_transaction_lock(backend, key, |_| Done::Ok(())).unwrap();
            assert!(ran.is_none());
        });
        // The error names the holders.
        let mut lock = Lock::new(backend, key).timeout(SOON);
        wire.takes(expected + 1, || {
            let error = lock.run_in_transaction(|_| Done::Ok(())).unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
        });
    });
}

#[test]
fn the_wrong_scope_takes_one_more() {
    each_backend!(|wire, backend| {
        let mut lock = Lock::new(backend, fresh_key()).scope(Scope::Transaction);
        wire.takes(2, || {
            let error = lock.run(|_| Done::Ok(())).unwrap_err();
            assert!(matches!(error, Error::NotInTransaction { .. }), "{error}");
        });
    });
    each_transaction!(|wire, backend| {
        // The driver knows, so pglock does not ask the server.
        let mut lock = Lock::new(backend, fresh_key()).scope(Scope::Session);
        wire.takes(0, || {
            let error = lock.run(|_| Done::Ok(())).unwrap_err();
            assert!(matches!(error, Error::InTransaction { .. }), "{error}");
        });
    });
}

#[test]
fn transaction_lock_takes_one() {
    each_transaction!(|wire, backend| {
        wire.takes(1, || transaction_lock(backend, fresh_key()).unwrap());
        wire.takes(wire.driver.to_ask(), || {
            assert!(try_transaction_lock(backend, fresh_key()).unwrap());
        });
    });
}

#[test]
fn with_lock_inside_a_transaction_takes_one() {
    each_transaction!(|wire, backend| {
        wire.takes(1, || {
            with_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
        });
        wire.takes(wire.driver.to_ask(), || {
            let ran = try_with_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
            assert!(ran.is_some());
        });
        let mut lock = Lock::new(backend, fresh_key()).shared().timeout(LATE);
        wire.takes(1, || lock.run(|_| Done::Ok(())).unwrap());
    });
}

#[test]
fn several_keys_inside_a_transaction_take_one() {
    each_transaction!(|wire, backend| {
        let mut lock = Lock::new(&mut *backend, three_keys());
        wire.takes(1, || lock.run(|_| Done::Ok(())).unwrap());
        let mut lock = Lock::new(&mut *backend, three_keys());
        wire.takes(wire.driver.to_ask() + wire.driver.without_rows(), || {
            assert!(lock.try_run(|_| Done::Ok(())).unwrap().is_some());
        });
        let mut lock = Lock::new(backend, three_keys()).timeout(LATE);
        wire.takes(1, || lock.run(|_| Done::Ok(())).unwrap());
    });
}

#[test]
fn a_vain_try_inside_a_transaction_takes_no_more() {
    each_transaction!(|wire, backend| {
        let keys = three_keys();
        let _holder = hold(&keys[1]);
        wire.takes(wire.driver.to_ask(), || {
            assert!(!try_transaction_lock(backend, &keys[1]).unwrap());
        });
        let mut lock = Lock::new(&mut *backend, &keys);
        wire.takes(wire.driver.to_ask() + wire.driver.without_rows(), || {
            assert!(lock.try_run(|_| Done::Ok(())).unwrap().is_none());
        });
        let mut lock = Lock::new(&mut *backend, &keys).timeout(SOON);
        wire.takes(2, || {
            let error = lock.run(|_| Done::Ok(())).unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
        });
        let mut lock = Lock::new(backend, &keys[1]).timeout(SOON);
        wire.takes(2, || {
            assert!(
                lock.try_run_in_transaction(|_| Done::Ok(()))
                    .unwrap()
                    .is_none()
            );
        });
    });
}

/// The lock, and the two ends of the savepoint that replaces the transaction.
#[test]
fn with_transaction_lock_inside_a_transaction_takes_three() {
    each_transaction!(|wire, backend| {
        wire.takes(3, || {
            with_transaction_lock(backend, fresh_key(), |_| Done::Ok(())).unwrap();
        });
        wire.takes(3, || {
            with_transaction_lock(backend, fresh_key(), |_| Err::<(), _>(Error::body("no")))
                .unwrap_err();
        });
    });
}

/// Its release is the transaction's end.
#[test]
fn a_guard_inside_a_transaction_takes_one_to_acquire_and_one_to_ask() {
    each_transaction!(|wire, backend| {
        let mut lock = Lock::new(backend, fresh_key());
        // With diesel the savepoint around the question is two messages more.
        wire.takes(2 + 3 * wire.driver.without_rows(), || {
            let mut guard = lock.acquire().unwrap();
            assert_eq!(
                wire.proxy
                    .count(|| assert!(LockGuard::is_held(&mut guard).unwrap())),
                1 + 3 * wire.driver.without_rows()
            );
            LockGuard::release(guard).unwrap();
        });
    });
}

#[test]
fn a_section_in_one_message_takes_one() {
    each_backend!(|wire, backend| {
        for text in ["SELECT 1", "SELECT 1; SELECT 2; -- no more", ""] {
            let mut lock = Lock::new(&mut *backend, fresh_key());
            wire.takes(1, || lock.batch_execute(text).unwrap());
            let mut lock = Lock::new(&mut *backend, three_keys()).timeout(LATE);
            wire.takes(1, || lock.batch_execute(text).unwrap());
            wire.takes(1, || assert!(lock.try_batch_execute(text).unwrap()));
        }
        // The text may have begun a transaction.
        let mut lock = Lock::new(&mut *backend, fresh_key());
        wire.takes(2, || lock.batch_execute("DO $$ BEGIN END $$").unwrap());
        // The driver returns before the server has rolled back.
        wire.takes(2, || drop(lock.batch_execute("SELECT 1 / 0").unwrap_err()));
    });
    each_transaction!(|wire, backend| {
        for text in ["SELECT 1", "DO $$ BEGIN END $$"] {
            let mut lock = Lock::new(&mut *backend, fresh_key());
            wire.takes(1, || lock.batch_execute(text).unwrap());
            wire.takes(1, || assert!(lock.try_batch_execute(text).unwrap()));
        }
    });
}

/// The end of the first slice needs one more question. (On a machine that stalls for as
/// long as the timeout there is no slice, so the timeout is a long one.)
#[test]
fn a_section_in_one_message_that_is_refused_takes_up_to_two_more() {
    each_backend!(|wire, backend| {
        let key = &fresh_key();
        let _holder = hold(key);
        let mut lock = Lock::new(&mut *backend, key)
            .timeout(Duration::ZERO)
            .name_holders(false);
        wire.takes(1, || assert!(!lock.try_batch_execute("SELECT 1").unwrap()));
        let mut lock = Lock::new(&mut *backend, key).timeout(Duration::from_millis(500));
        wire.takes(3, || {
            let error = lock.batch_execute("SELECT 1").unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
        });
    });
}
