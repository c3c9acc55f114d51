//! How far one server goes: locks a second by connections, with other locks in the table, beside waiters, and
//! what leaders and candidates cost it. The server's time on its cores is that of all its sessions.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench scaling
//! ```

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pglock::election::{Election, Term};
use pglock::{Error, StopToken, inspect, with_lock};
use postgres::{Client, NoTls};
use support::table::Table;
use support::{KEY, measures, proxy};

fn main() {
    connections();
    lock_table();
    waiters();
    elections();
}

fn connect() -> Client {
    proxy::server().connect(NoTls).expect("a connection")
}

/// The time that is measured, or just a moment.
fn time(seconds: u64) -> Duration {
    match measures() {
        true => Duration::from_secs(seconds),
        false => Duration::from_millis(50),
    }
}

/// How many, or just a few.
fn count(measured: usize) -> usize {
    if measures() {
        measured
    } else {
        measured.min(3)
    }
}

/// The seconds that the server's sessions have spent on a core, without the one that asks. Only Linux tells
/// it, and only on the server's machine.
fn server(looker: &mut Client) -> f64 {
    let pids = "SELECT pid FROM pg_stat_activity \
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let pids = looker.query(pids, &[]).expect("the sessions");
    let nanos = pids.iter().filter_map(|row| {
        let path = format!("/proc/{}/schedstat", row.get::<_, i32>(0));
        let text = fs::read_to_string(path).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}

/// How long it took, and how long the server was on a core meanwhile.
fn spent<T>(looker: &mut Client, work: impl FnOnce() -> T) -> (T, f64, f64) {
    let (before, start) = (server(looker), Instant::now());
    let done = work();
    let seconds = start.elapsed().as_secs_f64();
    (done, seconds, server(looker) - before)
}

type Section = fn(&mut Client, i64);

fn pglock(client: &mut Client, key: i64) {
    with_lock(client, key, |_| Ok::<_, Error>(())).expect("a lock");
}

fn by_hand(client: &mut Client, key: i64) {
    for function in ["lock", "unlock"] {
        let text = format!("SELECT pg_advisory_{function}('{key}')");
        client.simple_query(&text).expect("an answer");
    }
}

/// Each of the clients locks a key of its own, again and again.
fn crowd(clients: &mut [Client], section: Section, time: Duration) -> usize {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let threads: Vec<_> = clients
            .iter_mut()
            .zip(KEY..)
            .map(|(client, key)| {
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        section(client, key);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        thread::sleep(time); // the time that is measured
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

fn connections() {
    let heads = [
        "connections",
        "pglock: locks/s",
        "server",
        "by hand: locks/s",
        "server",
    ];
    let mut table = Table::new("scaling-connections", &heads);
    let mut looker = connect();
    for number in [1, 2, 8, 32, 128].map(count) {
        let mut clients: Vec<_> = (0..number).map(|_| connect()).collect();
        let mut cells = vec![number.to_string()];
        for section in [pglock as Section, by_hand] {
            crowd(&mut clients, section, time(1)); // prepares what is prepared
            let (locks, seconds, cpu) =
                spent(&mut looker, || crowd(&mut clients, section, time(3)));
            cells.push(format!("{:.0}", locks as f64 / seconds));
            cells.push(format!("{:.0} µs a lock", cpu * 1e6 / locks as f64));
        }
        table.row(cells);
    }
    table.finish();
}

fn lock_table() {
    let heads = [
        "other locks",
        "with_lock p50",
        "p99",
        "locks/s",
        "inspect::locks",
    ];
    let mut table = Table::new("scaling-table", &heads);
    let (mut client, mut holder) = (connect(), connect());
    let mut held = 0;
    for number in [0, 1_000, 10_000] {
        let text = format!(
            "SELECT count(pg_advisory_lock(1, i)) FROM generate_series({held} + 1, {number}) AS i"
        );
        holder.simple_query(&text).expect("locks");
        held = number;
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < time(3) {
            let asked = Instant::now();
            pglock(&mut client, KEY);
            times.push(asked.elapsed());
        }
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort_unstable();
        let at =
            |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        let asked = Instant::now();
        inspect::locks(&mut client).expect("the locks");
        table.row([
            number.to_string(),
            format!("{:.0} µs", at(0.5)),
            format!("{:.0} µs", at(0.99)),
            format!("{rate:.0}"),
            format!("{:.1} ms", asked.elapsed().as_secs_f64() * 1e3),
        ]);
    }
    table.finish();
}

/// In line for one key, which is held all the while.
fn waiters() {
    let heads = ["in line", "server", "a waiter", "another key: locks/s"];
    let mut table = Table::new("scaling-waiters", &heads);
    let mut looker = connect();
    let mut other = [connect()];
    for number in [0, 10, 50, 200].map(count) {
        let stop = StopToken::new();
        let (mut holder, key) = (connect(), KEY - 1);
        thread::scope(|scope| {
            let section = |_: &mut Client| {
                for _ in 0..number {
                    let (mut client, stop) = (connect(), &stop);
                    scope.spawn(move || {
                        let waited = pglock::Lock::new(&mut client, key)
                            .stop_on(stop)
                            .acquire()
                            .map(drop);
                        // The holder may be done before it sees that it is stopped.
                        assert!(
                            matches!(waited, Ok(()) | Err(Error::Stopped { .. })),
                            "{waited:?}"
                        );
                    });
                }
                thread::sleep(time(2)); // all are in line after their first slice
                let ((), seconds, cpu) = spent(&mut looker, || thread::sleep(time(5)));
                let (locks, more, _) = spent(&mut looker, || crowd(&mut other, pglock, time(2)));
                stop.stop();
                table.row([
                    number.to_string(),
                    format!("{:.1} % of a core", cpu * 100.0 / seconds),
                    format!(
                        "{:.2} ms a second",
                        cpu * 1e3 / seconds / number.max(1) as f64
                    ),
                    format!("{:.0}", locks as f64 / more),
                ]);
                Ok::<_, Error>(())
            };
            with_lock(&mut holder, key, section).expect("the key");
        });
    }
    table.finish();
}

fn elections() {
    let heads = ["leaders", "candidates behind the first", "server", "each"];
    let mut table = Table::new("scaling-elections", &heads);
    let mut looker = connect();
    for (leaders, candidates) in [(1, 0), (100, 0), (1, 100)] {
        let (leaders, candidates) = (count(leaders), count(candidates));
        let election = |number: usize| {
            let connect = || proxy::server().connect(NoTls);
            Election::new(connect, format!("scaling:{number}")).at_once()
        };
        let terms: Vec<Term> = (0..leaders)
            .map(|number| election(number).campaign().expect("a term"))
            .collect();
        let stop = StopToken::new();
        thread::scope(|scope| {
            for _ in 0..candidates {
                let election = election(0).stop_on(&stop);
                scope.spawn(move || election.campaign().map(drop));
            }
            thread::sleep(time(3)); // all are in line
            let ((), seconds, cpu) = spent(&mut looker, || thread::sleep(time(5)));
            stop.stop();
            table.row([
                leaders.to_string(),
                candidates.to_string(),
                format!("{:.1} % of a core", cpu * 100.0 / seconds),
                format!(
                    "{:.2} ms a second",
                    cpu * 1e3 / seconds / (leaders + candidates) as f64
                ),
            ]);
        });
        for term in terms {
            term.resign().expect("the end of a term");
        }
    }
    table.finish();
}
