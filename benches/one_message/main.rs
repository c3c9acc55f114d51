//! One `UPDATE` of one row under a lock, in one message, beside the other ways to do this: on a local
//! socket and over a network, by one thread and by sixteen.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench one_message
//! ```
//!
//! All ways of a case take turns, in short rounds, and ratios are medians over the rounds.

#[path = "../support/mod.rs"]
mod support;
mod ways;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use postgres::Client;
use support::proxy::{self, Proxy};
use support::table::Table;
use support::{Bound, measures, median, verdict};
use ways::{BARE, Connection, ONE_MESSAGE, WITH_LOCK, Way, ways};

/// The network's milliseconds, threads, and the targets: at least how many times the sections of
/// `with_lock`, and at most how many times the time of the bare `UPDATE`.
type Case = (f64, usize, f64, Option<f64>);

const CASES: [Case; 6] = [
    (0.0, 1, 1.3, Some(1.4)),
    (0.0, 16, 1.6, None),
    (0.5, 1, 2.6, Some(1.08)),
    (0.5, 16, 12.0, Some(1.5)),
    (2.0, 1, 2.6, None),
    (2.0, 16, 22.0, Some(1.2)),
];

fn main() {
    ways::make_table(&mut proxy::server().connect(postgres::NoTls).expect("a way"));
    let heads = [
        "driver",
        "network",
        "threads",
        "way",
        "sections/s",
        "against with_lock",
        "against the bare UPDATE",
    ];
    let mut table = Table::new("one_message", &heads);
    for case in CASES {
        compare::<Client>(case, "postgres", &mut table);
        compare::<PgConnection>(case, "diesel", &mut table);
    }
    table.finish();
}

/// Measures a case with a driver, and adds its rows to the table.
fn compare<C: Connection>(case: Case, driver: &str, table: &mut Table) {
    let (network, threads, gain, cost) = case;
    let (rounds, time) = match measures() {
        true => (5, Duration::from_millis(250)),
        false => (1, Duration::from_millis(5)),
    };
    let proxy = (network > 0.0).then(|| Proxy::with_delay(Duration::from_secs_f64(network / 1e3)));
    let mut connections: Vec<C> = (0..threads).map(|_| C::connect(proxy.as_ref())).collect();
    let ways = ways::<C>();
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for turn in 0..ways.len() {
            let way = (turn + round) % ways.len();
            let rate = rate(&mut connections, ways[way], time);
            if round > 0 {
                rates[way].push(rate); // the first one warms up
            }
        }
    }
    let ratio = |way: usize, other: usize| {
        let pairs = rates[way].iter().zip(&rates[other]);
        median(pairs.map(|(rate, other)| rate / other))
    };
    for (way, (name, _)) in ways.iter().enumerate() {
        table.row([
            driver.to_owned(),
            format!("+ {network} ms"),
            threads.to_string(),
            (*name).to_owned(),
            format!("{:.0}", median(rates[way].iter().copied())),
            format!("{:.2}", ratio(way, WITH_LOCK)),
            format!("{:.2}", ratio(way, BARE)),
        ]);
    }
    if measures() {
        let what = format!("{driver}, + {network} ms, {threads} threads: one message");
        let gained = ratio(ONE_MESSAGE, WITH_LOCK);
        verdict(
            &format!("{what} / with_lock, sections a second"),
            gained,
            Bound::AtLeast(gain),
        );
        if let Some(cost) = cost {
            let costs = ratio(BARE, ONE_MESSAGE);
            verdict(
                &format!("{what} / bare UPDATE, time"),
                costs,
                Bound::AtMost(cost),
            );
        }
    }
}

/// Sections per second, of all threads together.
fn rate<C: Connection>(connections: &mut [C], (_, way): Way<C>, time: Duration) -> f64 {
    let (ready, stop) = (Barrier::new(connections.len() + 1), AtomicBool::new(false));
    let work = |connection: &mut C| {
        ready.wait();
        let mut count = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            way(connection);
            count += 1;
        }
        count
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(move || work(connection)))
            .collect();
        ready.wait();
        let start = Instant::now();
        thread::sleep(time); // the time that is measured
        stop.store(true, Ordering::Relaxed);
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        let count: u32 = counts.sum();
        f64::from(count) / start.elapsed().as_secs_f64()
    })
}
