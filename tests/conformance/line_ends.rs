//! What ends a wait in line: nothing of it is left, and the next one is let in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pglock::{Error, Key, Lock, StopToken};

use crate::harness::{Harness, holds, on, third_driver};
use crate::line::Line;
use crate::oracle::{Oracle, PATIENCE, connect, unique_key, url, wait_until};

/// Where in the line the wait ends.
#[derive(Debug, Clone, Copy)]
enum At {
    Behind,
    Head,
    /// At the head for the second of two keys, with the first one had.
    Keeping,
}

const SETTINGS: &str =
    "SET idle_session_timeout = '1h'; SET lock_timeout = '7min'; SET search_path = pg_temp, public";
const AS_THEY_WERE: &str = "current_setting('idle_session_timeout') = '1h' \
    AND current_setting('lock_timeout') = '7min' AND current_setting('search_path') = 'pg_temp, public'";

/// A section of another session's.
fn section(key: &Key) {
    let mut client = third_driver::Connection::connect(&url()).unwrap();
    let mut lock = Lock::new(&mut client, key).timeout(PATIENCE);
    lock.run(|_| Ok::<_, Error>(())).unwrap();
}

/// Somebody stands behind the one whose wait `end` ends, which is called with its process until it does.
fn ended<H: Harness>(
    timeout: Duration,
    end: impl Fn(&mut Oracle, i32, &StopToken) + Sync,
    is_right: impl Fn(&Error) -> bool,
    is_usable: bool,
) {
    for at in [At::Behind, At::Head, At::Keeping] {
        let mut keys = [unique_key(), unique_key()];
        keys.sort();
        let [first, key] = &keys;
        let (mut oracle, mut looker, line) = (Oracle::new(), Oracle::new(), Line::of(key));
        oracle.lock(key);
        let (token, is_over) = (StopToken::new(), AtomicBool::new(false));
        thread::scope(|threads| {
            let ahead = usize::from(matches!(at, At::Behind));
            if ahead > 0 {
                threads.spawn(|| section(key));
                line.wait_for_head(&mut oracle);
            }
            let wanted = match at {
                At::Keeping => &keys[..],
                At::Behind | At::Head => &keys[1..],
            };
            H::with(|backend| {
                on(backend, SETTINGS).unwrap();
                let ender = threads.spawn({
                    let (token, is_over, end, line) = (&token, &is_over, &end, &line);
                    move || {
                        let pid = line.wait_for(&mut looker, ahead + 1);
                        if matches!(at, At::Keeping) {
                            assert_eq!(looker.holder(first), pid);
                        }
                        threads.spawn(|| section(key));
                        line.wait_for(&mut looker, ahead + 2);
                        wait_until("the end of the wait", || {
                            end(&mut looker, pid, token);
                            is_over.load(Ordering::Relaxed).then_some(())
                        });
                        // A session that was ended is gone a moment after its client knows.
                        wait_until("nobody in line for it", || {
                            let members = line.members(&mut looker);
                            (!members.contains(&pid)).then_some(())
                        });
                    }
                });
                let mut lock = Lock::new(&mut *backend, wanted)
                    .stop_on(&token)
                    .timeout(timeout);
                let told = lock.run(|_| -> Result<(), Error> { panic!("the body must not run") });
                let error = told.unwrap_err();
                assert!(is_right(&error), "{at:?}: {error:?}");
                is_over.store(true, Ordering::Relaxed);
                ender.join().unwrap();
                oracle.wait_until_free(first);
                if is_usable {
                    assert!(holds(backend, AS_THEY_WERE), "{at:?}");
                }
            });
            oracle.unlock(key);
        });
        line.wait_until_gone(&mut oracle);
        Line::of(first).wait_until_gone(&mut oracle);
        oracle.wait_until_free(key);
    }
}

pub fn a_stop_leaves_nothing_in_line<H: Harness>() {
    let stop = |_: &mut Oracle, _: i32, token: &StopToken| token.stop();
    ended::<H>(
        PATIENCE,
        stop,
        |error| matches!(error, Error::Stopped { .. }),
        true,
    );
}

pub fn a_timeout_leaves_nothing_in_line<H: Harness>() {
    let nothing = |_: &mut Oracle, _: i32, _: &StopToken| {};
    let is_right = |error: &Error| matches!(error, Error::Timeout { .. });
    ended::<H>(Duration::from_millis(3_500), nothing, is_right, true);
}

