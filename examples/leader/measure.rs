//! How long a change of leaders takes, and what idle leaders cost.

use std::time::{Duration, Instant};
use std::{fs, thread};

use comfy_table::Table;
use pglock::election::{self, Election, Term};
use postgres::{Client, NoTls};

use crate::fleet::Fleet;
use crate::member::ELECTION;

const CHANGES: usize = 50;
const LEADERS: usize = 200;

pub fn measure(url: &str, lease: Duration) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.set_header(["from … to the next leader", "p50", "p99", "max"]);
    table.add_row(row("resigned", resignations(url, lease)?));
    let faults: [(&str, bool, Fault); 6] = [
        ("killed (SIGKILL)", false, kill),
        ("session ended (pg_terminate_backend)", false, terminate),
        ("cut off", false, cut_off),
        ("frozen (SIGSTOP)", false, stop),
        ("killed, at_once", true, kill),
        ("session ended, at_once", true, terminate),
    ];
    for (what, at_once, fault) in faults {
        table.add_row(row(what, changes(url, lease, at_once, fault)?));
    }
    println!("with a lease of {lease:?}:\n{table}");
    idle(url)
}

/// What happens to a leader.
type Fault = fn(&mut Fleet, usize, &mut Client) -> anyhow::Result<()>;

fn kill(fleet: &mut Fleet, leader: usize, _: &mut Client) -> anyhow::Result<()> {
    fleet.members[leader].kill()
}

fn stop(fleet: &mut Fleet, leader: usize, _: &mut Client) -> anyhow::Result<()> {
    fleet.members[leader].signal("STOP")
}

fn cut_off(fleet: &mut Fleet, leader: usize, _: &mut Client) -> anyhow::Result<()> {
    fleet.members[leader].network.freeze(true);
    Ok(())
}

fn terminate(_: &mut Fleet, _: usize, client: &mut Client) -> anyhow::Result<()> {
    let leader = election::leader(client, ELECTION)?;
    client.execute(
        "SELECT pg_terminate_backend($1)",
        &[&leader.and_then(|leader| leader.pid)],
    )?;
    Ok(())
}

fn election(url: &str, name: &str) -> Election {
    let url = url.to_owned();
    Election::new(move || Client::connect(&url, NoTls), name)
}

/// From the call of `resign` to the return of the other's `campaign`.
fn resignations(url: &str, lease: Duration) -> anyhow::Result<Vec<Duration>> {
    let election = election(url, "example-leader-resigns").lease(lease);
    let mut term = election.campaign()?;
    let mut took = Vec::new();
    for _ in 0..CHANGES {
        term = thread::scope(|threads| -> anyhow::Result<Term> {
            let next = threads.spawn(|| election.campaign().map(|term| (term, Instant::now())));
            thread::sleep(Duration::from_millis(150)); // until it waits, and knows who leads
            let since = Instant::now();
            term.resign()?;
            let (next, elected) = next.join().expect("no panic")?;
            took.push(elected - since);
            Ok(next)
        })?;
    }
    Ok(took)
}

/// From what happens to a leader to the first line of the next one.
fn changes(
    url: &str,
    lease: Duration,
    at_once: bool,
    fault: Fault,
) -> anyhow::Result<Vec<Duration>> {
    let mut client = Client::connect(url, NoTls)?;
    client.batch_execute(crate::TABLE)?;
    let mut fleet = Fleet::start(url, lease, at_once, 2)?;
    let mut took = Vec::new();
    for _ in 0..CHANGES / 2 {
        let leader = fleet.wait_for_leader()?;
        thread::sleep(Duration::from_millis(500)); // until the other waits, and knows who leads
        fault(&mut fleet, leader, &mut client)?;
        let since = Instant::now();
        fleet.wait_for_another(leader, || ())?;
        took.push(since.elapsed());
        let _ = fleet.members[leader].kill();
        fleet.members[leader].network.freeze(false);
        fleet.restart(leader)?;
    }
    fleet.end();
    Ok(took)
}

fn row(what: &str, mut took: Vec<Duration>) -> [String; 4] {
    took.sort();
    let at = |part: usize| {
        format!(
            "{:.1} ms",
            took[(took.len() - 1) * part / 100].as_secs_f64() * 1e3
        )
    };
    [what.to_owned(), at(50), at(99), at(100)]
}

/// Leaders with the default lease, each with its thread and its connection.
fn idle(url: &str) -> anyhow::Result<()> {
    let mut terms = Vec::new();
    let start = Instant::now();
    for number in 0..LEADERS {
        // Else each would wait for half a lease.
        let election = election(url, &format!("{ELECTION}-{number}")).at_once();
        terms.push(election.campaign()?);
    }
    let elected = start.elapsed() / u32::try_from(LEADERS)?;
    let (before, start) = (cpu_ticks()?, Instant::now());
    thread::sleep(Duration::from_secs(20));
    let used = (cpu_ticks()? - before) * 10; // USER_HZ is 100
    let part = used as f64 / start.elapsed().as_secs_f64() / 10.0;
    let over = terms.iter().filter(|term| term.is_over()).count();
    println!(
        "{LEADERS} leaders in one process: {elected:.1?} to elect each, {part:.1} % of a processor, {over} lost"
    );
    Ok(())
}

/// Of this process, from `/proc/self/stat`.
fn cpu_ticks() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
