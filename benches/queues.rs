//! Queues for a key, short and long, with slices and with a kept place, and a set of keys among single
//! ones: how many sections, how long the waits, and who is served how often. And what waiters do to
//! others: to an index that is built concurrently, and to vacuum, by their snapshots.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench queues
//! ```

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use pglock::{Error, Lock, LockBackend, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};
use support::table::Table;
use support::{Bound, measures, median, proxy, verdict};

const KEYS: [i64; 4] = [
    7_152_069_305_793_109_001,
    7_152_069_305_793_109_002,
    7_152_069_305_793_109_003,
    7_152_069_305_793_109_004,
];

fn main() {
    short_queues();
    long_queues();
    key_sets();
    beside_waiters();
}

/// The time that is measured, or just a moment.
fn time(measured: u64) -> Duration {
    match measures() {
        true => Duration::from_secs(measured),
        false => Duration::from_millis(100),
    }
}

/// What a thread wants, and for how long.
#[derive(Clone, Copy)]
struct Want {
    keys: &'static [i64],
    section: Duration,
    keep_place: bool,
}

/// How long each section of a thread waited.
type Waits = Vec<Duration>;

/// Lets each thread lock again and again. In the section only the client is busy: it holds the lock, and
/// the server has nothing to do.
fn crowd(wants: &[Want], time: Duration) -> Vec<Waits> {
    let stop = AtomicBool::new(false);
    let work = |want: Want| {
        let mut client: Client = proxy::server().connect(NoTls).expect("a way");
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let section = |_: &mut Client| {
                waits.push(asked.elapsed());
                thread::sleep(want.section); // the section itself
                Ok::<_, Error>(())
            };
            let mut lock = Lock::all(&mut client, want.keys.iter().copied());
            lock = lock.keep_place(want.keep_place);
            lock.run(section).expect("a lock");
        }
        waits
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = wants
            .iter()
            .map(|want| scope.spawn(move || work(*want)))
            .collect();
        thread::sleep(time); // the time that is measured
        stop.store(true, Ordering::Relaxed);
        let threads = threads.into_iter();
        threads.map(|thread| thread.join().unwrap()).collect()
    })
}

/// Waits that end within a slice cost the same as without slices.
fn short_queues() {
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..10 {
        for turn in 0..2 {
            let keep_place = (round + turn) % 2 == 0;
            let want = Want {
                keys: &KEYS[..1],
                section: Duration::from_millis(1),
                keep_place,
            };
            let time = time(2);
            let waits = crowd(&[want; 16], time);
            let count: usize = waits.iter().map(Vec::len).sum();
            rates[usize::from(keep_place)].push(count as f64 / time.as_secs_f64());
        }
    }
    let ratios = rates[0]
        .iter()
        .zip(&rates[1])
        .map(|(sliced, kept)| sliced / kept);
    let ratio = median(ratios);
    let mut table = Table::new("short-queues", &["16 threads, 1 ms", "sections/s", "ratio"]);
    let rate = |way: usize| format!("{:.0}", median(rates[way].iter().copied()));
    table.row(["in their place".into(), rate(1), "1.00".into()]);
    table.row(["in slices".into(), rate(0), format!("{ratio:.2}")]);
    table.finish();
    if measures() {
        let what = "short queue: in slices / in their place, sections a second";
        verdict(what, ratio, Bound::AtLeast(0.97));
    }
}

fn long_queues() {
    let heads = [
        "20 threads, 30 ms",
        "sections/s",
        "wait p50",
        "p99",
        "max",
        "least served",
        "most",
    ];
    let mut table = Table::new("long-queues", &heads);
    for (name, keep_place) in [("in their place", true), ("in slices", false)] {
        let want = Want {
            keys: &KEYS[..1],
            section: Duration::from_millis(30),
            keep_place,
        };
        let time = time(60);
        let waits = crowd(&[want; 20], time);
        let counts = || waits.iter().map(Vec::len);
        let mut all = waits.concat();
        all.sort_unstable();
        table.row([
            name.to_owned(),
            format!("{:.1}", all.len() as f64 / time.as_secs_f64()),
            at(&all, 0.5),
            at(&all, 0.99),
            at(&all, 1.0),
            counts().min().unwrap_or_default().to_string(),
            counts().max().unwrap_or_default().to_string(),
        ]);
        if measures() {
            let least = counts().min().unwrap_or_default() as f64;
            verdict(
                &format!("long queue {name}: sections of the least served"),
                least,
                Bound::AtLeast(1.0),
            );
        }
    }
    table.finish();
}

