//! How often a lock is acquired, by whom, and who is next.

use std::time::Duration;

use pglock::{Error, Key, Lock, LockGuard, try_with_lock, with_lock};

use crate::harness::{Harness, holds};
use crate::oracle::{Oracle, unique_key};

const SHORT: Duration = Duration::from_millis(20);

/// One plain unlock frees each key: neither the planner nor a second step has acquired it twice.
pub fn a_lock_is_taken_exactly_once<H: Harness>() {
    let (mut oracle, keys) = (Oracle::new(), [unique_key(), unique_key(), unique_key()]);
    H::with(|backend| {
        for timeout in [None, Some(Duration::ZERO), Some(Duration::from_secs(60))] {
            for shared in [false, true] {
                let mut lock = Lock::new(&mut *backend, &keys);
                if let Some(timeout) = timeout {
                    lock = lock.timeout(timeout);
                }
                let suffix = if shared { "_shared" } else { "" };
                lock = if shared { lock.shared() } else { lock };
                let mut guard = lock.acquire().unwrap();
                for key in &keys {
                    oracle.holder(key);
                    let number = key.as_i64().unwrap();
                    let unlock = format!("pg_advisory_unlock{suffix}('{number}')");
                    assert!(holds(&mut *guard, &unlock), "{timeout:?}");
                    oracle.assert_free(key);
                }
                assert!(LockGuard::release(guard).unwrap_err().is_lock_lost());
            }
        }
    });
}

pub fn a_failed_try_is_not_counted<H: Harness>() {
    let (mut oracle, mut other, key) = (Oracle::new(), Oracle::new(), unique_key());
    other.lock_shared(&key);
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).shared();
        lock.run(|conn| {
            let exclusive = try_with_lock(conn, &key, |_| Ok::<_, Error>(()))?;
            assert!(exclusive.is_none());
            let mut exclusive = Lock::new(conn, &key).timeout(SHORT);
            assert!(matches!(exclusive.acquire(), Err(Error::Timeout { .. })));
            assert_eq!(oracle.held(&key), ["ShareLock", "ShareLock"]);
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(oracle.held(&key), ["ShareLock"], "the other session's");
    });
}

/// A number and the pair of its halves differ in only one column of `pg_locks`.
pub fn the_two_key_spaces_never_meet<H: Harness>() {
    let mut oracle = Oracle::new();
    let number = unique_key();
    let (high, low, _) = number.pg_locks();
    let pair = Key::from((high as i32, low as i32));
    oracle.lock(&pair);
    H::with(|backend| {
        let ran = try_with_lock(&mut *backend, &number, |_| Ok::<_, Error>(()));
        assert!(ran.unwrap().is_some());
        let ran = try_with_lock(&mut *backend, &pair, |_| Ok::<_, Error>(()));
        assert!(ran.unwrap().is_none());
    });
}

/// Neither releases its shared lock, so neither can acquire the exclusive one.
pub fn two_shared_holders_that_both_want_more_are_told<H: Harness>() {
    let (mut oracle, mut other, key) = (Oracle::new(), Oracle::new(), unique_key());
    other
        .client
        .batch_execute("SET deadlock_timeout = '10min'")
        .unwrap();
    H::with(|backend| {
        for timeout in [Some(SHORT), None] {
            other.lock_shared(&key);
            std::thread::scope(|threads| {
                let mut lock = Lock::new(&mut *backend, &key).shared();
                let outcome = lock.run(|conn| {
                    threads.spawn(|| other.lock(&key));
                    oracle.wait_for_waiter(&key);
                    let mut exclusive = Lock::new(conn, &key);
                    if let Some(timeout) = timeout {
                        exclusive = exclusive.timeout(timeout);
                    }
                    exclusive.run(|_| -> Result<(), Error> { panic!("the body must not run") })
                });
                // The server finds this one when the wait begins, whatever the timeout.
                let told = matches!(outcome, Err(Error::Deadlock { .. }));
                assert!(told, "{outcome:?}");
            });
            other.unlock(&key);
            other.unlock_shared(&key);
            oracle.assert_free(&key);
        }
    });
}

/// The server queues them: this session came first, and gets in first.
pub fn waiters_are_let_in_as_they_came<H: Harness>() {
    let (mut oracle, mut holder, mut late) = (Oracle::new(), Oracle::new(), Oracle::new());
    let key = &unique_key();
    holder.lock(key);
    H::with(|backend| {
        std::thread::scope(|threads| {
            let queue = threads.spawn(|| {
                let ours = oracle.wait_for_waiter(key);
                threads.spawn(|| late.lock(key));
                oracle.wait_for_waiters(key, 2);
                holder.unlock(key);
                ours
            });
            with_lock(backend, key, |_| {
                let ours = queue.join().unwrap();
                let mut looker = Oracle::new();
                looker.wait_for_waiters(key, 1);
                let granted = looker.rows(key).into_iter().find(|row| row.granted);
                assert_eq!(granted.map(|row| row.pid), Some(ours));
                Ok::<_, Error>(())
            })
            .unwrap();
        });
        late.unlock(key);
    });
}
