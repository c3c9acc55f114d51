//! What a lock costs that nobody else wants: pglock beside the same statements sent by hand, and
//! beside the code that is usually written.
//!
//! ```text
//! scripts/with-postgres cargo bench --features postgres --bench uncontended
//! ```
//!
//! Criterion measures one after the other, and a machine's speed drifts meanwhile. So the ratios
//! that pglock promises are measured apart, all variants taking turns in short rounds.

#[path = "../tests/support/proxy.rs"]
mod proxy;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use pglock::{Error, Lock, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};
use proxy::Proxy;

const KEY: i64 = 7_152_069_305_793_108_309;
const TIMEOUT: Duration = Duration::from_secs(10);

type Variant = (&'static str, Box<dyn FnMut(&mut Client)>);

fn main() {
    let mut client = proxy::server().connect(NoTls).expect("a server");
    let mut variants = variants(&mut client);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("uncontended");
    for (name, run) in &mut variants {
        group.bench_function(*name, |bencher| bencher.iter(|| run(&mut client)));
    }
    group.finish();
    criterion.final_summary();

    // Without it (`cargo test --benches`) everything only has to run once.
    if std::env::args().any(|argument| argument == "--bench") {
        println!("\nratios, the variants taking turns:");
        report(&interleaved(&mut variants, &mut client, 400, 10));
        let network = Proxy::with_delay(Duration::from_micros(500));
        println!("\nthe same over a network that takes 0.5 ms for a round trip:");
        report(&interleaved(&mut variants, &mut network.client(), 20, 2));
    }
}

const WITH_LOCK: &str = "with_lock";
const WITH_TIMEOUT: &str = "with_lock, timeout";
const SAME: &str = "same text by hand";
const SAME_TIMEOUT: &str = "same text by hand, timeout";
const BARE: &str = "bare lock, unlock";
const USUAL: &str = "usual code";
const USUAL_TIMEOUT: &str = "usual code, timeout";
const TRANSACTION: &str = "with_transaction_lock";
const BARE_TRANSACTION: &str = "BEGIN, lock, COMMIT by hand";

/// How much longer the first takes than the second, and what it may be.
const BOUNDS: [(&str, &str, Bound); 8] = [
    (WITH_LOCK, SAME, Bound::AtMost(1.05)),
    (WITH_LOCK, BARE, Bound::AtMost(1.15)),
    (USUAL, WITH_LOCK, Bound::AtLeast(1.6)),
    (WITH_TIMEOUT, SAME_TIMEOUT, Bound::AtMost(1.05)),
    (WITH_TIMEOUT, WITH_LOCK, Bound::AtMost(1.1)),
    (USUAL_TIMEOUT, WITH_TIMEOUT, Bound::AtLeast(2.2)),
    (TRANSACTION, BARE_TRANSACTION, Bound::None),
    (USUAL, TRANSACTION, Bound::None),
];

enum Bound {
    AtMost(f64),
    AtLeast(f64),
    None,
}

fn variants(client: &mut Client) -> Vec<Variant> {
    let (lock, unlock) = texts(client, None);
    let (timed_lock, timed_unlock) = texts(client, Some(TIMEOUT));
    vec![
        (
            WITH_LOCK,
            Box::new(|client| with_lock(client, KEY, body).unwrap()),
        ),
        (
            WITH_TIMEOUT,
            Box::new(|client| Lock::new(client, KEY).timeout(TIMEOUT).run(body).unwrap()),
        ),
        (SAME, by_hand([lock, unlock])),
        (SAME_TIMEOUT, by_hand([timed_lock, timed_unlock])),
        (
            BARE,
            by_hand([
                format!("SELECT pg_advisory_lock('{KEY}')"),
                format!("SELECT pg_advisory_unlock('{KEY}')"),
            ]),
        ),
        (
            USUAL,
            Box::new(|client| {
                client
                    .query_one("SELECT pg_advisory_lock($1)", &[&KEY])
                    .unwrap();
                client
                    .query_one("SELECT pg_advisory_unlock($1)", &[&KEY])
                    .unwrap();
            }),
        ),
        (
            USUAL_TIMEOUT,
            Box::new(|client| {
                client.batch_execute("SET lock_timeout = '10s'").unwrap();
                client
                    .query_one("SELECT pg_advisory_lock($1)", &[&KEY])
                    .unwrap();
                client.batch_execute("RESET lock_timeout").unwrap();
                client
                    .query_one("SELECT pg_advisory_unlock($1)", &[&KEY])
                    .unwrap();
            }),
        ),
        (
            TRANSACTION,
            Box::new(|client| with_transaction_lock(client, KEY, |_| Ok::<_, Error>(())).unwrap()),
        ),
        (
            BARE_TRANSACTION,
            by_hand([
                "BEGIN".to_owned(),
                format!("SELECT pg_advisory_xact_lock('{KEY}')"),
                "COMMIT".to_owned(),
            ]),
        ),
    ]
}

fn body(client: &mut Client) -> Result<(), Error> {
    black_box(client);
    Ok(())
}

fn by_hand<const N: usize>(messages: [String; N]) -> Box<dyn FnMut(&mut Client)> {
    Box::new(move |client| {
        for message in &messages {
            black_box(client.simple_query(message).unwrap());
        }
    })
}

/// What pglock sends to lock and to unlock, as the server has it.
fn texts(client: &mut Client, timeout: Option<Duration>) -> (String, String) {
    let mut observer = proxy::server().connect(NoTls).expect("a server");
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let mut last_message = || -> String {
        let query = "SELECT query FROM pg_stat_activity WHERE pid = $1";
        let text: String = observer.query_one(query, &[&pid]).unwrap().get(0);
        assert!(text.len() < 1023, "track_activity_query_size has cut it");
        text
    };
    let lock = Lock::new(&mut *client, KEY);
    let mut lock = match timeout {
        Some(timeout) => lock.timeout(timeout),
        None => lock,
    };
    let acquire = lock.run(|_| Ok::<_, Error>(last_message())).unwrap();
    (acquire, last_message())
}

/// For each round, the time that each variant took in it.
fn interleaved(
    variants: &mut [Variant],
    client: &mut Client,
    rounds: usize,
    repeat: u32,
) -> Vec<Vec<(&'static str, f64)>> {
    (0..rounds)
        .map(|round| {
            // Whoever comes first in a round has no advantage of it.
            variants.rotate_left(round % 2);
            variants
                .iter_mut()
                .map(|(name, run)| {
                    let start = Instant::now();
                    for _ in 0..repeat {
                        run(client);
                    }
                    (*name, start.elapsed().as_secs_f64() / f64::from(repeat))
                })
                .collect()
        })
        .collect()
}

fn report(rounds: &[Vec<(&'static str, f64)>]) {
    let time = |round: &[(&str, f64)], wanted| {
        let (_, time) = round.iter().find(|(name, _)| *name == wanted).unwrap();
        *time
    };
    for (slower, faster, bound) in BOUNDS {
        let ratio = median(
            rounds
                .iter()
                .map(|round| time(round, slower) / time(round, faster)),
        );
        let micros = |name| 1e6 * median(rounds.iter().map(|round| time(round, name)));
        let verdict = match bound {
            Bound::AtMost(limit) => format!(
                "at most {limit:.2} {}",
                if ratio <= limit { "ok" } else { "MISSED" }
            ),
            Bound::AtLeast(limit) => format!(
                "at least {limit:.2} {}",
                if ratio >= limit { "ok" } else { "MISSED" }
            ),
            Bound::None => String::new(),
        };
        println!(
            "{slower:>26} {:7.1} µs / {faster:<27} {:7.1} µs = {ratio:.3}  {verdict}",
            micros(slower),
            micros(faster)
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