/// Only while it waits, so that the cancel does not hit what gives all back.
pub fn a_cancel_leaves_nothing_in_line<H: Harness>() {
    let cancel = |oracle: &mut Oracle, pid: i32, _: &StopToken| {
        let query = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE pid = $1 AND NOT granted";
        oracle.client.execute(query, &[&pid]).unwrap();
    };
    ended::<H>(
        PATIENCE,
        cancel,
        |error| matches!(error, Error::Canceled { .. }),
        true,
    );
}

/// Whatever it hits.
pub fn many_cancels_leave_nothing_in_line<H: Harness>() {
    let cancel = |oracle: &mut Oracle, pid: i32, _: &StopToken| oracle.cancel(pid);
    ended::<H>(
        PATIENCE,
        cancel,
        |error| matches!(error, Error::Canceled { .. }),
        false,
    );
}

pub fn an_end_of_the_session_leaves_nothing_in_line<H: Harness>() {
    let end = |oracle: &mut Oracle, pid: i32, _: &StopToken| {
        let query = "SELECT pg_terminate_backend($1)";
        oracle.client.execute(query, &[&pid]).unwrap();
    };
    let is_right = |error: &Error| matches!(error, Error::ConnectionLost { .. });
    ended::<H>(PATIENCE, end, is_right, false);
}

/// Members whose client sends nothing more, as `kill -STOP` does it: the server ends the session of the
/// head, and whoever stands behind one that is not the head tries the key.
pub fn a_frozen_member_does_not_hold_up_the_line<H: Harness>() {
    for (is_head, idle) in [(true, "2400ms"), (false, "0"), (false, "2400ms")] {
        let (mut oracle, mut frozen, key) = (Oracle::new(), connect(), unique_key());
        let line = Line::of(&key);
        oracle.lock(&key);
        let limit = format!("SET idle_session_timeout = '{idle}'");
        frozen.batch_execute(&limit).unwrap();
        line.stand(&mut frozen, 1, is_head);
        thread::scope(|threads| {
            threads.spawn(|| {
                H::with(|backend| {
                    let mut lock = Lock::new(backend, &key).timeout(PATIENCE);
                    lock.run(|_| Ok::<_, Error>(())).unwrap();
                });
            });
            wait_until("who stands behind, or passed", || {
                (line.members(&mut oracle).len() == 2 || !is_head).then_some(())
            });
            oracle.unlock(&key);
        });
        drop(frozen);
        line.wait_until_gone(&mut oracle);
        oracle.wait_until_free(&key);
    }
}

/// It had the first of several keys, and stands in line for the next.
pub fn a_frozen_member_keeps_no_key_for_long<H: Harness>() {
    let (mut oracle, mut frozen) = (Oracle::new(), connect());
    let (first, second) = (unique_key(), unique_key());
    let limit = "SET idle_session_timeout = '2400ms'";
    frozen.batch_execute(limit).unwrap();
    let lock = format!("SELECT pg_advisory_lock({})", first.as_i64().unwrap());
    frozen.batch_execute(&lock).unwrap();
    Line::of(&second).stand(&mut frozen, 1, true);
    H::with(|backend| {
        let mut lock = Lock::new(backend, [&first, &second]).timeout(PATIENCE);
        lock.run(|_| Ok::<_, Error>(())).unwrap();
    });
    for key in [&first, &second] {
        Line::of(key).wait_until_gone(&mut oracle);
        oracle.wait_until_free(key);
    }
}

/// While it stands in line, a session is ended if its client is silent for longer than some slices.
pub fn who_stands_in_line_may_not_be_silent<H: Harness>() {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    H::with(|backend| {
        for own in ["0", "1700ms", "1h", "3d"] {
            let key = unique_key();
            let line = Line::of(&key);
            holder.lock(&key);
            on(backend, &format!("SET idle_session_timeout = '{own}'")).unwrap();
            thread::scope(|threads| {
                threads.spawn(|| {
                    line.wait_for_head(&mut oracle);
                    holder.unlock(&key);
                });
                let mut lock = Lock::new(&mut *backend, &key).timeout(PATIENCE);
                lock.run(|_| Ok::<_, Error>(())).unwrap();
            });
            let set =
                format!("current_setting('idle_session_timeout')::interval = '{own}'::interval");
            assert!(holds(backend, &set), "{own}");
            assert!(holds(backend, "current_setting('pglock.idle') = ''"));
            line.wait_until_gone(&mut oracle);
        }
    });
}
