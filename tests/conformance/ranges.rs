//! A range of numbers: it keeps out what overlaps, and nothing else.

use std::ops::Range;
use std::time::Duration;

use pglock::{Error, KeyRange, Lock, LockGuard, LockInfo, Mode, with_lock};

use crate::harness::{Harness, InTransaction, holds, on, sql, third_driver};
use crate::oracle::{Oracle, unique_key, unique_name, url, wait_until};
use crate::slices::wait_for_second_slice;

const STAY: Range<i64> = 20_261_224..20_261_232;
/// Inside, around, across each end, the same, next to it, and far away.
const OTHERS: [Range<i64>; 9] = [
    20_261_226..20_261_227,
    i64::MIN..i64::MAX,
    20_261_220..20_261_225,
    20_261_231..20_261_300,
    STAY,
    20_261_200..20_261_224,
    20_261_232..20_261_300,
    i64::MIN..-1,
    1 << 40..i64::MAX,
];

fn other() -> third_driver::Connection {
    third_driver::Connection::connect(&url()).unwrap()
}

fn overlap(one: &Range<i64>, other: &Range<i64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// What another session gets while `STAY` is held.
fn assert_keeps_out(other: &mut third_driver::Connection, room: &str, held: Mode) {
    for range in OTHERS {
        for mode in [Mode::Exclusive, Mode::Shared] {
            let got = Lock::new(&mut *other, KeyRange::new(room, range.clone()))
                .mode(mode)
                .try_run(|_| Ok::<_, Error>(()));
            let free = !overlap(&range, &STAY) || (held, mode) == (Mode::Shared, Mode::Shared);
            match got {
                Ok(got) => assert_eq!(got.is_some(), free, "{range:?} {mode} beside {held}"),
                Err(Error::SharedRangeTooLong { .. }) => assert_eq!(mode, Mode::Shared),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn assert_free(oracle: &mut Oracle, lock: &LockInfo) {
    assert!(lock.keys().len() > 1);
    for key in lock.keys() {
        oracle.wait_until_free(key);
    }
}

pub fn a_range_keeps_out_what_overlaps_and_nothing_else<H: Harness>() {
    let (mut oracle, mut other, room) = (Oracle::new(), other(), unique_name("room"));
    H::with(|backend| {
        for mode in [Mode::Exclusive, Mode::Shared] {
            let mut lock = Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY)).mode(mode);
            let info = lock.lock_info().clone();
            assert_eq!(
                info.to_string(),
                format!("20261224..20261232 of {room:?} ({mode})")
            );
            lock.run(|_| {
                assert_keeps_out(&mut other, &room, mode);
                assert_eq!(
                    Lock::new(&mut other, &room).try_run(|_| Ok::<_, Error>(7))?,
                    Some(7)
                );
                Ok::<_, Error>(())
            })
            .unwrap();
            assert_free(&mut oracle, &info);

            let mut lock = Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY)).mode(mode);
            lock.run_in_transaction(|_| {
                assert_keeps_out(&mut other, &room, mode);
                Ok::<_, Error>(())
            })
            .unwrap();
            assert_free(&mut oracle, &info);

            lock.batch_execute("SELECT 1").unwrap();
            assert_free(&mut oracle, &info);
        }
    });
}

pub fn a_guard_of_a_range_holds_and_keeps_its_mode<H: Harness>() {
    let (mut oracle, mut other, room) = (Oracle::new(), other(), unique_name("room"));
    H::with(|backend| {
        for mode in [Mode::Exclusive, Mode::Shared] {
            let mut lock = Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY)).mode(mode);
            let mut guard = lock.acquire().unwrap();
            assert!(LockGuard::is_held(&mut guard).unwrap());
            let changed = match mode {
                Mode::Exclusive => LockGuard::downgrade(&mut guard),
                Mode::Shared => LockGuard::try_upgrade(&mut guard).map(drop),
            };
            assert!(
                matches!(changed, Err(Error::FixedMode { .. })),
                "{changed:?}"
            );
            assert_keeps_out(&mut other, &room, mode);

            // The same session locks a part of the range again.
            let mut inner = Lock::new(
                &mut *guard,
                KeyRange::new(room.as_str(), STAY.start..STAY.start + 1),
            );
            inner.run(|_| Ok::<_, Error>(())).unwrap();
            assert_keeps_out(&mut other, &room, mode);
            let info = LockGuard::lock_info(&guard).clone();
            LockGuard::release(guard).unwrap();
            assert_free(&mut oracle, &info);
        }
        let mut lock = Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY));
        let mut guard = lock.acquire().unwrap();
        sql(&mut *guard, "SELECT pg_advisory_unlock_all()").unwrap();
        assert!(!LockGuard::is_held(&mut guard).unwrap());
        assert!(LockGuard::release(guard).unwrap_err().is_lock_lost());
    });
}

