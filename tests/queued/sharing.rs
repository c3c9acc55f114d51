//! How pools share a key, and that sections never overlap.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, Lock, with_lock};
use r2d2::ManageConnection;

use crate::oracle::{Oracle, unique_key};
use crate::{queued, send};

/// Each section ends when the other pool waits at the server; then it is that pool's turn.
pub fn two_pools_take_turns<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    const THREADS: usize = 16;
    let pools = [queued(manager(), 2).0, queued(manager(), 2).0];
    let key = unique_key();
    let left = [AtomicUsize::new(2 * THREADS), AtomicUsize::new(2 * THREADS)];
    let turns = Mutex::new(Vec::new());
    thread::scope(|threads| {
        for thread in 0..2 * THREADS {
            let (mine, other) = (thread % 2, 1 - thread % 2);
            let (pools, left, turns, key) = (&pools, &left, &turns, &key);
            threads.spawn(move || {
                for _ in 0..2 {
                    with_lock(&mut &pools[mine], key, |_| {
                        left[mine].fetch_sub(1, SeqCst);
                        turns.lock().unwrap().push(mine);
                        if left[other].load(SeqCst) > 0 {
                            Oracle::new().wait_for_waiter(key);
                        }
                        Ok::<_, Error>(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let turns = turns.into_inner().unwrap();
    assert!(turns.windows(2).all(|two| two[0] != two[1]), "{turns:?}");
}

/// Even though sections of this pool never stop coming.
pub fn a_waiter_at_the_server_gets_its_turn<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let (key, served, running) = (unique_key(), AtomicBool::new(false), Barrier::new(4 + 1));
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut lock = Lock::new(&pool, &key);
                lock.run(|_| Ok::<_, Error>(())).unwrap();
                running.wait();
                while !served.load(SeqCst) {
                    lock.run(|_| Ok::<_, Error>(())).unwrap();
                }
            });
        }
        running.wait();
        let mut outsider = Oracle::new();
        for _ in 0..3 {
            outsider.lock(&key);
            outsider.unlock(&key);
        }
        served.store(true, SeqCst);
    });
}

/// Threads of two pools: some of their sections fail, and some threads give up.
pub fn sections_never_overlap_whatever_happens_in_them<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let pools = [queued(manager(), 3).0, queued(manager(), 2).0];
    let key = unique_key();
    let inside = AtomicBool::new(false);
    let (sections, overlaps) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let section = |conn: &mut M::Connection, number: usize| {
        sections.fetch_add(1, SeqCst);
        overlaps.fetch_add(usize::from(inside.swap(true, SeqCst)), SeqCst);
        if number.is_multiple_of(3) {
            send(conn, "SELECT 1").unwrap();
        }
        inside.store(false, SeqCst); // what follows may free the lock
        end_somehow(conn, number)
    };
    thread::scope(|threads| {
        for first in 0..8 {
            let (pool, key, section) = (&pools[first % 2], &key, &section);
            threads.spawn(move || {
                for number in first * 50..(first + 1) * 50 {
                    let mut lock = Lock::new(pool, key);
                    if number % 5 == 0 {
                        lock = lock.timeout(Duration::from_millis(1));
                    }
                    let run = || lock.run(|conn| section(conn, number));
                    let _ = catch_unwind(AssertUnwindSafe(run));
                }
            });
        }
    });
    assert_eq!(overlaps.into_inner(), 0);
    assert!(sections.into_inner() > 8 * 50 / 2);
    Oracle::new().assert_free(&key);
    assert_eq!(pools.map(|pool| pool.waiting()), [0, 0]);
}

fn end_somehow<S: Session>(conn: &mut S, number: usize) -> Result<(), Error> {
    match number % 11 {
        0 => Err(Error::body("no")),
        1 => resume_unwind(Box::new("no")),
        2 => send(conn, "BEGIN"),
        3 => send(conn, "BEGIN; SELECT 1 / 0"),
        4 => send(conn, "SELECT pg_terminate_backend(pg_backend_pid())"),
        5 => send(conn, "SELECT pg_advisory_unlock_all()"),
        6 => send(conn, "SELECT 1"),
        _ => Ok(()),
    }
}
