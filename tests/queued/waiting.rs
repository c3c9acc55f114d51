//! The wait in memory: in order, without connections, and with an end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pglock::driver::Session;
use pglock::{Error, Lock, LockGuard, QueuedPool, try_with_lock, with_lock, with_transaction_lock};
use r2d2::{ManageConnection, Pool};

use crate::oracle::{self, Oracle, unique_key};
use crate::timeouts::Timeouts;
use crate::{ask, never, queued, send, wait_for_waiting};

/// The section needs another connection: with one connection per waiter, none would be left.
pub fn a_contended_key_takes_one_connection<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let key = unique_key();
    let mut lock = Lock::new(&pool, &key);
    let guard = lock.acquire().unwrap();
    thread::scope(|threads| {
        for _ in 0..16 {
            threads.spawn(|| {
                with_lock(&mut &pool, &key, |conn| {
                    let mut second = pool.pool().get().map_err(Error::body)?;
                    assert_ne!(
                        ask(conn, "pg_backend_pid()")?,
                        ask(&mut *second, "pg_backend_pid()")?
                    );
                    Ok::<_, Error>(())
                })
                .unwrap();
            });
        }
        wait_for_waiting(&pool, 16);
        assert!(pool.pool().get().is_ok(), "the waiters have none");
        LockGuard::release(guard).unwrap();
    });
    assert_eq!(pool.waiting(), 0);
}

pub fn who_gives_up_leaves_the_queue<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    const SHORT: Duration = Duration::from_millis(20);
    let (pool, checkouts) = queued(manager(), 2);
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let mut lock = Lock::new(&pool, &key);
    let guard = lock.acquire().unwrap();
    let gives_up = || {
        let timeout = Lock::new(&pool, &key).timeout(SHORT).run(never);
        let Err(Error::Timeout { timeout: set, .. }) = timeout else {
            panic!("{timeout:?}")
        };
        assert_eq!(set, Some(SHORT));
        let busy = try_with_lock(&mut &pool, &key, never);
        assert!(busy.unwrap().is_none(), "not even with others in the queue");
        let handled = Lock::new(&pool, &key)
            .timeout(SHORT)
            .run_in_transaction_or_else(|_| Ok::<_, Error>(1), |_| Ok(2));
        assert_eq!(handled.unwrap(), 2);
    };
    thread::scope(|threads| {
        threads.spawn(|| with_lock(&mut &pool, &key, |_| Ok::<_, Error>(())).unwrap());
        wait_for_waiting(&pool, 1);
        threads.spawn(gives_up).join().unwrap();
        assert_eq!(pool.waiting(), 1);
        assert_eq!(oracle.rows(&key).len(), 1, "nobody waits at the server");
        LockGuard::release(guard).unwrap();
    });
    assert_eq!(checkouts.count(), 1);
    oracle.assert_free(&key);
}

/// Each thread waits as long as without a queue, and not one after the other.
pub fn no_connection_to_be_had_is_told_to_each<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    const LONG: Duration = Duration::from_secs(2);
    let timeouts = Timeouts::default();
    let pool = Pool::builder()
        .max_size(1)
        .min_idle(Some(0))
        .event_handler(Box::new(timeouts.clone()))
        .connection_timeout(LONG);
    let pool = QueuedPool::new(pool.build(manager()).unwrap());
    let key = unique_key();
    let only = pool.pool().get_timeout(oracle::PATIENCE).unwrap();
    let start = Instant::now();
    let mut all_came_within = Duration::ZERO;
    thread::scope(|threads| {
        for number in 0..4 {
            let (pool, key) = (&pool, &key);
            threads.spawn(move || {
                let refused = match number % 2 {
                    0 => with_lock(&mut &*pool, key, never),
                    _ => with_transaction_lock(&mut &*pool, key, |tx| never(tx)),
                };
                let told = matches!(refused, Err(Error::Checkout { .. }));
                assert!(told, "{refused:?}");
            });
        }
        wait_for_waiting(&pool, 3);
        all_came_within = start.elapsed();
    });
    let timeouts = timeouts.take();
    assert_eq!(timeouts.len(), 4);
    assert!(timeouts[0] <= LONG, "{timeouts:?}");
    for timeout in &timeouts[1..] {
        assert!(*timeout <= all_came_within, "{timeouts:?}");
    }
    drop(only);
    with_lock(&mut &pool, &key, |_| Ok::<_, Error>(())).unwrap();
}

/// Sections of one key come without a pause, and all keys share one connection.
pub fn other_keys_get_a_connection_of_a_busy_ones<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 1);
    let (busy, other, over) = (unique_key(), unique_key(), AtomicBool::new(false));
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    with_lock(&mut &pool, &busy, |conn| send(conn, "SELECT 1")).unwrap();
                }
            });
        }
        wait_for_waiting(&pool, 3);
        let rounds: Vec<_> = (0..3)
            .map(|_| with_lock(&mut &pool, &other, |conn| send(conn, "SELECT 1")))
            .collect();
        over.store(true, Ordering::SeqCst); // before a panic, so that the others end
        for round in rounds {
            round.unwrap();
        }
    });
}

pub fn shared_locks_do_not_queue<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let mut lock = Lock::new(&pool, &key).shared();
    let guard = lock.acquire().unwrap();
    let beside = || {
        let mut lock = Lock::new(&pool, &key).shared();
        lock.run(|_| {
            assert_eq!(oracle.held(&key), ["ShareLock", "ShareLock"]);
            Ok::<_, Error>(())
        })
    };
    thread::scope(|threads| threads.spawn(beside).join().unwrap().unwrap());
    assert!(try_with_lock(&mut &pool, &key, never).unwrap().is_none());
    LockGuard::release(guard).unwrap();
    oracle.assert_free(&key);
}

/// Nor do sections before and after them in the queue.
pub fn transactions_queue_and_hand_nothing_over<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, checkouts) = queued(manager(), 2);
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let mut lock = Lock::new(&pool, &key);
    let guard = lock.acquire().unwrap();
    thread::scope(|threads| {
        for number in 0..4 {
            if number == 2 {
                threads.spawn(|| {
                    with_lock(&mut &pool, &key, |conn| {
                        send(conn, "SELECT 1 / (now() = statement_timestamp())::int")
                    })
                    .unwrap();
                });
            } else {
                threads.spawn(|| {
                    with_transaction_lock(&mut &pool, &key, |tx| {
                        send(tx, "SELECT 1 / (now() <> statement_timestamp())::int")
                    })
                    .unwrap();
                });
            }
            wait_for_waiting(&pool, number + 1);
        }
        LockGuard::release(guard).unwrap();
    });
    assert_eq!(checkouts.count(), 5);
    oracle.assert_free(&key);
}
