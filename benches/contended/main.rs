//! What a contended lock costs: a plain pool beside a queued one, what contention does to threads that
//! want other keys, and how two queued pools, which know no more of each other than two processes do,
//! share a key.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench contended [-- TABLE...]
//! ```
//!
//! The tables are `contended`, `other-keys` and `sharing`.
//!
//! A machine's speed drifts, so plain and queued pools take turns, and ratios are medians over the
//! rounds. The cases do not take turns: threads and server processes need up to a second to settle on
//! the cores, and a short round after another case would only show which pool settled sooner. In
//! `contended`, each pool may have one connection per thread.

mod crowd;
mod other_keys;
#[path = "../support/mod.rs"]
mod support;

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

/// One measurement.
#[derive(Clone, Copy, PartialEq)]
struct Case {
    keys: usize,
    threads: usize,
}

/// Runs in each section.
const STATEMENT: &str = "SELECT 1";
const MANY_KEYS: Case = case(1_000, 16);
const CASES: [Case; 6] = [
    case(1, 1),
    case(1, 2),
    case(1, 4),
    case(1, 16),
    case(1, 64),
    MANY_KEYS,
];

const fn case(keys: usize, threads: usize) -> Case {
    Case { keys, threads }
}

fn main() {
    let (rounds, time): (u32, _) = match measures() {
        true => (8, Duration::from_secs(1)),
        false => (1, Duration::from_millis(10)),
    };
    let tables: Vec<_> = std::env::args().skip(1).collect();
    let tables: Vec<_> = tables
        .iter()
        .filter(|table| !table.starts_with('-'))
        .collect();
    let wanted = |name| tables.is_empty() || tables.iter().any(|table| *table == name);
    if wanted("contended") {
        contended(rounds, time);
    }
    if wanted("other-keys") {
        other_keys::report(rounds.div_ceil(2), time * 2);
    }
    if wanted("sharing") {
        sharing(rounds.div_ceil(3), time * 3);
    }
}

fn contended(rounds: u32, time: Duration) {
    let results = CASES.map(|case| Compared::new(case, rounds, time));
    report(&results);
    if measures() {
        verdict(
            "1 thread: queued / plain pool, time a lock",
            alone(),
            Bound::AtMost(1.05),
        );
        for result in &results {
            let Case { keys, threads } = result.case;
            if keys > 1 || threads >= 16 {
                verdict(
                    &format!(
                        "keys: {keys}, threads: {threads}: queued / plain pool, locks a second"
                    ),
                    result.gain(),
                    Bound::AtLeast(if keys > 1 { 0.95 } else { 1.0 }),
                );
            }
        }
    }
}

fn sharing(rounds: u32, time: Duration) {
    let heads = ["seconds", "locks of the one", "of the other", "shares"];
    let mut table = Table::new("sharing", &heads);
    for _ in 0..rounds {
        share(&mut table, case(1, 16), time);
    }
    table.finish();
}

/// What the queue costs when nobody waits in it.
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

struct Pools {
    plain: Pool<Manager>,
    queued: QueuedPool<Manager>,
}

impl Pools {
    /// Each has its own connections, to see how many it uses. If both use all, they share the same ones,
    /// since some server processes answer faster than others.
    fn new(case: Case) -> Self {
        let plain = pool(case.threads);
        let queued = match case {
            Case { keys: 1, threads } if threads > 1 => pool(threads),
            _ => plain.clone(),
        };
        let queued = QueuedPool::new(queued);
        Self { plain, queued }
    }
}

/// A case with a plain and a queued pool, round by round.
struct Compared {
    case: Case,
    plain: Vec<Round>,
    queued: Vec<Round>,
    pools: Pools,
}

impl Compared {
    /// The one that is first in a round has no advantage.
    fn new(case: Case, rounds: u32, time: Duration) -> Self {
        let pools = Pools::new(case);
        let (mut plain, mut queued) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            if round % 2 == 0 {
                plain.push(run(&pools.plain, case, time));
                queued.push(run(&pools.queued, case, time));
            } else {
                queued.push(run(&pools.queued, case, time));
                plain.push(run(&pools.plain, case, time));
            }
            if round == 0 {
                (plain, queued) = (Vec::new(), Vec::new()); // it connects
            }
        }
        Self {
            case,
            plain,
            queued,
            pools,
        }
    }

    fn gain(&self) -> f64 {
        let both = self.plain.iter().zip(&self.queued);
        median(both.map(|(plain, queued)| queued.rate / plain.rate))
    }
}

fn report(results: &[Compared]) {
    let mut heads = vec!["keys", "threads", "body", "pool", "locks/s", "ratio"];
    heads.extend(["wait p50", "p99", "max", "connections"]);
    let mut table = Table::new("contended", &heads);
    for result in results {
        let Pools { plain, queued } = &result.pools;
        let gain = format!("{:.2}", result.gain());
        table.row(line(result.case, "plain", &result.plain, "1.00", plain));
        table.row(line(
            result.case,
            "queued",
            &result.queued,
            &gain,
            queued.pool(),
        ));
    }
    table.finish();
}

fn line(
    case: Case,
    name: &str,
    rounds: &[Round],
    gain: &str,
    pool: &Pool<Manager>,
) -> [String; 10] {
    let waits = rounds.iter().flat_map(|round| &round.waits);
    let mut waits: Vec<_> = waits.copied().collect();
    waits.sort_unstable();
    [
        case.keys.to_string(),
        case.threads.to_string(),
        STATEMENT.to_owned(),
        name.to_owned(),
        format!("{:.0}", median(rounds.iter().map(|round| round.rate))),
        gain.to_owned(),
        at(&waits, 0.5),
        at(&waits, 0.99),
        at(&waits, 1.0),
        pool.state().connections.to_string(),
    ]
}

/// In microseconds.
fn at(sorted: &[Duration], share: f64) -> String {
    quantile(sorted, share).map_or_else(String::new, |time| {
        format!("{:.1} µs", time.as_secs_f64() * 1e6)
    })
}

fn quantile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share) as usize).copied()
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
        time.as_secs_f64().to_string(),
        one.to_string(),
        other.to_string(),
        format!("1 : {shares:.2}"),
    ]);
}

fn pool(size: usize) -> Pool<Manager> {
    support::pool(Manager::new(proxy::server(), NoTls), size)
}