/// It waits in slices, and keeps the session's settings.
pub fn a_range_is_waited_for<H: Harness>() {
    let (mut oracle, room) = (Oracle::new(), unique_name("room"));
    for (timeout, keep_place) in [(None, false), (Some(3600), false), (None, true)] {
        let mut other = other();
        let mut theirs = Lock::new(
            &mut other,
            KeyRange::new(room.as_str(), 20_261_231..20_261_300),
        );
        let info = theirs.lock_info().clone();
        let guard = theirs.acquire().unwrap();
        H::with(|backend| {
            let mut lock =
                Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY)).keep_place(keep_place);
            if let Some(seconds) = timeout {
                lock = lock.timeout(Duration::from_secs(seconds));
            }
            std::thread::scope(|threads| {
                let (oracle, info) = (&mut oracle, &info);
                threads.spawn(move || {
                    wait_until("a waiter", || {
                        let mut rows = info.keys().iter().flat_map(|key| oracle.rows(key));
                        rows.any(|row| !row.granted).then_some(())
                    });
                    LockGuard::release(guard).unwrap();
                });
                lock.run(|_| Ok::<_, Error>(())).unwrap();
            });
            assert!(holds(backend, "current_setting('lock_timeout') = '0'"));
        });
        assert_free(&mut oracle, &info);
    }
}

/// A session that waits for this one holds a neighbouring range, and so some of the same keys. It is not
/// in the way, so there is no deadlock.
pub fn who_holds_a_range_beside_may_wait_for_this_session<H: Harness>() {
    let (mut oracle, room, key) = (Oracle::new(), unique_name("room"), unique_key());
    let (mut beside, mut holder) = (other(), other());
    let mut in_the_way = Lock::new(&mut holder, KeyRange::new(room.as_str(), 0..5));
    let in_the_way = in_the_way.acquire().unwrap();
    H::with(|backend| {
        with_lock(backend, &key, |session| {
            std::thread::scope(|threads| {
                let (room, key, beside) = (room.as_str(), &key, &mut beside);
                threads.spawn(move || {
                    Lock::new(beside, KeyRange::new(room, 10..20))
                        .run(|conn| Lock::new(conn, key).keep_place(true).run(|_| Ok(())))
                        .unwrap_or_else(|error: Error| panic!("{error}"));
                });
                oracle.wait_for_waiter(key);
                let mut lock = Lock::new(&mut *session, KeyRange::new(room, 3..4));
                let wanted = lock.lock_info().keys().iter();
                let mut wanted = wanted.filter(|key| oracle.held(key) == ["ExclusiveLock"]);
                let wanted = wanted.next().unwrap().clone();
                threads.spawn(move || {
                    wait_for_second_slice(&mut Oracle::new(), &wanted);
                    LockGuard::release(in_the_way).unwrap();
                });
                let acquired = lock.run(|_| Ok::<_, Error>(()));
                sql(session, "SELECT pg_advisory_unlock_all()").unwrap(); // so that the other goes on
                acquired
            })
            .unwrap();
            Ok::<_, Error>(())
        })
        .unwrap_err();
    });
}

