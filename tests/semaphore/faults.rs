//! Cancels, sessions that end, and connections that die at any moment.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use pglock::driver::Session;
use pglock::{Error, Permit, Semaphore, Slots};

use crate::harness::{Harness, sql};
use crate::oracle::{Oracle, unique_name, wait_until};
use crate::sections::held;
use crate::waiting::{connect, fill};

/// Cancels a session after each delay that it receives, and just before that releases the slots that it
/// holds.
fn disturb(pid: i32, slots: &Slots, tasks: &Receiver<(Duration, bool)>, done: &Sender<()>) {
    let (mut holder, mut oracle) = (Oracle::new(), Oracle::new());
    for (moment, full) in tasks {
        if full {
            fill(&mut holder, slots);
        }
        if done.send(()).is_err() {
            break;
        }
        let start = Instant::now();
        while start.elapsed() < moment {
            std::hint::spin_loop();
        }
        if full {
            holder.unlock(&slots.keys()[0]);
        }
        oracle.cancel(pid);
        if full {
            let rest = "SELECT pg_advisory_unlock_all()";
            holder.client.batch_execute(rest).unwrap();
        }
        if done.send(()).is_err() {
            break;
        }
    }
}

/// Enough slots for the statement to take so long that a cancel can hit it.
const MANY: u32 = 200;

/// Chance decides where a cancel hits: each comes at another point of the time that an acquire took
/// before, until one has hit.
fn cancel_again_and_again<S: Session>(session: &mut S, slots: &Slots, pid: i32, full: bool) -> u32 {
    let mut oracle = Oracle::new();
    let held_before = held(&mut oracle, slots);
    let (task, tasks) = channel();
    let (done, steps) = channel();
    let (mut hits, mut took) = (0, Duration::from_millis(1));
    thread::scope(|threads| {
        threads.spawn(move || disturb(pid, slots, &tasks, &done));
        let task = task; // ends the thread, also when this one panics
        for attempt in 0..120_u32 {
            if attempt >= 60 && hits > 0 {
                break;
            }
            let moment = took * (attempt * 37 % 120) / 100;
            task.send((moment, full)).unwrap();
            steps.recv().unwrap();
            let start = Instant::now();
            let mut semaphore = Semaphore::new(&mut *session, slots.key(), slots.count());
            let told = semaphore.acquire().map(|mut permit| {
                took = start.elapsed();
                steps.recv().unwrap();
                let _ = sql(&mut *permit, "SELECT 1"); // takes a late cancel
                let slot = Permit::slot(&permit);
                assert!(!held_before.contains(&slot));
                assert_eq!(oracle.holder(&slots.keys()[slot as usize]), pid);
                assert_eq!(held(&mut oracle, slots).len(), held_before.len() + 1);
                Permit::release(permit).unwrap();
            });
            if let Err(error) = told {
                assert!(matches!(error, Error::Canceled { .. }), "{error:?}");
                hits += 1;
                steps.recv().unwrap();
                let _ = sql(session, "SELECT 1");
            }
            assert_eq!(held(&mut oracle, slots), held_before);
        }
    });
    oracle.assert_free(slots.queue());
    hits
}

/// With a free slot, with one that becomes free at that moment, and inside another permit.
pub fn a_cancel_takes_all_or_nothing<H: Harness>() {
    let mut oracle = Oracle::new();
    H::with(|backend| {
        // Keeps a pool's session checked out.
        let mut other = Semaphore::new(backend, unique_name("other"), 1);
        let key = other.slots().keys()[0].clone();
        let mut permit = other.acquire().unwrap();
        let pid = oracle.holder(&key);
        let session = &mut *permit;
        // A free slot is taken too fast for most cancels.
        let mut hits = 0;
        for full in [false, true] {
            let slots = Slots::new(unique_name("semaphore"), MANY);
            hits += cancel_again_and_again(session, &slots, pid, full);
        }
        assert!(hits > 0, "no cancel has hit");
        let slots = Slots::new(unique_name("semaphore"), MANY);
        let mut outer = Semaphore::new(&mut *session, slots.key(), MANY);
        let mut outer = outer.acquire().unwrap();
        cancel_again_and_again(&mut *outer, &slots, pid, false);
        assert!(Permit::is_held(&mut outer).unwrap());
        Permit::release(outer).unwrap();
        assert_eq!(held(&mut oracle, &slots), []);
    });
}

/// Whether it holds a slot, waits at the head of the queue, or behind the head.
pub fn a_session_that_ends_is_in_nobodys_way<H: Harness>() {
    let mut oracle = Oracle::new();
    let slots = Slots::new(unique_name("semaphore"), 1);
    let run = |slots: &Slots| {
        let mut connection = connect();
        let mut semaphore = Semaphore::new(&mut connection, slots.key(), 1);
        let told = semaphore.acquire().map(drop);
        assert!(
            matches!(told, Err(Error::ConnectionLost { .. })),
            "{told:?}"
        );
    };
    H::with(|backend| {
        thread::scope(|threads| {
            let mut holder = connect();
            let mut holder = Semaphore::new(&mut holder, slots.key(), 1);
            let held = holder.acquire().unwrap();
            threads.spawn(|| run(&slots));
            let head = wait_until("a head of the queue", || {
                let rows = oracle.rows(slots.queue());
                rows.iter().find(|row| row.granted).map(|row| row.pid)
            });
            threads.spawn(|| run(&slots));
            let behind = wait_until("one behind it", || {
                let rows = oracle.rows(slots.queue());
                rows.iter().map(|row| row.pid).find(|pid| *pid != head)
            });
            let (slots, oracle) = (&slots, &mut oracle);
            let ends = threads.spawn(move || {
                oracle.wait_for_waiters(slots.queue(), 2);
                // A slice may have ended since, and the other may be the head: end both.
                oracle.terminate(behind);
                oracle.terminate(head);
                let holder = oracle.holder(&slots.keys()[0]);
                oracle.terminate(holder);
            });
            let mut semaphore = Semaphore::new(backend, slots.key(), 1);
            semaphore.run(|session| sql(session, "SELECT 1")).unwrap();
            ends.join().unwrap();
            let told = Permit::release(held);
            assert!(matches!(told, Err(Error::LockLost { .. })), "{told:?}");
        });
    });
}
