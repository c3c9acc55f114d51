//! Locks that are held for work elsewhere, on every backend that a hold can own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pglock::driver::{BoxError, Session};
use pglock::held::{Held, Keeper};
use pglock::{Error, Key, KeyRange, Lock, LockBackend, Mode, Scope, Semaphore, Slots, StopToken};

use crate::harness::third_driver;
use crate::oracle::{Oracle, PATIENCE, unique_key, unique_name, url, wait_until};

/// A backend that a hold can own.
pub trait Owned {
    type Backend: LockBackend + Send + 'static;

    fn new() -> Self::Backend;
}

macro_rules! owned {
    ($($feature:literal $name:ident: $backend:ty = $new:expr;)*) => {$(
        #[cfg(feature = $feature)]
        pub struct $name;

        #[cfg(feature = $feature)]
        impl Owned for $name {
            type Backend = $backend;

            fn new() -> Self::Backend {
                $new
            }
        }
    )*};
}

#[cfg(all(feature = "r2d2", feature = "postgres"))]
type PostgresManager = r2d2_postgres::PostgresConnectionManager<postgres::NoTls>;
#[cfg(all(feature = "r2d2", feature = "diesel"))]
type DieselManager = diesel::r2d2::ConnectionManager<diesel::PgConnection>;

#[cfg(all(feature = "r2d2", feature = "postgres"))]
fn postgres_pool() -> r2d2::Pool<PostgresManager> {
    let manager = PostgresManager::new(url().parse().unwrap(), postgres::NoTls);
    r2d2::Pool::builder().max_size(1).build(manager).unwrap()
}

#[cfg(all(feature = "r2d2", feature = "diesel"))]
fn diesel_pool() -> r2d2::Pool<DieselManager> {
    let manager = DieselManager::new(url());
    r2d2::Pool::builder().max_size(1).build(manager).unwrap()
}

owned! {
    "postgres" Client: postgres::Client = crate::oracle::connect();
    "diesel" Connection: diesel::PgConnection =
        <diesel::PgConnection as diesel::Connection>::establish(&url()).unwrap();
    "postgres" ThirdDriver: third_driver::Connection = third_driver::Connection::connect(&url()).unwrap();
}
#[cfg(all(feature = "r2d2", feature = "postgres"))]
owned! {
    "r2d2" PostgresPool: r2d2::Pool<PostgresManager> = postgres_pool();
    "r2d2" PostgresPooled: r2d2::PooledConnection<PostgresManager> = postgres_pool().get().unwrap();
    "r2d2" PostgresQueued: pglock::QueuedPool<PostgresManager> = pglock::QueuedPool::new(postgres_pool());
}
#[cfg(all(feature = "r2d2", feature = "diesel"))]
owned! {
    "r2d2" DieselPool: r2d2::Pool<DieselManager> = diesel_pool();
    "r2d2" DieselPooled: r2d2::PooledConnection<DieselManager> = diesel_pool().get().unwrap();
    "r2d2" DieselQueued: pglock::QueuedPool<DieselManager> = pglock::QueuedPool::new(diesel_pool());
}

macro_rules! on_every_owned {
    ($($promise:ident,)*) => {$(
        mod $promise {
            on_every_owned! { @one $promise
                "postgres" Client, "diesel" Connection, "postgres" ThirdDriver,
            }
            #[cfg(feature = "postgres")]
            on_every_owned! { @one $promise
                "r2d2" PostgresPool, "r2d2" PostgresPooled, "r2d2" PostgresQueued,
            }
            #[cfg(feature = "diesel")]
            on_every_owned! { @one $promise
                "r2d2" DieselPool, "r2d2" DieselPooled, "r2d2" DieselQueued,
            }
        }
    )*};
    (@one $promise:ident $($feature:literal $owned:ident,)*) => {$(
        #[cfg(feature = $feature)]
        #[test]
        #[allow(non_snake_case)]
        fn $owned() {
            super::$promise::<super::$owned>();
        }
    )*};
}

