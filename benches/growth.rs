//! How the cost of a lock grows with the locks that the session already holds, and with the keys
//! of one call.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench growth
//! ```

mod support;

use std::ops::Range;

use diesel::Connection;
use diesel::pg::PgConnection;
use pglock::{Error, Lock, LockGuard, try_with_lock, with_lock};
use postgres::NoTls;
use support::by_hand::Driver;
use support::table::Table;
use support::{KEY, Variant, measures, median, proxy, take_turns, variant};

const HELD: [u32; 3] = [0, 1_000, 5_000];
const KEYS: [i64; 5] = [1, 4, 16, 64, 256];

fn main() {
    let url = std::env::var("DATABASE_URL").expect("run under scripts/with-postgres");
    let client = || proxy::server().connect(NoTls).unwrap();
    let connection = || PgConnection::establish(&url).unwrap();
    let mut table = Table::new("held", &["backend", "code", "0 held", "1,000", "5,000"]);
    held(&mut table, "postgres", client);
    held(&mut table, "diesel", connection);
    table.finish();
    let mut table = Table::new(
        "keys",
        &["backend", "code", "1 key", "4", "16", "64", "256"],
    );
    keys(&mut table, "postgres", client);
    keys(&mut table, "diesel", connection);
    table.finish();
}

fn held<S: Driver + 'static>(table: &mut Table, name: &str, connect: impl Fn() -> S) {
    let operations: [(_, fn(&mut S)); 4] = [
        ("with_lock", |conn| {
            with_lock(conn, KEY, |_| Ok::<_, Error>(())).unwrap();
        }),
        ("try_with_lock", |conn| {
            try_with_lock(conn, KEY, |_| Ok::<_, Error>(())).unwrap();
        }),
        ("bare lock and unlock by hand", |conn| {
            conn.simple(&bare("lock", KEY));
            conn.simple(&bare("unlock", KEY));
        }),
        ("LockGuard::is_held, with its lock", |conn| {
            let mut lock = Lock::new(conn, KEY);
            let mut guard = lock.acquire().unwrap();
            assert!(LockGuard::is_held(&mut guard).unwrap());
            LockGuard::release(guard).unwrap();
        }),
    ];
    let mut cells = operations.map(|(code, run)| variant(code, run));
    // One after the other, since `pg_locks` lists the locks of all sessions.
    let columns = HELD.map(|count| {
        let mut conn = connect();
        conn.simple(&format!(
            "SELECT count(pg_advisory_lock(1, i)) FROM generate_series(1, {count}) AS i"
        ));
        medians(&mut cells, &mut conn)
    });
    for (index, cell) in cells.iter().enumerate() {
        let times = columns.iter().map(|times| &times[index]);
        row(table, name, cell.name, times);
    }
}

type OnKeys<S> = fn(&mut S, Range<i64>);

fn keys<S: Driver + 'static>(table: &mut Table, name: &str, connect: impl Fn() -> S) {
    let operations: [(_, OnKeys<S>); 2] = [
        ("several keys", |conn, keys| {
            let mut lock = Lock::new(conn, keys.collect::<Vec<_>>());
            lock.run(|_| Ok::<_, Error>(())).unwrap();
        }),
        ("bare ones by hand, one by one", |conn, keys| {
            for function in ["lock", "unlock"] {
                for key in keys.clone() {
                    conn.simple(&bare(function, key));
                }
            }
        }),
    ];
    let mut conn = connect();
    let cells = operations.into_iter().flat_map(|(code, run)| {
        KEYS.map(|count| variant(code, move |conn: &mut S| run(conn, KEY..KEY + count)))
    });
    let mut cells: Vec<_> = cells.collect();
    let times = medians(&mut cells, &mut conn);
    for (cells, times) in cells.chunks(KEYS.len()).zip(times.chunks(KEYS.len())) {
        row(table, name, cells[0].name, times);
    }
}

fn medians<C>(variants: &mut [Variant<C>], context: &mut C) -> Vec<f64> {
    let (rounds, repeat) = if measures() { (100, 4) } else { (1, 1) };
    let times = take_turns(variants, context, rounds, repeat);
    times.into_iter().map(median).collect()
}

fn row<'t>(table: &mut Table, backend: &str, code: &str, times: impl IntoIterator<Item = &'t f64>) {
    let times = times.into_iter().map(|time| format!("{time:.0} µs"));
    let heads = [backend, code].map(str::to_owned);
    table.row(heads.into_iter().chain(times));
}

fn bare(function: &str, key: i64) -> String {
    format!("SELECT pg_advisory_{function}('{key}')")
}
