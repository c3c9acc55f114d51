//! Waits that end without the lock: each end has its own error, and nothing is held.

use std::time::Duration;

use pglock::{Error, Key, Lock, try_with_lock, with_lock};

use crate::harness::{Harness, Refusal, holds, on, sql};
use crate::oracle::{Oracle, unique_key};

const SHORT: Duration = Duration::from_millis(20);

/// A key that another session holds.
fn taken() -> (Oracle, Key) {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    (oracle, key)
}

fn never<S: ?Sized>(_: &mut S) -> Result<(), Error> {
    panic!("the body must not run")
}

pub fn a_try_on_a_held_key_is_none_and_holds_nothing<H: Harness>() {
    let (mut oracle, key) = taken();
    let free = unique_key();
    H::with(|backend| {
        assert!(try_with_lock(backend, &key, never).unwrap().is_none());
        assert_eq!(oracle.rows(&key).len(), 1);

        let mut both = Lock::new(&mut *backend, [&key, &free]);
        assert!(both.try_run(never).unwrap().is_none());
        oracle.assert_free(&free);
        assert!(both.try_acquire().unwrap().is_none());

        // Zero is the same: exactly one attempt.
        let error = Lock::new(&mut *backend, &key)
            .timeout(Duration::ZERO)
            .run(never);
        let Err(Error::Timeout { timeout, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(timeout, Some(Duration::ZERO));
        let mut free = Lock::new(backend, &free).timeout(Duration::ZERO);
        free.run(|_| Ok::<_, Error>(())).unwrap();
    });
}

pub fn a_timeout_is_told_and_holds_nothing<H: Harness>() {
    let (mut oracle, key) = taken();
    let free = unique_key();
    H::with(|backend| {
        let error = Lock::new(&mut *backend, &key)
            .timeout(SHORT)
            .run(never)
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::Timeout {
                    timeout: Some(SHORT),
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.is_retryable() && !error.is_lock_lost());
        assert!(
            error
                .to_string()
                .contains(&format!("20ms waiting for {key} (exclusive)")),
            "{error}"
        );
        assert_eq!(oracle.rows(&key).len(), 1);

        let mut both = Lock::new(&mut *backend, [&key, &free]).timeout(SHORT);
        assert!(both.try_run(never).unwrap().is_none());
        assert!(matches!(both.run(never), Err(Error::Timeout { .. })));
        oracle.assert_free(&free);

        oracle.unlock(&key);
        let mut both = Lock::new(backend, [&key, &free]).timeout(SHORT);
        both.run(|_| Ok::<_, Error>(())).unwrap();
        oracle.assert_free(&key);
        oracle.assert_free(&free);
    });
}

pub fn timeouts_of_any_length_work<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        for timeout in [
            Duration::from_nanos(1),
            Duration::from_secs(30 * 86_400),
            Duration::MAX,
        ] {
            let mut lock = Lock::new(&mut *backend, &key).timeout(timeout);
            lock.run(|_| Ok::<_, Error>(())).unwrap();
        }
    });
    let (_oracle, key) = taken();
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).timeout(Duration::from_nanos(1));
        assert!(matches!(lock.run(never), Err(Error::Timeout { .. })));
    });
}

pub fn the_conflict_handler_runs_for_this_lock_alone<H: Harness>() {
    let (mut oracle, key) = taken();
    let free = unique_key();
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key).timeout(SHORT);
        let handled = lock.run_or_else(|_| Ok::<_, Error>("body"), |_| Ok("handler"));
        assert_eq!(handled.unwrap(), "handler");

        // A timeout of another lock, inside the body, is the body's error.
        let mut outer = Lock::new(&mut *backend, &free).timeout(SHORT);
        let inner =
            |conn: &mut crate::SessionOf<'_, H>| Lock::new(conn, &key).timeout(SHORT).run(never);
        let error = outer
            .run_or_else(inner, |_| panic!("not its conflict"))
            .unwrap_err();
        assert_eq!(
            error.lock_info().unwrap().keys(),
            std::slice::from_ref(&key)
        );
        let error = outer.try_run(inner).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        oracle.assert_free(&free);
    });
}

pub fn settings_are_as_they_were<H: Harness>() {
    let (mut oracle, key) = taken();
    H::with(|backend| {
        let unset = holds(backend, "current_setting('lock_timeout') = '0'");
        assert!(
            unset,
            "the suite expects a server without a lock_timeout of its own"
        );
        on(backend, "SET lock_timeout = '7s'").unwrap();
        let mut lock = Lock::new(&mut *backend, &key).timeout(SHORT);
        assert!(matches!(lock.run(never), Err(Error::Timeout { .. })));
        assert!(holds(backend, "current_setting('lock_timeout') = '7s'"));
        oracle.unlock(&key);
        let mut lock = Lock::new(&mut *backend, &key).timeout(SHORT);
        lock.run(|_| Ok::<_, Error>(())).unwrap();
        assert!(holds(backend, "current_setting('lock_timeout') = '7s'"));
    });
}

