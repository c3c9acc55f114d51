//! Waits that are longer than a slice, in line: who is next.

use std::sync::Mutex;
use std::thread;

use pglock::{Error, Key, Lock, Semaphore, Slots};

use crate::harness::Harness;
use crate::line::{Line, wait_until_waited};
use crate::oracle::{Oracle, PATIENCE, connect, unique_key, unique_name, wait_until};

/// Longer than three slices.
const LONG: i32 = 2_200;

/// Waits for the key on a backend of its own, and tells the order when it has it.
fn waits<H: Harness>(key: &Key, shared: bool, order: &Mutex<Vec<usize>>, number: usize) {
    H::with(|backend| {
        let lock = Lock::new(backend, key).timeout(PATIENCE);
        let mut lock = match shared {
            true => lock.shared(),
            false => lock,
        };
        lock.run(|_| {
            order.lock().unwrap().push(number);
            Ok::<_, Error>(())
        })
        .unwrap();
    });
}

/// Each waiter begins when the one before it has its place.
fn in_order<H: Harness>(key: &Key, count: usize, millis: i32) {
    let (mut oracle, order) = (Oracle::new(), Mutex::new(Vec::new()));
    let line = Line::of(key);
    oracle.lock(key);
    thread::scope(|threads| {
        for number in 0..count {
            let order = &order;
            threads.spawn(move || waits::<H>(key, false, order, number));
            line.wait_for(&mut oracle, number + 1);
        }
        line.wait_for_head(&mut oracle);
        for pid in line.members(&mut oracle) {
            wait_until_waited(&mut oracle, pid, millis);
        }
        oracle.unlock(key);
    });
    assert_eq!(order.into_inner().unwrap(), (0..count).collect::<Vec<_>>());
    line.wait_until_gone(&mut oracle);
    oracle.wait_until_free(key);
}

pub fn ten_are_let_in_as_they_came_after_many_slices<H: Harness>() {
    in_order::<H>(&unique_key(), 10, LONG);
}

pub fn a_long_line_is_let_in_as_it_came<H: Harness>() {
    in_order::<H>(&unique_key(), 20, 0);
}

/// Keys whose numbers are hard to write.
pub fn every_kind_of_key_has_a_line<H: Harness>() {
    let number = unique_key().as_i64().unwrap() as i32;
    for key in [(i32::MIN, number), (number, i32::MIN), (-1, number)] {
        in_order::<H>(&key.into(), 2, 0);
    }
    in_order::<H>(&i64::MIN.into(), 2, 0);
}

/// Another reader holds the key when the writer comes, and readers come all the while.
pub fn a_writer_gets_in_among_readers<H: Harness>() {
    let (mut oracle, key, order) = (Oracle::new(), unique_key(), Mutex::new(Vec::new()));
    let line = Line::of(&key);
    oracle.lock_shared(&key);
    thread::scope(|threads| {
        threads.spawn(|| waits::<H>(&key, false, &order, 0));
        line.wait_for_head(&mut oracle);
        for number in 1..4 {
            let (key, order) = (&key, &order);
            threads.spawn(move || waits::<H>(key, true, order, number));
            line.wait_for(&mut oracle, number + 1);
            H::with(|backend| {
                let mut late = Lock::new(backend, key).shared();
                assert!(late.try_run(|_| Ok::<_, Error>(())).unwrap().is_none());
            });
        }
        oracle.unlock_shared(&key);
    });
    assert_eq!(order.into_inner().unwrap()[0], 0);
    line.wait_until_gone(&mut oracle);
    oracle.wait_until_free(&key);
}

/// The writer at the head is between two slices: the server knows of no waiter, and the key is free to
/// readers.
pub fn no_reader_passes_a_writer_between_its_slices<H: Harness>() {
    let (mut oracle, mut writer, key) = (Oracle::new(), connect(), unique_key());
    let line = Line::of(&key);
    oracle.lock_shared(&key);
    line.stand(&mut writer, 1, true);
    H::with(|backend| {
        let mut reader = Lock::new(backend, &key).shared();
        let tried = reader.try_run(|_| Ok::<_, Error>(())).unwrap();
        assert!(tried.is_none(), "a try");
        let mut reader = reader.timeout(std::time::Duration::from_millis(1_500));
        let told = reader.run(|_| Ok::<_, Error>(()));
        assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
    });
    drop(writer);
    line.wait_until_gone(&mut oracle);
    assert_eq!(oracle.held(&key), ["ShareLock"]);
}

/// When the head has the key, the server hands its mutex on to the next: no newcomer finds a gap in between.
pub fn the_next_waits_for_the_heads_mutex<H: Harness>() {
    let (mut oracle, key, order) = (Oracle::new(), unique_key(), Mutex::new(Vec::new()));
    let line = Line::of(&key);
    oracle.lock(&key);
    thread::scope(|threads| {
        threads.spawn(|| waits::<H>(&key, false, &order, 0));
        let head = line.wait_for_head(&mut oracle);
        threads.spawn(|| waits::<H>(&key, false, &order, 1));
        line.wait_for(&mut oracle, 2);
        let next = oracle.wait_for_waiter(&line.head.into());
        assert_eq!(line.members(&mut oracle), [head, next]);
        oracle.unlock(&key);
    });
    assert_eq!(order.into_inner().unwrap(), [0, 1]);
    line.wait_until_gone(&mut oracle);
}

