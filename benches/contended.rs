//! What a lock costs that many threads want: a plain pool beside a queued one, and how two queued
//! pools, which know as little of each other as two processes, share a key.
//!
//! ```text
//! scripts/with-postgres cargo bench --all-features --bench contended
//! ```
//!
//! A machine's speed drifts, so all cases take turns in short rounds, plain and queued directly one
//! after the other. Ratios are medians over the rounds. Each pool may have a connection a thread.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pglock::{Error, Lock, LockBackend, QueuedPool};
use postgres::{Client, NoTls};
use r2d2::Pool;
use r2d2_postgres::PostgresConnectionManager;
use support::table::Table;
use support::{Bound, measures, median, proxy, verdict};

type Manager = PostgresConnectionManager<NoTls>;

/// What is measured at a time.
#[derive(Clone, Copy, PartialEq)]
struct Case {
    keys: usize,
    threads: usize,
    statement: Option<&'static str>,
}

const EMPTY: Option<&str> = None;
const STATEMENT: Option<&str> = Some("SELECT 1");
const CASES: [Case; 11] = [
    case(1, 1, EMPTY),
    case(1, 2, EMPTY),
    case(1, 4, EMPTY),
    case(1, 16, EMPTY),
    case(1, 64, EMPTY),
    case(1, 1, STATEMENT),
    case(1, 2, STATEMENT),
    case(1, 4, STATEMENT),
    case(1, 16, STATEMENT),
    case(1, 64, STATEMENT),
    case(1_000, 16, EMPTY),
];

impl Case {
    /// Who has the same has the same pools.
    fn place(self) -> (usize, usize) {
        (self.keys, self.threads)
    }
}

const fn case(keys: usize, threads: usize, statement: Option<&'static str>) -> Case {
    Case {
        keys,
        threads,
        statement,
    }
}

fn main() {
    let (rounds, time): (u32, _) = match measures() {
        true => (15, Duration::from_millis(300)),
        false => (1, Duration::from_millis(10)),
    };
    let pools: BTreeMap<(usize, usize), Pools> = CASES
        .iter()
        .map(|case| (case.place(), Pools::new(case.threads)))
        .collect();
    let mut results: Vec<_> = CASES.iter().map(|case| (*case, Vec::new())).collect();
    for round in 0..=rounds {
        for (case, results) in &mut results {
            let both = pools[&case.place()].compare(*case, time, round % 2 == 0);
            if round > 0 {
                results.push(both); // the first connects
            }
        }
    }
    report(&results, &pools);
    if measures() {
        let rounds = |case: Case| &results.iter().find(|(other, _)| *other == case).unwrap().1;
        let gain = |case| median(rounds(case).iter().map(Both::gain));
        let sixteen = rounds(case(1, 16, EMPTY)).iter();
        let crowd = rounds(case(1, 64, EMPTY)).iter().zip(sixteen);
        let crowd = median(crowd.map(|(more, fewer)| more.queued.rate / fewer.queued.rate));
        let gains = [gain(case(1, 16, EMPTY)), gain(case(1_000, 16, EMPTY))];
        verdict(
            "16 threads: queued / plain pool, locks a second",
            gains[0],
            Bound::AtLeast(6.0),
        );
        verdict(
            "queued: 64 threads / 16, locks a second",
            crowd,
            Bound::AtLeast(0.9),
        );
        verdict(
            "1 thread: queued / plain pool, time",
            uncontended(),
            Bound::AtMost(1.05),
        );
        verdict(
            "1,000 keys: queued / plain pool, locks a second",
            gains[1],
            Bound::AtLeast(0.95),
        );
    }
    let heads = [
        "body",
        "seconds",
        "locks of the one",
        "of the other",
        "shares",
    ];
    let mut table = Table::new("sharing", &heads);
    for statement in [EMPTY, STATEMENT] {
        for _ in 0..rounds.div_ceil(5) {
            share(&mut table, case(1, 16, statement), time * 10);
        }
    }
    table.finish();
}

/// The time of a lock in turn with the other pool's, of which the medians are compared.
fn uncontended() -> f64 {
    let (plain, queued) = (pool(1), QueuedPool::new(pool(1)));
    let empty = |_: &mut Client| Ok::<_, Error>(());
    let key = 7_152_069_305_793_108_000;
    let (mut plains, mut queueds) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let start = Instant::now();
        Lock::new(&plain, key).run(empty).unwrap();
        let middle = Instant::now();
        Lock::new(&queued, key).run(empty).unwrap();
        plains.push((middle - start).as_secs_f64());
        queueds.push(middle.elapsed().as_secs_f64());
    }
    median(queueds) / median(plains)
}

struct Pools {
    plain: Pool<Manager>,
    queued: QueuedPool<Manager>,
}

struct Both {
    plain: Round,
    queued: Round,
}

impl Pools {
    fn new(threads: usize) -> Self {
        Self {
            plain: pool(threads),
            queued: QueuedPool::new(pool(threads)),
        }
    }

