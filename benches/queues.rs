//! Queues for a key, short and long, a writer among readers, and a set of keys among single ones, against
//! the same by hand in the server's queue: how many sections, and how long the waits. And what waiters do to
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
    writers();
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

/// How a thread gets its locks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Pglock,
    /// The barest statements, which wait in the server's queue.
    ByHand,
}

const HOWS: [(&str, How); 2] = [("pglock", How::Pglock), ("by hand", How::ByHand)];

/// What a thread wants, for how long, and how long it then does without.
#[derive(Clone, Copy)]
struct Want {
    keys: &'static [i64],
    shared: bool,
    section: Duration,
    pause: Duration,
}

impl Want {
    fn new(keys: &'static [i64], millis: u64) -> Self {
        Self {
            keys,
            shared: false,
            section: Duration::from_millis(millis),
            pause: Duration::ZERO,
        }
    }

    /// One section. In it only the client is busy: the server has nothing to do.
    fn section(self, client: &mut Client, how: How) -> Duration {
        let asked = Instant::now();
        let mut waited = Duration::ZERO;
        let mut work = || {
            waited = asked.elapsed();
            thread::sleep(self.section); // the section itself
        };
        match how {
            How::Pglock => {
                let mut lock = Lock::new(client, self.keys);
                if self.shared {
                    lock = lock.shared();
                }
                let done = lock.run(|_| {
                    work();
                    Ok::<_, Error>(())
                });
                done.expect("a lock");
            }
            How::ByHand => {
                let suffix = if self.shared { "_shared" } else { "" };
                let mut each = |function: &str| {
                    for key in self.keys {
                        let text = format!("SELECT pg_advisory_{function}{suffix}('{key}')");
                        client.simple_query(&text).expect("an answer");
                    }
                };
                each("lock");
                work();
                each("unlock");
            }
        }
        thread::sleep(self.pause); // the time between two sections
        waited
    }
}

/// How long each section of a thread waited.
type Waits = Vec<Duration>;

/// Lets each thread lock again and again.
fn crowd(wants: &[Want], time: Duration, how: How) -> Vec<Waits> {
    let stop = AtomicBool::new(false);
    let work = |want: Want| {
        let mut client: Client = proxy::server().connect(NoTls).expect("a way");
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            waits.push(want.section(&mut client, how));
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

/// Waits that end within a slice cost the same as in the server's queue.
fn short_queues() {
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..4 {
        for turn in 0..2 {
            let way = (round + turn) % 2;
            let time = time(5);
            let waits = crowd(&[Want::new(&KEYS[..1], 30); 20], time, HOWS[way].1);
            let count: usize = waits.iter().map(Vec::len).sum();
            rates[way].push(count as f64 / time.as_secs_f64());
        }
    }
    let ratios = rates[0]
        .iter()
        .zip(&rates[1])
        .map(|(mine, bare)| mine / bare);
    let ratio = median(ratios);
    let mut table = Table::new(
        "short-queues",
        &["20 threads, 30 ms", "sections/s", "ratio"],
    );
    let rate = |way: usize| format!("{:.1}", median(rates[way].iter().copied()));
    table.row(["pglock".into(), rate(0), format!("{ratio:.3}")]);
    table.row(["by hand".into(), rate(1), "1.000".into()]);
    table.finish();
    if measures() {
        let what = "20 waiters of 30 ms: pglock / by hand, sections a second";
        verdict(what, ratio, Bound::AtLeast(0.98));
    }
}

/// Waits that are longer than a slice: they are in line.
fn long_queues() {
    let heads = [
        "8 threads, 0.3 s",
        "sections/s",
        "wait p50",
        "max",
        "least served",
        "most",
    ];
    let mut table = Table::new("long-queues", &heads);
    let longest = HOWS.map(|(name, how)| {
        let time = time(30);
        let waits = crowd(&[Want::new(&KEYS[..1], 300); 8], time, how);
        let counts = || waits.iter().map(Vec::len);
        let mut all = waits.concat();
        all.sort_unstable();
        table.row([
            name.to_owned(),
            format!("{:.2}", all.len() as f64 / time.as_secs_f64()),
            at(&all, 0.5),
            at(&all, 1.0),
            counts().min().unwrap_or_default().to_string(),
            counts().max().unwrap_or_default().to_string(),
        ]);
        all.last().map_or(0.0, Duration::as_secs_f64)
    });
    table.finish();
    if measures() {
        let what = "8 waiters of 0.3 s: longest wait, pglock / by hand";
        verdict(what, longest[0] / longest[1], Bound::AtMost(1.4));
    }
}

/// Three readers are always there, so that the key is never free.
fn writers() {
    let mut table = Table::new(
        "writers",
        &["a writer behind three readers of 1.5 s", "wait p50", "max"],
    );
    let longest = HOWS.map(|(name, how)| {
        let reader = Want {
            shared: true,
            ..Want::new(&KEYS[..1], 1_500)
        };
        let writer = Want::new(&KEYS[..1], 10);
        let mut wants = vec![reader; 3];
        wants.push(Want {
            pause: Duration::from_millis(700),
            ..writer
        });
        let mut waits = crowd(&wants, time(20), how).pop().unwrap_or_default();
        waits.sort_unstable();
        table.row([name.to_owned(), at(&waits, 0.5), at(&waits, 1.0)]);
        waits.last().map_or(0.0, Duration::as_secs_f64)
    });
    table.finish();
    if measures() {
        let what = "a writer behind readers: longest wait, seconds more than by hand";
        verdict(what, longest[0] - longest[1], Bound::AtMost(1.5));
    }
}

/// Each of four keys is held for nine tenths of the time, and one thread wants all four.
fn key_sets() {
    const SINGLE: [&[i64]; 4] = [
        KEYS.split_at(1).0,
        KEYS.split_at(1).1.split_at(1).0,
        KEYS.split_at(2).1.split_at(1).0,
        KEYS.split_at(3).1,
    ];
    let mut wants = Vec::from(SINGLE.map(|keys| Want {
        pause: Duration::from_millis(10),
        ..Want::new(keys, 90)
    }));
    wants.push(Want {
        pause: Duration::from_millis(200),
        ..Want::new(&KEYS, 10)
    });
    let heads = [
        "all of four keys, each 90 % busy",
        "sections a minute",
        "wait p50",
        "max",
    ];
    let mut table = Table::new("key-sets", &heads);
    let times = HOWS.map(|(name, how)| {
        let time = time(20);
        let mut waits = crowd(&wants, time, how).pop().unwrap_or_default();
        waits.sort_unstable();
        table.row([
            name.to_owned(),
            format!("{:.0}", waits.len() as f64 * 60.0 / time.as_secs_f64()),
            at(&waits, 0.5),
            at(&waits, 1.0),
        ]);
        waits
            .get(waits.len() / 2)
            .map_or(0.0, Duration::as_secs_f64)
    });
    table.finish();
    if measures() {
        let what = "all of four busy keys: p50 of the wait, pglock / by hand";
        verdict(what, times[0] / times[1], Bound::AtMost(1.5));
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
