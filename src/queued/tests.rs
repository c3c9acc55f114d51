use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use super::*;
use crate::key::Key;
use crate::targets::{Mode, Target};

fn lock_on(key: i64) -> LockInfo {
    LockInfo::new(Target::Keys([Key::from(key)].into()), Mode::Exclusive)
}

/// Fifty of which are in use at one time.
#[test]
fn a_million_keys_leave_nothing_behind() {
    const IN_USE: usize = 50;
    let queues = Queues::<LockInfo, ()>::new();
    let mut turns = VecDeque::new();
    for key in 0..1_000_000_i64 {
        let turn = queues.enter(lock_on(key), true, Patience::Forever, || false);
        turns.push_back(turn.unwrap());
        if turns.len() > IN_USE {
            turns.pop_front();
        }
    }
    assert_eq!(queues.size().0, IN_USE);
    turns.clear();
    let (keys, room) = queues.size();
    assert_eq!(keys, 0);
    assert!(room < 10 * IN_USE, "{room}");
}

/// With a deadline too, and not just because the thread was woken up.
#[test]
fn a_wait_is_stopped_from_another_thread() {
    let queues = Queues::<LockInfo, ()>::new();
    let turn = queues.enter(lock_on(1), true, Patience::Forever, || false);
    let in_an_hour = Instant::now() + Duration::from_secs(3600);
    for patience in [Patience::Forever, Patience::Until(in_an_hour)] {
        let stopped = AtomicBool::new(false);
        thread::scope(|threads| {
            let (queues, stopped) = (&queues, &stopped);
            let wait = move || queues.enter(lock_on(1), true, patience, || stopped.load(SeqCst));
            let waiter = threads.spawn(move || wait().is_none());
            while queues.waiting() == 0 {
                thread::yield_now();
            }
            for _ in 0..1_000 {
                waiter.thread().unpark();
                assert_eq!(queues.waiting(), 1);
            }
            stopped.store(true, SeqCst);
            waiter.thread().unpark();
            assert!(waiter.join().unwrap());
        });
        assert_eq!(queues.waiting(), 0);
    }
    drop(turn);
}
