//! What a hot key does to threads that want other keys: a few threads, each with a key of its own,
//! beside a crowd on one key, all on one small pool.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use pglock::{Error, Lock, LockBackend, QueuedPool};
use postgres::Client;

use crate::support::table::Table;
use crate::support::{Bound, measures, verdict};
use crate::{STATEMENT, at, pool, quantile};

const CONNECTIONS: usize = 8;
const HOT_THREADS: usize = 64;
const HOT_SECTION: &str = "SELECT pg_sleep(0.002)";
const COLD_THREADS: i64 = 4;

#[derive(Default)]
struct Times {
    /// From asking for the lock to its release.
    cold: Vec<Duration>,
    hot_rate: f64,
}

impl Times {
    /// In seconds.
    fn mean(&self) -> f64 {
        self.cold.iter().sum::<Duration>().as_secs_f64() / self.cold.len() as f64
    }

    /// In seconds, of sorted times.
    fn p99(&self) -> f64 {
        quantile(&self.cold, 0.99).expect("a section").as_secs_f64()
    }
}

/// Plain and queued take turns, each on a pool of its own.
pub fn report(rounds: u32, time: Duration) {
    let plain = pool(CONNECTIONS);
    let queued = QueuedPool::new(pool(CONNECTIONS));
    let (mut beside_plain, mut beside_queued) = (Times::default(), Times::default());
    for _ in 0..rounds {
        run(&plain, time, &mut beside_plain);
        run(&queued, time, &mut beside_queued);
    }
    let mut table = Table::new(
        "other-keys",
        &[
            "pool",
            "hot sections/s",
            "cold sections",
            "mean",
            "p50",
            "p99",
            "max",
        ],
    );
    for (name, times) in [("plain", &mut beside_plain), ("queued", &mut beside_queued)] {
        times.cold.sort_unstable();
        table.row([
            name.to_owned(),
            format!("{:.0}", times.hot_rate / f64::from(rounds)),
            times.cold.len().to_string(),
            format!("{:.1} µs", times.mean() * 1e6),
            at(&times.cold, 0.5),
            at(&times.cold, 0.99),
            at(&times.cold, 1.0),
        ]);
    }
    table.finish();
    if measures() {
        // Not of the median: a section that finds a connection free is as fast beside a plain pool, and
        // whether more than half of them do is chance.
        let compare = |what: &str, of: fn(&Times) -> f64, bound| {
            let ratio = of(&beside_plain) / of(&beside_queued);
            let what = format!("a cold section, {what}: plain / queued pool, time");
            verdict(&what, ratio, Bound::AtLeast(bound));
        };
        compare("mean", Times::mean, 100.0);
        compare("p99", Times::p99, 50.0);
    }
}

fn run<B>(backend: &B, time: Duration, times: &mut Times)
where
    B: Sync,
    for<'b> &'b B: LockBackend<Session = Client>,
{
    let (stop, hot) = (AtomicBool::new(false), AtomicU32::new(0));
    let section = |key: i64, statement: &str| {
        Lock::new(backend, key)
            .run(|client| client.batch_execute(statement).map_err(Error::from))
            .unwrap();
    };
    thread::scope(|threads| {
        for _ in 0..HOT_THREADS {
            threads.spawn(|| {
                while !stop.load(Relaxed) {
                    section(7_152_069_305_793_107_000, HOT_SECTION);
                    hot.fetch_add(1, Relaxed);
                }
            });
        }
        let cold = |number| {
            let mut times = Vec::new();
            while !stop.load(Relaxed) {
                let asked = Instant::now();
                section(7_152_069_305_793_107_001 + number, STATEMENT);
                times.push(asked.elapsed());
            }
            times
        };
        let spawn = |number| threads.spawn(move || cold(number));
        let cold: Vec<_> = (0..COLD_THREADS).map(spawn).collect();
        let start = Instant::now();
        thread::sleep(time); // the time that is measured
        stop.store(true, Relaxed);
        times.hot_rate += f64::from(hot.load(Relaxed)) / start.elapsed().as_secs_f64();
        for thread in cold {
            times.cold.extend(thread.join().unwrap());
        }
    });
}
