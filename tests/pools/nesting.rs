//! A thread that holds a lock, and asks for another on a second connection of a pool. The server sees two
//! sessions and no deadlock, so only pglock can tell.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{
    Error, Key, Lock, LockBackend, LockGuard, QueuedPool, SessionTarget, StopToken, try_with_lock,
    with_lock, with_transaction_lock,
};
use r2d2::ManageConnection;

use crate::oracle::{self, Oracle, connect, unique_key, unique_name};
use crate::{never, pool};

type Result<T> = std::result::Result<T, Error>;

/// Gives a token that ends a wait which would last for ever; the test fails then.
fn with_patience<R>(work: impl FnOnce(&StopToken) -> R) -> R {
    let (token, (done, ended)) = (StopToken::new(), channel::<()>());
    let stop = token.clone();
    let watch = thread::spawn(move || {
        if ended.recv_timeout(oracle::PATIENCE).is_err() {
            stop.stop();
        }
    });
    let result = work(&token);
    let _ = done.send(());
    watch.join().unwrap();
    result
}

fn refused<B: LockBackend, T: SessionTarget>(lock: Lock<B, T>) {
    let asked = lock.lock_info().clone();
    let refused = with_patience(|token| {
        let mut lock = lock.stop_on(token);
        [
            lock.run(never::<(), _>).unwrap_err(),
            lock.run_in_transaction(|tx| never::<(), _>(tx))
                .unwrap_err(),
            lock.batch_execute("SELECT 1 / 0").unwrap_err(),
            lock.acquire().unwrap_err(),
        ]
    });
    for nested in refused {
        assert!(matches!(nested, Error::AlreadyHeld { .. }), "{nested:?}");
        assert_eq!(nested.lock_info(), Some(&asked));
    }
}

with_each_manager!(a_key_does_not_nest_through_a_pool);

fn a_key_does_not_nest_through_a_pool<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = pool(manager, 3);
    let queued = QueuedPool::new(pool.clone());
    nothing_nests(&pool, &pool);
    nothing_nests(&pool, &queued);
    nothing_nests(&queued, &pool);
    // Each has a queue of its own, but the server is one.
    nothing_nests(&queued, &QueuedPool::new(pool.clone()));
}

fn nothing_nests<B, C>(outer: &B, inner: &C)
where
    B: LockBackend + Clone,
    C: LockBackend + Clone,
{
    let (mut oracle, key, other) = (Oracle::new(), unique_key(), unique_key());
    let nested = || Lock::new(inner.clone(), [&key]);
    let check = || {
        refused(nested());
        refused(nested().timeout(oracle::PATIENCE));
        refused(nested().shared());
        refused(Lock::new(inner.clone(), [&other, &key]));
        // An attempt does not wait, and neither does one key for another.
        assert!(try_with_lock(&mut inner.clone(), &key, never::<(), _>)?.is_none());
        with_lock(&mut inner.clone(), &other, |_| Result::Ok(()))
    };
    with_lock(&mut outer.clone(), &key, |conn| {
        check()?;
        with_lock(conn, &key, |_| Result::Ok(()))
    })
    .unwrap();
    with_transaction_lock(&mut outer.clone(), &key, |_| check()).unwrap();
    Lock::new(outer.clone(), [&key, &unique_key()])
        .run(|_| check())
        .unwrap();
    // What has ended is forgotten, also after an error.
    let failed = with_lock(&mut outer.clone(), &key, |_| {
        Err::<(), _>(Error::body("no"))
    });
    assert!(matches!(failed, Err(Error::Body(_))), "{failed:?}");
    with_lock(&mut inner.clone(), &key, |_| Result::Ok(())).unwrap();
    oracle.assert_free(&key);
}

/// The same key is another lock there.
#[cfg(feature = "postgres")]
#[test]
fn a_key_nests_in_another_database() {
    let (name, key) = (unique_name("database"), unique_key());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    connect().batch_execute(&create).unwrap();
    let manager = |database: Option<&str>| {
        let mut config: postgres::Config = oracle::url().parse().unwrap();
        if let Some(database) = database {
            config.dbname(database);
        }
        r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls)
    };
    let (here, there) = (pool(manager(None), 2), pool(manager(Some(&name)), 2));
    with_lock(&mut &here, &key, |_| {
        with_lock(&mut &there, &key, |_| {
            refused(Lock::new(&there, &key));
            refused(Lock::new(&here, &key));
            Result::Ok(())
        })
    })
    .unwrap();
    drop(there);
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    connect().batch_execute(&drop).unwrap();
}

with_each_manager!(a_guard_that_has_moved_is_waited_for);

/// Another thread has it now, and will release it.
fn a_guard_that_has_moved_is_waited_for<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, key) = (pool(manager, 2), unique_key());
    let guard = Lock::new(pool.clone(), &key).acquire_owned().unwrap();
    let release = {
        let key = key.clone();
        move || {
            Oracle::new().wait_for_waiter(&key);
            LockGuard::release(guard).unwrap();
        }
    };
    let releaser = thread::spawn(release);
    with_lock(&mut &pool, &key, |_| Result::Ok(())).unwrap();
    releaser.join().unwrap();
}

with_each_manager!(a_ring_of_threads_is_told_before_the_wait);

fn a_ring_of_threads_is_told_before_the_wait<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = pool(manager, 6);
    for threads in [2, 3] {
        ring(&pool, threads, &|keys| {
            let mut oracle = Oracle::new();
            for key in keys {
                oracle.wait_for_waiter(key);
            }
        });
        let queued = QueuedPool::new(pool.clone());
        ring(&queued, threads, &|keys| {
            oracle::wait_until("waiters", || (queued.waiting() == keys.len()).then_some(()));
        });
    }
}

/// Each thread but the first holds a key, and waits for that of the one before it. Then the first asks
/// for the last one's.
fn ring<B>(pool: &B, threads: usize, until_waited_for: &dyn Fn(&[Key]))
where
    B: LockBackend + Clone + Send + Sync,
{
    let keys: Vec<_> = (0..threads).map(|_| unique_key()).collect();
    let last = threads - 1;
    thread::scope(|scope| {
        let mut others = Vec::new();
        let told = with_lock(&mut pool.clone(), &keys[0], |_| {
            for at in 1..threads {
                let (holds, held) = channel();
                let keys = &keys;
                others.push(scope.spawn(move || {
                    with_lock(&mut pool.clone(), &keys[at], |_| {
                        holds.send(()).unwrap();
                        with_lock(&mut pool.clone(), &keys[at - 1], |_| Result::Ok(()))
                    })
                }));
                held.recv().unwrap();
            }
            until_waited_for(&keys[..last]);
            let short = Lock::new(pool.clone(), &keys[last])
                .timeout(Duration::from_millis(20))
                .run(never::<(), _>);
            assert!(matches!(short, Err(Error::Timeout { .. })), "{short:?}");
            with_patience(|token| {
                let mut lock = Lock::new(pool.clone(), &keys[last]).stop_on(token);
                lock.run(never::<(), _>)
            })
        });
        let Err(error @ Error::Deadlock { .. }) = told else {
            panic!("{told:?}")
        };
        assert!(error.is_retryable());
        for other in others {
            other.join().unwrap().unwrap();
        }
    });
    keys.iter().for_each(|key| Oracle::new().assert_free(key));
}