/// It does not name those whose range is not in the way, though they hold some of the keys.
pub fn a_timeout_names_who_holds_a_range_in_the_way<H: Harness>() {
    let (mut oracle, room) = (Oracle::new(), unique_name("room"));
    let (mut other, mut beside) = (other(), other());
    let mut beside = Lock::new(
        &mut beside,
        KeyRange::new(room.as_str(), 20_261_232..20_261_240),
    );
    let _beside = beside.acquire().unwrap();
    let mut theirs = Lock::new(&mut other, KeyRange::new(room.as_str(), STAY));
    let guard = theirs.acquire().unwrap();
    let mut keys = LockGuard::lock_info(&guard).keys().iter();
    let covered = keys.find(|key| oracle.held(key) == ["ExclusiveLock"]);
    let pid = oracle.holder(covered.unwrap());
    H::with(|backend| {
        let mut lock =
            Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY)).timeout(Duration::ZERO);
        match lock.run(|_| Ok::<_, Error>(())) {
            Err(Error::Timeout { holders, .. }) => {
                let holders: Vec<_> = holders.iter().map(|holder| holder.pid).collect();
                assert_eq!(holders, [Some(pid)]);
            }
            other => panic!("{other:?}"),
        }
    });
}

pub fn a_range_that_cannot_be_taken_is_told<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        #[allow(clippy::reversed_empty_ranges)]
        for empty in [7..7, 8..7, i64::MAX..i64::MIN] {
            for mode in [Mode::Exclusive, Mode::Shared] {
                let mut lock =
                    Lock::new(&mut *backend, KeyRange::new(&key, empty.clone())).mode(mode);
                let told = lock.run(|_| Ok::<_, Error>(()));
                assert!(matches!(told, Err(Error::EmptyRange { .. })), "{told:?}");
                let told = lock.batch_execute("SELECT 1");
                assert!(matches!(told, Err(Error::EmptyRange { .. })), "{told:?}");
            }
        }
        for (end, long) in [(366, false), (367, true), (i64::MAX, true)] {
            let mut lock = Lock::new(&mut *backend, KeyRange::new(&key, 0..end)).shared();
            match lock.run_in_transaction(|_| Ok::<_, Error>(())) {
                Err(Error::SharedRangeTooLong { .. }) => assert!(long),
                ended => assert!(ended.is_ok() && !long, "{ended:?}"),
            }
            // The same lock exclusively.
            lock.mode(Mode::Exclusive)
                .try_run(|_| Ok::<_, Error>(()))
                .unwrap();
        }
    });
}

pub fn a_range_is_held_until_the_transaction_ends<H: InTransaction>() {
    let (mut oracle, mut other, room) = (Oracle::new(), other(), unique_name("room"));
    let mut info = None;
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY));
        info = Some(lock.lock_info().clone());
        lock.run(|_| Ok::<_, Error>(())).unwrap();
        lock.run_in_transaction(|_| Ok::<_, Error>(())).unwrap();
        assert_keeps_out(&mut other, &room, Mode::Exclusive);
    });
    assert_free(&mut oracle, &info.unwrap());
}

/// Those of its keys that were free are free again.
pub fn a_refused_range_leaves_nothing_in_the_transaction<H: InTransaction>() {
    let (mut oracle, mut other, room) = (Oracle::new(), other(), unique_name("room"));
    let mut theirs = Lock::new(
        &mut other,
        KeyRange::new(room.as_str(), 20_261_231..20_261_300),
    );
    let guard = theirs.acquire().unwrap();
    H::with(|backend| {
        on(backend, "SET LOCAL lock_timeout = '1234ms'").unwrap();
        let mut lock = Lock::new(&mut *backend, KeyRange::new(room.as_str(), STAY));
        let info = lock.lock_info().clone();
        assert!(lock.try_run(|_| Ok::<_, Error>(())).unwrap().is_none());
        let refused = lock
            .timeout(Duration::from_millis(5))
            .run(|_| Ok::<_, Error>(()));
        assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
        assert!(holds(backend, "current_setting('lock_timeout') = '1234ms'"));
        for key in info.keys() {
            let theirs = LockGuard::lock_info(&guard).keys().contains(key);
            assert_eq!(oracle.rows(key).len(), usize::from(theirs));
        }
    });
    LockGuard::release(guard).unwrap();
}