    /// Whoever comes first in a round has no advantage of it.
    fn compare(&self, case: Case, time: Duration, plain_first: bool) -> Both {
        if plain_first {
            let plain = run(&self.plain, case, time);
            let queued = run(&self.queued, case, time);
            Both { plain, queued }
        } else {
            let queued = run(&self.queued, case, time);
            let plain = run(&self.plain, case, time);
            Both { plain, queued }
        }
    }
}

impl Both {
    fn gain(&self) -> f64 {
        self.queued.rate / self.plain.rate
    }
}

fn report(results: &[(Case, Vec<Both>)], pools: &BTreeMap<(usize, usize), Pools>) {
    let mut heads = vec!["keys", "threads", "body", "pool", "locks/s", "ratio"];
    heads.extend([
        "wait p50",
        "p99",
        "max",
        "hand-over p50",
        "p99",
        "connections",
    ]);
    let mut table = Table::new("contended", &heads);
    for (case, rounds) in results {
        let Pools { plain, queued } = &pools[&case.place()];
        let gain = format!("{:.2}", median(rounds.iter().map(Both::gain)));
        let plains: Vec<_> = rounds.iter().map(|both| &both.plain).collect();
        table.row(line(*case, "plain", &plains, "1.00", plain));
        let queueds: Vec<_> = rounds.iter().map(|both| &both.queued).collect();
        table.row(line(*case, "queued", &queueds, &gain, queued.pool()));
    }
    table.finish();
}

fn line(
    case: Case,
    name: &str,
    rounds: &[&Round],
    gain: &str,
    pool: &Pool<Manager>,
) -> [String; 12] {
    let sorted = |of: fn(&Round) -> &Vec<Duration>| {
        let mut times: Vec<_> = rounds.iter().copied().flat_map(of).copied().collect();
        times.sort_unstable();
        times
    };
    let (waits, gaps) = (sorted(|round| &round.waits), sorted(|round| &round.gaps));
    [
        case.keys.to_string(),
        case.threads.to_string(),
        case.statement.unwrap_or("empty").to_owned(),
        name.to_owned(),
        format!("{:.0}", median(rounds.iter().map(|round| round.rate))),
        gain.to_owned(),
        at(&waits, 0.5),
        at(&waits, 0.99),
        at(&waits, 1.0),
        at(&gaps, 0.5),
        at(&gaps, 0.99),
        pool.state().connections.to_string(),
    ]
}

/// In microseconds.
fn at(sorted: &[Duration], share: f64) -> String {
    let last = sorted.len().saturating_sub(1);
    let time = sorted.get((last as f64 * share) as usize);
    time.map_or_else(String::new, |time| {
        format!("{:.1} µs", time.as_secs_f64() * 1e6)
    })
}

fn share(table: &mut Table, case: Case, time: Duration) {
    let pools = [(); 2].map(|()| QueuedPool::new(pool(case.threads)));
    for pool in &pools {
        run(pool, case, time / 100); // connects
    }
    let count = |pool| run(pool, case, time).count;
    let [one, other] = thread::scope(|threads| {
        let both = [&pools[0], &pools[1]].map(|pool| threads.spawn(move || count(pool)));
        both.map(|counting| counting.join().unwrap())
    });
    let shares = f64::from(one.max(other)) / f64::from(one.min(other));
    table.row([
        case.statement.unwrap_or("empty").to_owned(),
        time.as_secs_f64().to_string(),
        one.to_string(),
        other.to_string(),
        format!("1 : {shares:.2}"),
    ]);
}

#[derive(Default)]
struct Round {
    count: u32,
    /// Locks a second.
    rate: f64,
    /// From asking for the lock to the body.
    waits: Vec<Duration>,
    /// From the end of a body to the beginning of the next, where there is one key.
    gaps: Vec<Duration>,
}

fn run<B>(backend: &B, case: Case, time: Duration) -> Round
where
    B: Sync,
    for<'b> &'b B: LockBackend<Session = Client>,
{
    let (ready, stop) = (Barrier::new(case.threads + 1), AtomicBool::new(false));
    let last_end = Mutex::new(None::<Instant>);
    let work = |thread: usize| {
        let (mut count, mut waits, mut gaps) = (0_u32, Vec::new(), Vec::new());
        let mut number = thread * 31;
        ready.wait();
        loop {
            number = (number + 7) % case.keys;
            let key = 7_152_069_305_793_108_000 + number as i64;
            let asked = Instant::now();
            let (mut wait, mut gap) = (None, None);
            let body = |client: &mut Client| {
                let begun = Instant::now();
                wait = Some(begun - asked);
                let end = last_end.lock().unwrap().take();
                gap = end.filter(|_| case.keys == 1).map(|end| begun - end);
                if let Some(statement) = case.statement {
                    client.batch_execute(statement)?;
                }
                *last_end.lock().unwrap() = Some(Instant::now());
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

fn pool(size: usize) -> Pool<Manager> {
    support::pool(Manager::new(proxy::server(), NoTls), size)
}