pub fn the_sessions_own_lock_timeout_is_a_timeout<H: Harness>() {
    let (mut oracle, key) = taken();
    H::with(|backend| {
        on(backend, "SET lock_timeout = '20ms'").unwrap();
        let error = with_lock(backend, &key, never).unwrap_err();
        assert!(
            matches!(error, Error::Timeout { timeout: None, .. }),
            "{error:?}"
        );
        assert_eq!(oracle.rows(&key).len(), 1);
    });
}

pub fn a_cancel_is_no_timeout_and_holds_nothing<H: Harness>() {
    let (mut oracle, key) = taken();
    H::with(|backend| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let pid = oracle.wait_for_waiter(&key);
                oracle.cancel(pid);
            });
            let error = with_lock(backend, &key, never).unwrap_err();
            assert!(matches!(error, Error::Canceled { .. }), "{error:?}");
            assert!(!error.is_retryable());
        });
        assert_eq!(oracle.rows(&key).len(), 1);

        on(backend, "SET statement_timeout = '20ms'").unwrap();
        let error = with_lock(backend, &key, never).unwrap_err();
        assert!(matches!(error, Error::Canceled { .. }), "{error:?}");
        assert_eq!(oracle.rows(&key).len(), 1);
    });
}

pub fn a_connection_that_dies_while_waiting_is_told<H: Harness>() {
    let (mut oracle, key) = taken();
    H::with(|backend| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let pid = oracle.wait_for_waiter(&key);
                oracle.terminate(pid);
            });
            let error = with_lock(backend, &key, never).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::ConnectionLost {
                        committing: false,
                        ..
                    }
                ),
                "{error:?}"
            );
        });
        assert_eq!(oracle.rows(&key).len(), 1);
    });
}

/// The other session waits for the key that this one holds, and then this one for the other's. The
/// other's deadlock check is delayed, so that this session's check comes first.
pub fn a_deadlock_is_told_and_leaves_nothing_behind<H: Harness>() {
    let (mut other, theirs) = taken();
    let (mut oracle, ours) = (Oracle::new(), unique_key());
    other
        .client
        .batch_execute("SET deadlock_timeout = '10min'")
        .unwrap();
    H::with(|backend| {
        std::thread::scope(|threads| {
            let result = with_lock(backend, &ours, |conn| {
                threads.spawn(|| other.lock(&ours));
                oracle.wait_for_waiter(&ours);
                Lock::new(conn, &theirs).run(never)
            });
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
            assert_eq!(
                error.lock_info().unwrap().keys(),
                std::slice::from_ref(&theirs)
            );
            assert!(error.is_retryable());
        });
        assert_eq!(oracle.rows(&theirs).len(), 1);
        assert_eq!(oracle.rows(&ours).len(), 1, "only the other session's");
    });
}

/// In whatever order they are given, the lock waits for the lowest first, and none stays held until all
/// are acquired.
pub fn several_keys_are_taken_in_one_order<H: Harness>() {
    let mut keys = [unique_key(), unique_key(), unique_key()];
    keys.sort();
    let [low, middle, high] = keys;
    let (mut oracle, mut other) = (Oracle::new(), Oracle::new());
    H::with(|backend| {
        for order in [[&low, &middle, &high], [&high, &middle, &low]] {
            other.lock(&middle);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    oracle.wait_for_waiter(&middle);
                    assert_eq!(oracle.held(&low), ["ExclusiveLock"]);
                    oracle.assert_free(&high);
                    other.unlock(&middle);
                });
                Lock::new(&mut *backend, order)
                    .run(|_| Ok::<_, Error>(()))
                    .unwrap();
            });
        }
    });
}

pub fn a_lock_can_be_used_again_and_again<H: Harness>() {
    let (mut oracle, key) = taken();
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key).timeout(SHORT);
        assert!(matches!(lock.run(never), Err(Error::Timeout { .. })));
        oracle.unlock(&key);
        for _ in 0..3 {
            lock.run(|conn| sql(conn, "SELECT 1")).unwrap();
            lock.run(|_| Err::<(), _>(Refusal::Body)).unwrap_err();
        }
        oracle.assert_free(&key);
    });
}