/// Twelve threads want one of four keys each, and one wants all four.
fn key_sets() {
    let want = |keys| Want {
        keys,
        section: Duration::from_millis(30),
        keep_place: false,
    };
    let mut wants: Vec<_> = (0..12)
        .map(|thread| want(&KEYS[thread % 4..][..1]))
        .collect();
    wants.push(want(&KEYS));
    let time = time(60);
    let waits = crowd(&wants, time);
    let (set, single) = waits.split_last().expect("thirteen");
    let mean = single.iter().map(Vec::len).sum::<usize>() as f64 / single.len() as f64;
    let mut table = Table::new(
        "key-sets",
        &["wants", "sections a minute", "wait p50", "max"],
    );
    let minute = 60.0 / time.as_secs_f64();
    for (name, count, waits) in [
        (
            "one of four keys, of 12 threads each",
            mean,
            single.concat(),
        ),
        ("all four", set.len() as f64, set.clone()),
    ] {
        let mut waits = waits;
        waits.sort_unstable();
        table.row([
            name.to_owned(),
            format!("{:.0}", count * minute),
            at(&waits, 0.5),
            at(&waits, 1.0),
        ]);
    }
    table.finish();
    if measures() {
        let what = "key sets: sections of the set / of a single key";
        verdict(what, set.len() as f64 / mean, Bound::AtLeast(0.1));
    }
}

/// Four sessions wait for the lock of a fifth, which builds an index concurrently, and then lets another
/// session do that; then their snapshots are watched for ten seconds.
fn beside_waiters() {
    let connect = || -> Client { proxy::server().connect(NoTls).expect("a way") };
    let diesel = || -> PgConnection {
        let url = std::env::var("DATABASE_URL").expect("it was read before");
        diesel::Connection::establish(&url).expect("a way")
    };
    fn wait<B: LockBackend>(mut backend: B, in_transaction: bool) {
        let nothing = |_: &mut _| Ok::<_, Error>(());
        match in_transaction {
            true => with_transaction_lock(&mut backend, KEYS[0], |_| Ok::<_, Error>(())),
            false => with_lock(&mut backend, KEYS[0], nothing),
        }
        .expect("a lock");
    }
    let build = |client: &mut Client| {
        let start = Instant::now();
        let text = "CREATE INDEX CONCURRENTLY pglock_bench_index ON pglock_bench_rows (n)";
        client.batch_execute(text).expect("an index");
        let time = start.elapsed();
        client
            .batch_execute("DROP INDEX pglock_bench_index")
            .expect("the index");
        time
    };
    let (mut holder, mut other, mut looker) = (connect(), connect(), connect());
    let make = "DROP TABLE IF EXISTS pglock_bench_rows; \
        CREATE TABLE pglock_bench_rows AS SELECT generate_series(1, 1000) AS n";
    looker.batch_execute(make).expect("a table");
    let alone = build(&mut holder);
    let (mut inside, mut beside, mut oldest) = (Duration::ZERO, Duration::ZERO, 0.0_f64);
    thread::scope(|scope| {
        let section = |client: &mut Client| {
            scope.spawn(|| wait(connect(), false));
            scope.spawn(|| wait(connect(), true));
            scope.spawn(|| wait(diesel(), false));
            scope.spawn(|| wait(diesel(), true));
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            while looker
                .query_one(waiting, &[])
                .expect("a count")
                .get::<_, i64>(0)
                < 4
            {}
            inside = build(client);
            beside = build(&mut other);
            let start = Instant::now();
            while start.elapsed() < time(10) {
                let snapshots = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8 \
                    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() \
                    AND wait_event = 'advisory'";
                let age = looker.query_one(snapshots, &[]).expect("an age").get(0);
                oldest = oldest.max(age);
            }
            Ok::<_, Error>(())
        };
        with_lock(&mut holder, KEYS[0], section).expect("a lock");
    });
    looker
        .batch_execute("DROP TABLE pglock_bench_rows")
        .expect("the table");
    let mut table = Table::new("beside-waiters", &["beside four waiters", "time"]);
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    for (what, time) in [
        ("CREATE INDEX CONCURRENTLY without them", alone),
        ("in the session that holds the lock", inside),
        ("in another session", beside),
        (
            "the oldest snapshot of a waiter in ten seconds",
            Duration::from_secs_f64(oldest),
        ),
    ] {
        table.row([what.to_owned(), seconds(time)]);
    }
    table.finish();
    if measures() {
        for (what, time) in [("in the session", inside), ("beside it", beside)] {
            let more = time.saturating_sub(alone).as_secs_f64();
            verdict(
                &format!("an index {what}: seconds more than without waiters"),
                more,
                Bound::AtMost(1.6),
            );
        }
        verdict(
            "the oldest snapshot of a waiter, in seconds",
            oldest,
            Bound::AtMost(0.85),
        );
    }
}

fn at(sorted: &[Duration], share: f64) -> String {
    let last = sorted.len().saturating_sub(1);
    let wait = sorted.get((last as f64 * share) as usize);
    format!("{:.2} s", wait.copied().unwrap_or_default().as_secs_f64())
}
