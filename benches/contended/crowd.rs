//! Threads that want a lock, again and again, and what they saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pglock::{Error, Lock, LockBackend};
use postgres::Client;

use crate::Case;

#[derive(Default)]
pub struct Round {
    pub count: u32,
    /// Locks a second.
    pub rate: f64,
    /// From asking for the lock to the body.
    pub waits: Vec<Duration>,
    /// From the end of a body to the beginning of the next, where there is one key.
    pub gaps: Vec<Duration>,
}

pub fn run<B>(backend: &B, case: Case, time: Duration) -> Round
where
    B: Sync,
    for<'b> &'b B: LockBackend<Session = Client>,
{
    let (ready, stop) = (Barrier::new(case.threads + 1), AtomicBool::new(false));
    let last_end = Mutex::new(None::<Instant>);
    let work = |thread: usize| {
        let (mut count, mut waits, mut gaps) = (0_u32, Vec::new(), Vec::new());
        let (mut number, step) = (thread * 31, thread * 2 + 7); // or they would follow each other
        ready.wait();
        loop {
            number = (number + step) % case.keys;
            let key = 7_152_069_305_793_108_000 + number as i64;
            let asked = Instant::now();
            let (mut wait, mut gap) = (None, None);
            let body = |client: &mut Client| {
                let begun = Instant::now();
                wait = Some(begun - asked);
                if case.keys == 1 {
                    gap = last_end.lock().unwrap().map(|end| begun - end);
                }
                if let Some(statement) = case.statement {
                    client.batch_execute(statement)?;
                }
                if case.keys == 1 {
                    *last_end.lock().unwrap() = Some(Instant::now());
                }
                Ok::<_, Error>(())
            };
            Lock::new(backend, key).run(body).unwrap();
            if stop.load(Ordering::Relaxed) {
                return (count, waits, gaps);
            }
            count += 1;
            if count % SAMPLE == 0 || case.statement.is_some() {
                waits.extend(wait);
                gaps.extend(gap);
            }
        }
    };
    thread::scope(|scope| {
        let spawn = |thread| scope.spawn(move || work(thread));
        let threads: Vec<_> = (0..case.threads).map(spawn).collect();
        ready.wait();
        let start = Instant::now();
        thread::sleep(time); // for as long as is measured
        stop.store(true, Ordering::Relaxed);
        let time = start.elapsed();
        let mut round = Round::default();
        for thread in threads {
            let (count, waits, gaps) = thread.join().unwrap();
            round.count += count;
            round.waits.extend(waits);
            round.gaps.extend(gaps);
        }
        round.rate = f64::from(round.count) / time.as_secs_f64();
        round
    })
}

/// Of empty sections, one in so many is kept: the samples should not fill the caches.
const SAMPLE: u32 = 8;