on_every_owned!(
    a_hold_is_held_until_it_is_released_or_dropped,
    a_hold_is_waited_for_and_its_holder_is_named,
    every_target_and_mode_is_held,
    a_connection_in_a_transaction_is_refused,
);

fn a_hold_is_held_until_it_is_released_or_dropped<O: Owned>() {
    let (key, mut oracle) = (unique_key(), Oracle::new());
    let held = Lock::new(O::new(), &key).hold().unwrap();
    assert_eq!(oracle.held(&key), ["ExclusiveLock"]);
    assert_eq!((held.is_lost(), held.slot()), (false, None));
    assert_eq!(held.lease(), Duration::from_secs(10));
    assert_eq!(held.lock_info().keys(), std::slice::from_ref(&key));
    held.release().unwrap();
    oracle.assert_free(&key);
    let connects = || Ok::<_, BoxError>(O::new());
    drop(Lock::new(connects, &key).hold().unwrap());
    oracle.assert_free(&key);
    let refused = Lock::new(O::new(), &key).hold_while(|_| {
        oracle.holder(&key);
        Err::<(), _>(Error::body("the body says no"))
    });
    assert!(matches!(refused, Err(Error::Body(_))), "{refused:?}");
    oracle.assert_free(&key);
}

fn a_hold_is_waited_for_and_its_holder_is_named<O: Owned>() {
    let (key, mut oracle) = (unique_key(), Oracle::new());
    let held = Lock::new(O::new(), &key).labelled(true);
    let held = held.lease(Duration::from_secs(3_600)).hold().unwrap();
    let none = Lock::new(O::new(), &key).try_hold().unwrap();
    assert!(none.is_none());
    let twice = |_: &Held| -> Result<bool, Error> { panic!("it was held twice") };
    let none = Lock::new(O::new(), &key).try_hold_while(twice);
    assert!(none.unwrap().is_none());
    let short = || Lock::new(O::new(), &key).timeout(Duration::from_millis(50));
    let answer = short().hold_while_or_else(twice, |busy| Ok(busy.is_busy()));
    assert!(answer.unwrap());
    let short = short();
    let Err(Error::Timeout {
        holders, timeout, ..
    }) = short.hold()
    else {
        panic!("it was held twice");
    };
    assert_eq!(holders[0].pid, Some(oracle.holder(&key)));
    assert!(holders[0].held_for.is_some(), "its label says so at once");
    assert_eq!(timeout, Some(Duration::from_millis(50)));
    thread::scope(|threads| {
        let next = threads.spawn(|| Lock::new(O::new(), &key).hold().unwrap());
        oracle.wait_for_waiter(&key);
        held.release().unwrap();
        assert!(!next.join().unwrap().is_lost());
    });
}

fn every_target_and_mode_is_held<O: Owned>() {
    let (keys, mut oracle) = ([unique_key(), unique_key()], Oracle::new());
    let two = Lock::new(O::new(), &keys).shared().hold().unwrap();
    for key in &keys {
        assert_eq!(oracle.held(key), ["ShareLock"]);
    }
    assert_eq!(two.lock_info().mode(), Mode::Shared);
    two.release().unwrap();
    let range = || Lock::new(O::new(), KeyRange::new(&keys[0], 3..9));
    let held = range().hold().unwrap();
    assert!(range().try_hold().unwrap().is_none());
    held.release().unwrap();
    let name = unique_name("slots");
    let slots = || Semaphore::new(O::new(), &name, 2);
    let mut held: Vec<_> = (0..2).map(|_| slots().hold().unwrap()).collect();
    let mut taken: Vec<_> = held.iter().map(Held::slot).collect();
    taken.sort_unstable();
    assert_eq!(taken, [Some(0), Some(1)]);
    assert!(slots().try_hold().unwrap().is_none());
    held.pop().unwrap().release().unwrap();
    assert!(slots().try_hold().unwrap().is_some());
}

