//! Who holds a key already, beside those who stand in line for it.

use std::thread;
use std::time::Duration;

use pglock::{Error, Key, Lock, LockGuard, StopToken, try_with_lock, with_lock};

use crate::harness::{Harness, sql, third_driver};
use crate::line::{Line, wait_until_waited};
use crate::oracle::{Oracle, PATIENCE, unique_key, url};

/// Another session waits for the key, exclusively, in line.
fn stand_in_line<'s>(
    threads: &'s thread::Scope<'s, '_>,
    oracle: &mut Oracle,
    key: &'s Key,
) -> thread::ScopedJoinHandle<'s, ()> {
    let waiting = threads.spawn(move || {
        let mut client = third_driver::Connection::connect(&url()).unwrap();
        let mut lock = Lock::new(&mut client, key).timeout(PATIENCE);
        lock.run(|_| Ok::<_, Error>(())).unwrap();
    });
    Line::of(key).wait_for_head(oracle);
    waiting
}

fn nothing<S: ?Sized>(_: &mut S) -> Result<(), Error> {
    Ok(())
}

/// All forms in which a holder asks again. None waits.
pub fn a_holder_passes_the_line<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        thread::scope(|threads| {
            with_lock(&mut *backend, &key, |conn| {
                stand_in_line(threads, &mut oracle, &key);
                let held = Oracle::new().held(&key).len();
                with_lock(conn, &key, |inner| {
                    Lock::new(inner, &key).shared().run(nothing)
                })?;
                assert!(try_with_lock(conn, &key, nothing)?.is_some());
                let mut shared = Lock::new(&mut *conn, &key).shared();
                shared.run_in_transaction(|_| Ok::<_, Error>(()))?;
                assert_eq!(Oracle::new().held(&key).len(), held);
                Ok::<_, Error>(())
            })
            .unwrap();
        });
        thread::scope(|threads| {
            let mut lock = Lock::new(&mut *backend, &key).shared();
            let mut guard = lock.acquire().unwrap();
            let waiting = stand_in_line(threads, &mut oracle, &key);
            let mut again = Lock::new(&mut *guard, &key).shared();
            again.run(nothing).unwrap();
            assert!(again.try_run(nothing).unwrap().is_some());
            assert!(LockGuard::try_upgrade(&mut guard).unwrap());
            LockGuard::downgrade(&mut guard).unwrap();
            with_lock(&mut *guard, &key, nothing).unwrap(); // upgrades
            assert!(LockGuard::is_held(&mut guard).unwrap());
            assert!(!waiting.is_finished());
            LockGuard::release(guard).unwrap();
        });
    });
    Line::of(&key).wait_until_gone(&mut oracle);
    oracle.wait_until_free(&key);
}

/// Who waits with plain SQL stands in the server's queue, beside the line.
pub fn a_holder_passes_a_plain_waiter_beside_the_line<H: Harness>() {
    let (mut oracle, mut plain, key) = (Oracle::new(), Oracle::new(), unique_key());
    H::with(|backend| {
        thread::scope(|threads| {
            with_lock(backend, &key, |conn| {
                stand_in_line(threads, &mut oracle, &key);
                threads.spawn(|| {
                    plain.lock(&key);
                    plain.unlock(&key);
                });
                oracle.wait_for_waiters(&key, 2);
                let mut shared = Lock::new(conn, &key).shared().timeout(PATIENCE);
                shared.run(nothing)
            })
            .unwrap();
        });
    });
    oracle.wait_until_free(&key);
}

/// It waits for another reader, for longer than a slice, and for none of those in line.
pub fn an_upgrade_waits_beside_the_line<H: Harness>() {
    let (mut oracle, mut reader, key) = (Oracle::new(), Oracle::new(), unique_key());
    reader.lock_shared(&key);
    H::with(|backend| {
        let mut shared = Lock::new(backend, &key).shared();
        thread::scope(|threads| {
            shared
                .run(|conn| {
                    let waiting = stand_in_line(threads, &mut oracle, &key);
                    threads.spawn(|| {
                        let pid = upgrading(&mut oracle, &key);
                        wait_until_waited(&mut oracle, pid, 700);
                        reader.unlock_shared(&key);
                    });
                    Lock::new(conn, &key).timeout(PATIENCE).run(|_| {
                        assert!(!waiting.is_finished());
                        Ok::<_, Error>(())
                    })
                })
                .unwrap();
        });
    });
    Line::of(&key).wait_until_gone(&mut Oracle::new());
}

/// Waits until a session that shares the key waits for it exclusively.
fn upgrading(oracle: &mut Oracle, key: &Key) -> i32 {
    crate::oracle::wait_until("an upgrade", || {
        let rows = oracle.rows(key);
        let waiter = rows.iter().find(|row| {
            !row.granted && rows.iter().any(|held| held.granted && held.pid == row.pid)
        });
        waiter.map(|row| row.pid)
    })
}

/// What the session held before stays, whatever ends the wait of an upgrade, and whenever.
pub fn an_upgrade_that_ends_keeps_what_was_held<H: Harness>() {
    let (mut oracle, mut reader, key) = (Oracle::new(), Oracle::new(), unique_key());
    reader.lock_shared(&key);
    H::with(|backend| {
        for (millis, timeouts) in [(0, &[650, 700][..]), (700, &[699, 701, 1_500])] {
            let mut shared = Lock::new(&mut *backend, &key).shared();
            let mut guard = shared.acquire().unwrap();
            let token = StopToken::new();
            thread::scope(|threads| {
                threads.spawn(|| {
                    let pid = upgrading(&mut oracle, &key);
                    if millis > 0 {
                        wait_until_waited(&mut oracle, pid, millis);
                    }
                    token.stop();
                });
                let mut lock = Lock::new(&mut *guard, &key).stop_on(&token);
                let told = lock.run(nothing);
                assert!(matches!(told, Err(Error::Stopped { .. })), "{told:?}");
            });
            assert!(LockGuard::is_held(&mut guard).unwrap(), "{millis}");
            for &timeout in timeouts {
                let lock = Lock::new(&mut *guard, &key);
                let told = lock.timeout(Duration::from_millis(timeout)).run(nothing);
                assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
                assert!(LockGuard::is_held(&mut guard).unwrap(), "{timeout}");
            }
            sql(&mut *guard, "SET lock_timeout = '800ms'").unwrap();
            let told = Lock::new(&mut *guard, &key).run(nothing);
            assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
            sql(&mut *guard, "SET lock_timeout = 0").unwrap();
            LockGuard::release(guard).unwrap();
            assert_eq!(oracle.held(&key), ["ShareLock"]);
        }
    });
}

/// A pair that the session itself holds, in the class of the places of the key that it waits for.
pub fn a_wait_keeps_the_pairs_of_its_session<H: Harness>() {
    let (mut oracle, mut holder, key) = (Oracle::new(), Oracle::new(), unique_key());
    let pair = Key::from((Line::of(&key).class, 7));
    holder.lock(&key);
    H::with(|backend| {
        with_lock(backend, &pair, |conn| {
            let lock = Lock::new(&mut *conn, &key);
            let told = lock.timeout(Duration::from_millis(1_500)).run(nothing);
            assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
            oracle.holder(&pair);
            Ok::<_, Error>(())
        })
        .unwrap();
    });
    oracle.wait_until_free(&pair);
}
