//! A lock that changes its mode while it is held.

use std::sync::mpsc::channel;
use std::thread;

use pglock::{Error, Key, Lock, LockGuard, Mode, Scope};

use crate::attacks::{MANY, canceler, many_keys};
use crate::harness::{Harness, InTransaction, holds, sql};
use crate::oracle::{Oracle, unique_key};

const EXCLUSIVE: &[&str] = &["ExclusiveLock"];
const SHARED: &[&str] = &["ShareLock"];

fn sorted(oracle: &mut Oracle, key: &Key) -> Vec<String> {
    let mut modes = oracle.held(key);
    modes.sort_unstable();
    modes
}

/// A writer that already waits does not get in, nor does it hold up the change.
pub fn a_downgraded_lock_is_shared_and_never_free<H: Harness>() {
    let (mut oracle, mut writer) = (Oracle::new(), Oracle::new());
    let keys = [unique_key(), unique_key()];
    H::with(|backend| {
        let mut lock = Lock::new(backend, &keys);
        let mut guard = lock.acquire().unwrap();
        let last = &LockGuard::lock_info(&guard).keys()[1].clone();
        thread::scope(|threads| {
            let waiting = threads.spawn(|| writer.lock(last));
            oracle.wait_for_waiter(last);
            LockGuard::downgrade(&mut guard).unwrap();
            assert_eq!(LockGuard::mode(&guard), Mode::Shared);
            for key in &keys {
                assert_eq!(oracle.held(key), SHARED);
            }
            oracle.wait_for_waiter(last);
            LockGuard::downgrade(&mut guard).unwrap(); // already shared
            assert!(LockGuard::is_held(&mut guard).unwrap());
            LockGuard::release(guard).unwrap();
            waiting.join().unwrap();
        });
        writer.unlock(last);
        for key in &keys {
            oracle.assert_free(key);
        }
    });
}

pub fn a_shared_lock_is_upgraded_if_nobody_else_shares<H: Harness>() {
    let (mut oracle, mut other) = (Oracle::new(), Oracle::new());
    let keys = [unique_key(), unique_key()];
    H::with(|backend| {
        let mut lock = Lock::new(backend, &keys).shared();
        let mut guard = lock.acquire().unwrap();
        let last = &LockGuard::lock_info(&guard).keys()[1].clone();
        other.lock_shared(last);
        assert!(!LockGuard::try_upgrade(&mut guard).unwrap());
        assert_eq!(LockGuard::mode(&guard), Mode::Shared);
        assert_eq!(oracle.held(last), ["ShareLock", "ShareLock"]);
        other.unlock_shared(last);
        for key in &keys {
            assert_eq!(oracle.held(key), SHARED);
        }
        thread::scope(|threads| {
            let waiting = threads.spawn(|| other.lock(last));
            oracle.wait_for_waiter(last);
            assert!(LockGuard::try_upgrade(&mut guard).unwrap());
            assert_eq!(LockGuard::mode(&guard), Mode::Exclusive);
            for key in &keys {
                assert_eq!(oracle.held(key), EXCLUSIVE);
            }
            assert!(LockGuard::try_upgrade(&mut guard).unwrap()); // already exclusive
            assert!(LockGuard::is_held(&mut guard).unwrap());
            LockGuard::release(guard).unwrap();
            waiting.join().unwrap();
        });
        other.unlock(last);
        for key in &keys {
            oracle.assert_free(key);
        }
    });
}

/// Both share the lock, and the other waits for the exclusive one: to the server, a deadlock.
pub fn an_upgrade_against_another_is_refused<H: Harness>() {
    let (mut oracle, mut other, key) = (Oracle::new(), Oracle::new(), &unique_key());
    other
        .client
        .batch_execute("SET deadlock_timeout = '10min'")
        .unwrap();
    other.lock_shared(key);
    H::with(|backend| {
        let mut lock = Lock::new(backend, key).shared();
        let mut guard = lock.acquire().unwrap();
        thread::scope(|threads| {
            threads.spawn(|| other.lock(key));
            oracle.wait_for_waiter(key);
            assert!(!LockGuard::try_upgrade(&mut guard).unwrap());
            assert_eq!(LockGuard::mode(&guard), Mode::Shared);
            assert!(LockGuard::is_held(&mut guard).unwrap());
            LockGuard::release(guard).unwrap();
        });
    });
}

pub fn nested_holds_change_one_by_one<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key);
        let mut outer = lock.acquire().unwrap();
        let mut inner = Lock::new(&mut *outer, &key);
        let mut guard = inner.acquire().unwrap();
        LockGuard::downgrade(&mut guard).unwrap();
        assert_eq!(sorted(&mut oracle, &key), ["ExclusiveLock", "ShareLock"]);
        assert!(LockGuard::try_upgrade(&mut guard).unwrap());
        assert_eq!(oracle.held(&key), EXCLUSIVE);
        LockGuard::downgrade(&mut guard).unwrap();
        LockGuard::release(guard).unwrap();
        assert_eq!(oracle.held(&key), EXCLUSIVE);
        LockGuard::downgrade(&mut outer).unwrap();
        assert_eq!(oracle.held(&key), SHARED);
        LockGuard::release(outer).unwrap();
        oracle.assert_free(&key);
    });
}

