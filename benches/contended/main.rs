//! What a lock costs that many threads want: a plain pool beside a queued one, and how two queued
//! pools, which know as little of each other as two processes, share a key.
//!
//! ```text
//! scripts/with-postgres cargo bench --all-features --bench contended
//! ```
//!
//! A machine's speed drifts, so the cases take turns in short rounds, plain and queued directly one
//! after the other. Ratios are medians over the rounds. Each pool may have a connection a thread.
//!
//! Many keys have longer rounds, apart from the rest: it takes a second until the threads and the
//! processes of their connections have settled on the cores, and which of the pools came sooner to
//! rest would be all that short ones show.

mod crowd;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crowd::{Round, run};
use pglock::{Error, QueuedPool, with_lock};
use postgres::{Client, NoTls};
use r2d2::Pool;
use r2d2_postgres::PostgresConnectionManager;
use support::table::Table;
use support::{Bound, KEY, measures, median, proxy, ratio, take_turns, variant, verdict};

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
const CASES: [Case; 10] = [
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
];
const MANY_KEYS: Case = case(1_000, 16, EMPTY);

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
        true => (30, Duration::from_millis(150)),
        false => (1, Duration::from_millis(10)),
    };
    let pools: BTreeMap<(usize, usize), Pools> = CASES
        .iter()
        .chain([&MANY_KEYS])
        .map(|case| (case.place(), Pools::new(*case)))
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
    let pairs = (0..=rounds.div_ceil(3))
        .map(|round| pools[&MANY_KEYS.place()].compare(MANY_KEYS, time * 10, round % 2 == 0))
        .skip(1);
    results.push((MANY_KEYS, pairs.collect()));
    report(&results, &pools);
    if measures() {
        let gain = |case| {
            let (_, rounds) = results.iter().find(|(other, _)| *other == case).unwrap();
            median(rounds.iter().map(Both::gain))
        };
        verdict(
            "1 thread: queued / plain pool, time a lock",
            alone(),
            Bound::AtMost(1.05),
        );
        for (what, ratio, bound) in [
            (
                "16 threads: queued / plain pool",
                gain(case(1, 16, EMPTY)),
                6.0,
            ),
            ("queued pool: 64 threads / 16", crowded(rounds, time), 0.9),
            ("1,000 keys: queued / plain pool", gain(MANY_KEYS), 1.0),
        ] {
            verdict(
                &format!("{what}, locks a second"),
                ratio,
                Bound::AtLeast(bound),
            );
        }
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
        for _ in 0..rounds.div_ceil(10) {
            share(&mut table, case(1, 16, statement), time * 20);
        }
    }
    table.finish();
}

/// What the queue costs where nobody waits in it.
fn alone() -> f64 {
    let plain = pool(1);
    let mut pools = Pools {
        queued: QueuedPool::new(plain.clone()),
        plain,
    };
    let nothing = |_: &mut Client| Ok::<_, Error>(());
    let mut variants = [
        variant("queued", move |pools: &mut Pools| {
            with_lock(&mut pools.queued, KEY, nothing).unwrap();
        }),
        variant("plain", move |pools: &mut Pools| {
            with_lock(&mut pools.plain, KEY, nothing).unwrap();
        }),
    ];
    let times = take_turns(&mut variants, &mut pools, 400, 10);
    ratio(&times[0], &times[1])
}

/// 64 threads directly after 16, on one pool.
fn crowded(rounds: u32, time: Duration) -> f64 {
    let pool = QueuedPool::new(pool(1));
    median((0..rounds).map(|_| {
        let [fewer, more] = [16, 64].map(|threads| run(&pool, case(1, threads, EMPTY), time).rate);
        more / fewer
    }))
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
    /// Each its own, to see how many connections it takes; but where both take all of them, the same
    /// ones, since some have a server process that answers faster.
    fn new(case: Case) -> Self {
        let plain = pool(case.threads);
        let queued = match case {
            Case {
                keys: 1, threads, ..
            } if threads > 1 => pool(threads),
            _ => plain.clone(),
        };
        let queued = QueuedPool::new(queued);
        Self { plain, queued }
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

fn pool(size: usize) -> Pool<Manager> {
    support::pool(Manager::new(proxy::server(), NoTls), size)
}
