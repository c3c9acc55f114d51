//! Threads that acquire a lock again and again, and what they measured.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pglock::{Error, Lock, LockBackend};
use postgres::Client;

use crate::{Case, STATEMENT};

#[derive(Default)]
pub struct Round {
    pub count: u32,
    /// Locks per second.
    pub rate: f64,
    /// From asking for the lock to the start of the body.
    pub waits: Vec<Duration>,
}

pub fn run<B>(backend: &B, case: Case, time: Duration) -> Round
where
    B: Sync,
    for<'b> &'b B: LockBackend<Session = Client>,
{
    let (ready, stop) = (Barrier::new(case.threads + 1), AtomicBool::new(false));
    let work = |thread: usize| {
        let (mut count, mut waits) = (0_u32, Vec::new());
        let (mut number, step) = (thread * 31, thread * 2 + 7); // so that threads do not follow each other
        ready.wait();
        loop {
            number = (number + step) % case.keys;
            let key = 7_152_069_305_793_108_000 + number as i64;
            let asked = Instant::now();
            let mut wait = None;
            let body = |client: &mut Client| {
                wait = Some(asked.elapsed());
                client.batch_execute(STATEMENT).map_err(Error::from)
            };
            Lock::new(backend, key).run(body).unwrap();
            if stop.load(Ordering::Relaxed) {
                return (count, waits);
            }
            count += 1;
            waits.extend(wait);
        }
    };
    thread::scope(|scope| {
        let spawn = |thread| scope.spawn(move || work(thread));
        let threads: Vec<_> = (0..case.threads).map(spawn).collect();
        ready.wait();
        let start = Instant::now();
        thread::sleep(time); // the time that is measured
        stop.store(true, Ordering::Relaxed);
        let time = start.elapsed();
        let mut round = Round::default();
        for thread in threads {
            let (count, waits) = thread.join().unwrap();
            round.count += count;
            round.waits.extend(waits);
        }
        round.rate = f64::from(round.count) / time.as_secs_f64();
        round
    })
}