pub fn a_lock_that_is_lost_changes_nothing<H: Harness>() {
    let (mut oracle, keys) = (Oracle::new(), [unique_key(), unique_key()]);
    for shared in [false, true] {
        H::with(|backend| {
            let lock = Lock::new(backend, &keys);
            let mut lock = if shared { lock.shared() } else { lock };
            let mut guard = lock.acquire().unwrap();
            let [first, last] = LockGuard::lock_info(&guard).keys() else {
                panic!("two keys")
            };
            let (first, last) = (first.clone(), last.clone());
            let suffix = if shared { "_shared" } else { "" };
            let number = last.as_i64().unwrap();
            let unlock = format!("pg_advisory_unlock{suffix}('{number}')");
            assert!(holds(&mut *guard, &unlock));
            let changed = match shared {
                false => LockGuard::downgrade(&mut guard),
                true => LockGuard::try_upgrade(&mut guard).map(drop),
            };
            assert!(
                matches!(changed, Err(Error::LockLost { .. })),
                "{changed:?}"
            );
            let modes = if shared { SHARED } else { EXCLUSIVE };
            assert_eq!(oracle.held(&first), modes);
            oracle.assert_free(&last);
            assert!(LockGuard::release(guard).unwrap_err().is_lock_lost());
        });
        for key in &keys {
            oracle.assert_free(key);
        }
    }
}

/// Otherwise others would get in before the COMMIT.
pub fn no_mode_changes_in_a_raw_transaction<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    for shared in [false, true] {
        H::with(|backend| {
            let lock = Lock::new(backend, &key);
            let mut lock = if shared { lock.shared() } else { lock };
            let mut guard = lock.acquire().unwrap();
            sql(&mut *guard, "BEGIN").unwrap();
            sql(&mut *guard, "SELECT 1").unwrap();
            let modes = if shared {
                let refused = LockGuard::try_upgrade(&mut guard);
                let told = matches!(refused, Err(Error::InTransaction { .. }));
                assert!(told, "{refused:?}");
                SHARED
            } else {
                let refused = LockGuard::downgrade(&mut guard);
                let told = matches!(refused, Err(Error::CannotDowngrade { .. }));
                assert!(told, "{refused:?}");
                EXCLUSIVE
            };
            let _ = sql(&mut *guard, "ROLLBACK");
            assert_eq!(oracle.held(&key), modes);
            LockGuard::release(guard).unwrap();
        });
        oracle.assert_free(&key);
    }
}

/// Chance decides whether a cancel hits the change: of some hundred, several do.
pub fn a_cancel_at_a_change_of_mode_changes_all_or_nothing<H: Harness>() {
    let mut oracle = Oracle::new();
    let keys = many_keys();
    let modes = |oracle: &mut Oracle, pid: i32| -> Vec<(String, i64)> {
        let query = "SELECT mode, count(*) FROM pg_locks \
            WHERE locktype = 'advisory' AND granted AND pid = $1 GROUP BY mode";
        let rows = oracle.client.query(query, &[&pid]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    H::with(|backend| {
        let mut lock = Lock::new(backend, &keys);
        let mut guard = lock.acquire().unwrap();
        let pid = oracle.holder(&keys[0]);
        let (cancel, waits) = channel();
        let (done, canceled) = channel();
        thread::scope(|threads| {
            threads.spawn(move || canceler(pid, waits, &done));
            let cancel = cancel; // ends the thread, also when this one panics
            for attempt in 0..30_u64 {
                cancel.send(attempt * 97 % 1_500).unwrap();
                let changed = match LockGuard::mode(&guard) {
                    Mode::Exclusive => LockGuard::downgrade(&mut guard),
                    Mode::Shared => LockGuard::try_upgrade(&mut guard).map(|done| assert!(done)),
                };
                canceled.recv().unwrap();
                let _ = sql(&mut *guard, "SELECT 1"); // takes a late cancel
                let told = matches!(changed, Ok(()) | Err(Error::Canceled { .. }));
                assert!(
                    told,
                    "{:.60?}, attempt {attempt}",
                    changed.map_err(|error| error.to_string())
                );
                let mode = match LockGuard::mode(&guard) {
                    Mode::Exclusive => "ExclusiveLock",
                    Mode::Shared => "ShareLock",
                };
                assert_eq!(
                    modes(&mut oracle, pid),
                    [(mode.to_owned(), MANY)],
                    "{changed:?}"
                );
            }
        });
        LockGuard::release(guard).unwrap();
        assert_eq!(
            modes(&mut oracle, pid),
            [],
            "each was released as often as acquired"
        );
    });
}

/// The transaction keeps the exclusive lock, beside the shared one.
pub fn a_transactions_lock_is_upgraded_and_never_downgraded<H: InTransaction>() {
    let (mut oracle, mut other, key) = (Oracle::new(), Oracle::new(), unique_key());
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).shared();
        let mut guard = lock.acquire().unwrap();
        assert_eq!(LockGuard::scope(&guard), Scope::Transaction);
        other.lock_shared(&key);
        assert!(!LockGuard::try_upgrade(&mut guard).unwrap());
        assert_eq!(oracle.held(&key), ["ShareLock", "ShareLock"]);
        assert!(holds(&mut *guard, "current_setting('lock_timeout') = '0'"));
        other.unlock_shared(&key);
        assert!(LockGuard::try_upgrade(&mut guard).unwrap());
        assert_eq!(LockGuard::mode(&guard), Mode::Exclusive);
        assert_eq!(sorted(&mut oracle, &key), ["ExclusiveLock", "ShareLock"]);
        let refused = LockGuard::downgrade(&mut guard);
        assert!(
            matches!(refused, Err(Error::CannotDowngrade { .. })),
            "{refused:?}"
        );
        assert!(LockGuard::is_held(&mut guard).unwrap());
        LockGuard::release(guard).unwrap();
        assert_eq!(sorted(&mut oracle, &key), ["ExclusiveLock", "ShareLock"]);
    });
    oracle.wait_until_free(&key);
}