fn a_connection_in_a_transaction_is_refused<O: Owned>() {
    let key = unique_key();
    let mut backend = O::new();
    // A pool would give back what is in a transaction.
    if std::any::type_name::<O::Backend>().contains("Pool<") {
        return;
    }
    crate::harness::on(&mut backend, "BEGIN").unwrap();
    let refused = Lock::new(backend, &key).hold();
    assert!(
        matches!(refused, Err(Error::InTransaction { .. })),
        "{refused:?}"
    );
    Oracle::new().assert_free(&key);
}

#[cfg(feature = "postgres")]
fn connect()
-> impl Fn() -> Result<postgres::Client, postgres::Error> + Clone + Send + Sync + 'static {
    let url = url();
    move || postgres::Client::connect(&url, postgres::NoTls)
}

#[cfg(feature = "postgres")]
mod on_one {
    use super::*;

    #[test]
    fn what_cannot_be_held_is_told() {
        let key = unique_key();
        for lease in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            let refused = Lock::new(connect(), &key).lease(lease).hold();
            assert!(
                matches!(refused, Err(Error::InvalidLease { .. })),
                "{refused:?}"
            );
        }
        let refused = Lock::new(connect(), &key).scope(Scope::Transaction).hold();
        assert!(
            matches!(refused, Err(Error::NotInTransaction { .. })),
            "{refused:?}"
        );
        let stop = StopToken::new();
        stop.stop();
        let refused = Lock::new(connect(), &key).stop_on(&stop).hold();
        assert!(matches!(refused, Err(Error::Stopped { .. })), "{refused:?}");
        let refused = Lock::new(|| Err::<postgres::Client, _>("no server"), &key).hold();
        assert!(
            matches!(refused, Err(Error::Checkout { .. })),
            "{refused:?}"
        );
        Oracle::new().assert_free(&key);
    }

    #[test]
    fn the_servers_shorter_limit_is_the_lease() {
        let with_limit = |limit: &'static str| {
            move || -> Result<postgres::Client, BoxError> {
                let mut client = postgres::Client::connect(&url(), postgres::NoTls)?;
                client.batch_execute(&format!("SET idle_session_timeout = '{limit}'"))?;
                Ok(client)
            }
        };
        let held = Lock::new(with_limit("3s"), unique_key()).hold().unwrap();
        assert_eq!(held.lease(), Duration::from_secs(3));
        let refused = Lock::new(with_limit("900ms"), unique_key()).hold();
        assert!(
            matches!(refused, Err(Error::InvalidLease { .. })),
            "{refused:?}"
        );
    }

    /// As behind a pooler in transaction mode, each message takes another session than the one before.
    struct Moving(Vec<postgres::Client>);

    impl LockBackend for Moving {
        type Session = Self;
        type Handle<'a> = &'a mut Self;

        fn session(&mut self) -> Result<&mut Self, BoxError> {
            Ok(self)
        }
    }

    impl Session for Moving {
        type Transaction<'t> = postgres::Transaction<'t>;

        fn in_transaction(&mut self) -> bool {
            false
        }

        fn message(
            &mut self,
            statements: &str,
            question: &str,
        ) -> Result<Vec<String>, pglock::driver::Failure> {
            self.0.rotate_left(1);
            self.0[0].message(statements, question)
        }

        fn transact<R>(
            &mut self,
            opening: &pglock::driver::Opening,
            body: impl FnOnce(&mut Self::Transaction<'_>) -> (R, pglock::driver::Finish),
        ) -> Result<pglock::driver::Transacted<R>, pglock::driver::Failure> {
            self.0[0].transact(opening, body)
        }
    }

    #[test]
    fn a_session_that_moves_is_refused_before_anything_is_held() {
        let key = unique_key();
        let moving = Moving(vec![crate::oracle::connect(), crate::oracle::connect()]);
        let refused = Lock::new(moving, &key).hold();
        assert!(
            matches!(refused, Err(Error::MovedSession { .. })),
            "{refused:?}"
        );
        Oracle::new().assert_free(&key);
    }

    #[test]
    fn a_hold_lasts_as_long_as_it_must_without_the_callers_waiting() {
        let (key, mut oracle) = (unique_key(), Oracle::new());
        let pool = Lock::new(connect(), &key).at_least(Duration::from_secs(2));
        pool.hold().unwrap().release().unwrap();
        oracle.holder(&key);
        oracle.wait_until_free(&key);
        let held = Lock::new(connect(), &key)
            .at_least(Duration::MAX)
            .hold()
            .unwrap();
        drop(held);
        oracle.holder(&key);
    }

    #[test]
    fn many_are_held_on_one_connection_and_lost_with_it() {
        let (keeper, mut oracle) = (Keeper::new(connect()), Oracle::new());
        let keys: Vec<_> = (0..200).map(|_| unique_key()).collect();
        let hold = |key: &Key| Lock::new(&keeper, key).hold().unwrap();
        let first = hold(&keys[0]);
        let mut held: Vec<_> = thread::scope(|threads| {
            let holds: Vec<_> = keys[1..]
                .iter()
                .map(|key| threads.spawn(move || hold(key)))
                .collect();
            holds.into_iter().map(|held| held.join().unwrap()).collect()
        });
        let pid = oracle.holder(&keys[0]);
        assert!(keys.iter().all(|key| oracle.holder(key) == pid));
        assert_eq!(keeper.connections(), 1);
        held.pop().unwrap().release().unwrap();
        oracle.assert_free(&keys[199]);
        let told = std::sync::Arc::new(AtomicUsize::new(0));
        for held in &held {
            let told = std::sync::Arc::clone(&told);
            held.on_loss(move |_| {
                told.fetch_add(1, Ordering::SeqCst);
            });
        }
        first.on_loss(|_| panic!("it goes no further"));
        oracle.terminate(pid);
        assert!(held.iter().all(|held| held.wait(PATIENCE)));
        wait_until("198 to be told", || {
            (told.load(Ordering::SeqCst) == 198).then_some(())
        });
        assert!(!hold(&keys[0]).is_lost(), "on a new connection");
    }

    /// The server would grant it to its session again.
    #[test]
    fn a_keeper_excludes_its_own_holds() {
        let (keeper, mut oracle) = (Keeper::new(connect()), Oracle::new());
        let [key, other] = [unique_key(), unique_key()];
        let held = Lock::new(&keeper, &key).hold().unwrap();
        let shared = || Lock::new(&keeper, &key).shared().try_hold().unwrap();
        assert!(shared().is_none());
        assert!(
            Lock::new(&keeper, [&key, &other])
                .try_hold()
                .unwrap()
                .is_none()
        );
        thread::scope(|threads| {
            let next = threads.spawn(|| Lock::new(&keeper, &key).hold().unwrap());
            oracle.wait_for_waiter(&key);
            // Neither the wait nor what is held is in the way.
            Lock::new(&keeper, &other)
                .hold()
                .unwrap()
                .release()
                .unwrap();
            held.release().unwrap();
            let next = next.join().unwrap();
            assert!(shared().is_none());
            next.release().unwrap();
        });
        let two = [shared().unwrap(), shared().unwrap()];
        assert_eq!(oracle.held(&key), ["ShareLock", "ShareLock"]);
        drop(two);
        let name = unique_name("slots");
        let slot = || Semaphore::new(&keeper, &name, 2).try_hold().unwrap();
        let slots = [slot().unwrap(), slot().unwrap()];
        assert_ne!(slots[0].slot(), slots[1].slot());
        assert!(slot().is_none());
        for key in Slots::new(&name, 2).keys() {
            let lock = Lock::new(&keeper, key).try_hold().unwrap();
            assert!(lock.is_none(), "a slot's key beside the slot");
        }
        drop(slots);
        assert_eq!(keeper.connections(), 0);
        oracle.assert_free(&key);
    }
}
