//! Ranges of any place and length, against a naive model, on a server.

#[path = "support/oracle.rs"]
mod oracle;

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use diesel::{Connection, PgConnection};
use oracle::{connect, unique_name, url};
use pglock::{Error, KeyRange, Lock, LockBackend, Mode};
use proptest::prelude::*;

fn diesel_connection() -> PgConnection {
    PgConnection::establish(&url()).unwrap()
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)]
}

fn range() -> impl Strategy<Value = (Range<i64>, Mode)> {
    let number = || prop_oneof![3 => -12..12_i64, 1 => any::<i64>()];
    prop_oneof![
        (number(), 1..30_i64, mode()).prop_map(|(start, length, mode)| {
            let start = start.min(i64::MAX - length);
            (start..start + length, mode)
        }),
        (number(), number()).prop_filter_map("a range of no numbers", |(one, other)| {
            (one != other).then(|| (one.min(other)..one.max(other), Mode::Exclusive))
        }),
    ]
}

fn is_free<B: LockBackend>(
    backend: &mut B,
    room: &str,
    (numbers, mode): &(Range<i64>, Mode),
) -> bool {
    let mut lock = Lock::new(backend, KeyRange::new(room, numbers.clone())).mode(*mode);
    let got = lock.try_run(|_| Ok::<_, Error>(()));
    got.unwrap().is_some()
}

thread_local! {
    static SESSIONS: RefCell<(postgres::Client, PgConnection)> =
        RefCell::new((connect(), diesel_connection()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_range_is_free_if_what_is_held_does_not_overlap(held in range(), asked in range()) {
        let conflict = held.0.start < asked.0.end
            && asked.0.start < held.0.end
            && (held.1, asked.1) != (Mode::Shared, Mode::Shared);
        let room = unique_name("room");
        SESSIONS.with_borrow_mut(|(one, other)| {
            Lock::new(&mut *one, KeyRange::new(room.as_str(), held.0.clone()))
                .mode(held.1)
                .run(|_| {
                    assert_eq!(is_free(other, &room, &asked), !conflict);
                    Ok::<_, Error>(())
                })
                .unwrap();
            Lock::new(&mut *other, KeyRange::new(room.as_str(), held.0.clone()))
                .mode(held.1)
                .run_in_transaction(|_| {
                    assert_eq!(is_free(one, &room, &asked), !conflict);
                    Ok::<_, Error>(())
                })
                .unwrap();
            assert!(is_free(one, &room, &asked), "all is free at the end");
            assert!(is_free(other, &room, &held), "all is free at the end");
        });
    }
}

/// Who holds each number: −1 for one exclusive holder, otherwise how many share it.
type Nights = Vec<AtomicI32>;

const NIGHTS: u64 = 24;
const ROUNDS: u64 = 40;

/// Records a stay, checks that nobody else is there who must not be, and deletes it.
fn stay(nights: &Nights, range: &Range<i64>, mode: Mode) -> Result<(), Error> {
    let nights = || range.clone().map(|night| &nights[night as usize]);
    for night in nights() {
        match mode {
            Mode::Exclusive => assert_eq!(night.swap(-1, Ordering::SeqCst), 0),
            Mode::Shared => assert!(night.fetch_add(1, Ordering::SeqCst) >= 0),
        }
    }
    thread::yield_now();
    for night in nights() {
        match mode {
            Mode::Exclusive => assert_eq!(night.swap(0, Ordering::SeqCst), -1),
            Mode::Shared => assert!(night.fetch_sub(1, Ordering::SeqCst) > 0),
        }
    }
    Ok(())
}

fn random_stay(random: u64) -> (Range<i64>, Mode) {
    let start = (random % NIGHTS) as i64;
    let length = (random >> 16) as i64 % 7 + 1;
    let mode = match random >> 32 & 1 {
        0 => Mode::Shared,
        _ => Mode::Exclusive,
    };
    (start..(start + length).min(NIGHTS as i64), mode)
}

fn worker<B: LockBackend>(mut backend: B, room: &str, nights: &Nights) {
    for round in 0..ROUNDS {
        let (range, mode) = random_stay(RandomState::new().hash_one(round));
        let lock = Lock::new(&mut backend, KeyRange::new(room, range.clone())).mode(mode);
        let mut lock = lock.keep_place(true); // otherwise a deadlock would end with a slice
        let stayed = match round % 2 {
            0 => lock.run(|_| stay(nights, &range, mode)),
            _ => lock.run_in_transaction(|_| stay(nights, &range, mode)),
        };
        stayed.unwrap_or_else(|error| panic!("{range:?} {mode}: {error}"));
    }
}

/// Any number of them wait for each other, and none waits for ever.
#[test]
fn a_crowd_shares_the_numbers_without_a_deadlock() {
    let room = unique_name("room");
    let nights: Nights = (0..NIGHTS).map(|_| AtomicI32::new(0)).collect();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| worker(connect(), &room, &nights));
            threads.spawn(|| worker(diesel_connection(), &room, &nights));
        }
    });
}
