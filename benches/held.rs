//! What locks cost that are held for work elsewhere: connections, the CPU of the process and of the server's
//! sessions, and how long until a loss is known.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench held
//! ```

mod support;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pglock::held::Keeper;
use pglock::{Lock, key};
use postgres::{Client, NoTls};
use support::table::Table;
use support::{measures, proxy};

/// The last are as many as the server has room for by default.
const HELD: [usize; 3] = [1, 200, 5_000];

fn main() {
    let heads = [
        "held",
        "connections",
        "to take them",
        "CPU of the process",
        "of the server",
        "until a loss is known",
    ];
    let mut table = Table::new("work_elsewhere", &heads);
    let watch = Duration::from_secs(if measures() { 20 } else { 1 });
    let count = if measures() { HELD.len() } else { 2 };
    for held in &HELD[..count] {
        table.row(measure(*held, watch));
    }
    table.finish();
}

fn measure(count: usize, watch: Duration) -> Vec<String> {
    let server = proxy::server();
    let mut admin = server.connect(NoTls).unwrap();
    let keeper = Keeper::new(move || server.connect(NoTls));
    let start = Instant::now();
    let hold = |number| Lock::new(&keeper, key!("bench:held:{number}")).hold();
    let held: Vec<_> = (0..count).map(|number| hold(number).unwrap()).collect();
    let taken = start.elapsed();
    let pids: Vec<i32> = holders(&mut admin);
    let (before, of_server) = (cpu("self"), server_cpu(&pids));
    sleep(watch);
    assert!(held.iter().all(|held| !held.is_lost()));
    let share = |micros: f64| format!("{:.1} %", micros / watch.as_secs_f64() / 1e4);
    let process = share(cpu("self") - before);
    let server = share(server_cpu(&pids) - of_server);
    let start = Instant::now();
    for pid in &pids {
        admin
            .execute("SELECT pg_terminate_backend($1)", &[pid])
            .unwrap();
    }
    while !held.iter().all(pglock::held::Held::is_lost) {
        sleep(Duration::from_micros(100));
    }
    let known = start.elapsed().as_millis();
    vec![
        count.to_string(),
        pids.len().to_string(),
        format!("{} ms", taken.as_millis()),
        process,
        server,
        format!("{known} ms"),
    ]
}

fn holders(admin: &mut Client) -> Vec<i32> {
    let query = "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted";
    let rows = admin.query(query, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn server_cpu(pids: &[i32]) -> f64 {
    pids.iter().map(|pid| cpu(&pid.to_string())).sum()
}

/// The time that a process has spent on a core, in microseconds. Only Linux tells it, in hundredths of a second.
fn cpu(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let numbers = numbers.split_whitespace().skip(11).take(2);
    numbers
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        * 1e4
}