/// Each is kept from slice to slice: nobody ever finds one free again.
pub fn several_busy_keys_are_had_one_after_the_other<H: Harness>() {
    let mut keys = [(); 4].map(|()| unique_key());
    keys.sort();
    let mut holders = [(); 4].map(|()| Oracle::new());
    for (holder, key) in holders.iter_mut().zip(&keys) {
        holder.lock(key);
    }
    let mut oracle = Oracle::new();
    thread::scope(|threads| {
        let keys = &keys;
        threads.spawn(move || {
            H::with(|backend| {
                let mut lock = Lock::new(backend, keys).timeout(PATIENCE);
                lock.run(|_| {
                    let mut looker = Oracle::new();
                    let mut pids: Vec<_> = keys.iter().map(|key| looker.holder(key)).collect();
                    pids.dedup();
                    assert_eq!(pids.len(), 1);
                    for key in keys {
                        Line::of(key).wait_until_gone(&mut looker);
                    }
                    Ok::<_, Error>(())
                })
                .unwrap();
            });
        });
        for (n, holder) in holders.iter_mut().enumerate() {
            let pid = Line::of(&keys[n]).wait_for_head(&mut oracle);
            for had in &keys[..n] {
                wait_until_waited_without(&mut oracle, pid, had, 800 * i32::try_from(n).unwrap());
                assert_eq!(oracle.holder(had), pid);
            }
            holder.unlock(&keys[n]);
        }
    });
    for key in &keys {
        oracle.wait_until_free(key);
    }
}

/// Waits until a wait has lasted so long, while the key cannot be had.
fn wait_until_waited_without(oracle: &mut Oracle, pid: i32, key: &Key, millis: i32) {
    let number = key.as_i64().unwrap();
    let query = "SELECT pg_try_advisory_lock($2), coalesce(substring(query FROM 'waited ([0-9]+) ms')::int, 0) \
        FROM pg_stat_activity WHERE pid = $1";
    wait_until("a long wait", || {
        let row = oracle.client.query_one(query, &[&pid, &number]).unwrap();
        assert!(!row.get::<_, bool>(0), "{key} was free for a moment");
        (row.get::<_, i32>(1) >= millis).then_some(())
    });
}

pub fn one_session_stands_in_many_lines_one_after_the_other<H: Harness>() {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    H::with(|backend| {
        for shared in [false, true, false] {
            let key = unique_key();
            let line = Line::of(&key);
            holder.lock(&key);
            thread::scope(|threads| {
                threads.spawn(|| {
                    line.wait_for_head(&mut oracle);
                    holder.unlock(&key);
                });
                let lock = Lock::new(&mut *backend, &key).timeout(PATIENCE);
                let mut lock = match shared {
                    true => lock.shared(),
                    false => lock,
                };
                lock.run(|_| Ok::<_, Error>(())).unwrap();
            });
            line.wait_until_gone(&mut oracle);
            oracle.wait_until_free(&key);
        }
    });
}

/// Who waits for a slot stands in line for the key of the queue.
pub fn slots_are_had_in_the_order_of_the_line<H: Harness>() {
    let (mut oracle, mut holder, order) = (Oracle::new(), Oracle::new(), Mutex::new(Vec::new()));
    let slots = Slots::new(unique_name("semaphore"), 1);
    let line = Line::of(slots.queue());
    holder.lock(&slots.keys()[0]);
    thread::scope(|threads| {
        for number in 0..6 {
            let (slots, order) = (&slots, &order);
            threads.spawn(move || {
                H::with(|backend| {
                    let mut semaphore = Semaphore::new(backend, slots.key(), 1).timeout(PATIENCE);
                    semaphore
                        .run(|_| {
                            order.lock().unwrap().push(number);
                            Ok::<_, Error>(())
                        })
                        .unwrap();
                });
            });
            match number {
                0 => oracle.wait_for_holder(slots.queue()),
                _ => drop(line.wait_for(&mut oracle, number)),
            }
        }
        holder.unlock(&slots.keys()[0]);
    });
    assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 4, 5]);
    line.wait_until_gone(&mut oracle);
    oracle.wait_until_free(slots.queue());
}

/// A user's pairs in the class of the key's places are no places: 32 bits collide.
pub fn pairs_of_a_users_are_no_places<H: Harness>() {
    let (mut user, key) = (connect(), unique_key());
    let class = Line::of(&key).class;
    let pairs = "SELECT pg_advisory_lock($1, n) FROM unnest('{1,2,4,-1,2147483647}'::int[]) n";
    user.execute(pairs, &[&class]).unwrap();
    let (mut oracle, order) = (Oracle::new(), Mutex::new(Vec::new()));
    let line = Line::of(&key);
    oracle.lock(&key);
    thread::scope(|threads| {
        for number in 0..4 {
            let (key, order) = (&key, &order);
            threads.spawn(move || waits::<H>(key, false, order, number));
            line.wait_for(&mut oracle, number + 1);
            line.wait_for_head(&mut oracle);
        }
        oracle.unlock(&key);
    });
    assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3]);
    oracle.wait_until_free(&key);
}
