//! How the cost of a lock grows: with the locks that the session holds already, and with the keys
//! of one call.
//!
//! ```text
//! scripts/with-postgres cargo bench --all-features --bench growth
//! ```

mod support;

use diesel::Connection;
use diesel::pg::PgConnection;
use pglock::{Error, Lock, LockGuard, Session, try_with_lock, with_lock};
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
    let mut variants = vec![
        variant("with_lock", |conn: &mut S| {
            with_lock(conn, KEY, |_| Ok::<_, Error>(())).unwrap();
        }),
        variant("try_with_lock", |conn: &mut S| {
            try_with_lock(conn, KEY, |_| Ok::<_, Error>(())).unwrap();
        }),
        variant("bare lock and unlock by hand", |conn: &mut S| {
            conn.message(&bare("lock", KEY));
            conn.message(&bare("unlock", KEY));
        }),
        variant("LockGuard::is_held, with its lock", |conn: &mut S| {
            let mut lock = Lock::new(conn, KEY);
            let mut guard = lock.acquire().unwrap();
            assert!(LockGuard::is_held(&mut guard).unwrap());
            LockGuard::release(guard).unwrap();
        }),
    ];
    let times = HELD.map(|count| {
        let mut conn = connect();
        conn.message(&format!(
            "SELECT count(pg_advisory_lock(1, i)) FROM generate_series(1, {count}) AS i"
        ));
        turns(&mut variants, &mut conn)
    });
    rows(table, name, &variants, &times);
}

fn keys<S: Driver + 'static>(table: &mut Table, name: &str, connect: impl Fn() -> S) {
    let mut conn = connect();
    let mut all = Vec::new();
    for count in KEYS {
        let mut variants = vec![
            variant("Lock::all", move |conn: &mut S| {
                let mut lock = Lock::all(conn, KEY..KEY + count);
                lock.run(|_| Ok::<_, Error>(())).unwrap();
            }),
            variant("bare ones by hand, one by one", move |conn: &mut S| {
                for function in ["lock", "unlock"] {
                    for key in KEY..KEY + count {
                        conn.message(&bare(function, key));
                    }
                }
            }),
        ];
        let times = turns(&mut variants, &mut conn);
        all.push((variants, times));
    }
    let times: Vec<_> = all.iter().map(|(_, times)| times.clone()).collect();
    rows(table, name, &all[0].0, &times);
}

/// The medians, in microseconds.
fn turns<S: Session>(variants: &mut [Variant<S>], conn: &mut S) -> Vec<f64> {
    let (rounds, repeat) = if measures() { (100, 4) } else { (1, 1) };
    let times = take_turns(variants, conn, rounds, repeat);
    times.into_iter().map(median).collect()
}

fn rows<S>(table: &mut Table, backend: &str, variants: &[Variant<S>], times: &[Vec<f64>]) {
    for (index, variant) in variants.iter().enumerate() {
        let times = times.iter().map(|times| format!("{:.0} µs", times[index]));
        table.row(
            [backend.to_owned(), variant.name.to_owned()]
                .into_iter()
                .chain(times),
        );
    }
}

fn bare(function: &str, key: i64) -> String {
    format!("SELECT pg_advisory_{function}('{key}')")
}
