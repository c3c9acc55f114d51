//! Three processes are candidates in one election, and write what only a leader may write. Leaders are
//! killed, frozen, cut off and asked to resign; the tally then shows who led when, and whether two ever
//! led at once.
//!
//! ```text
//! scripts/with-postgres cargo run --example leader
//! scripts/with-postgres cargo run --release --example leader -- --measure
//! ```

mod fleet;
mod measure;
mod member;
mod network;
mod tally;

use std::io::IsTerminal;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use postgres::{Client, NoTls};

use fleet::Fleet;

#[derive(Parser)]
struct Options {
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    url: String,
    /// How long a silent leader can keep the next one out, in seconds.
    #[arg(long, default_value_t = 2.0)]
    lease: f64,
    /// The next term begins at once, even beside the last.
    #[arg(long)]
    at_once: bool,
    /// Measures how long a change of leaders takes, and what an idle leader costs.
    #[arg(long)]
    measure: bool,
    /// The number of such a process.
    #[arg(long, hide = true)]
    member: Option<usize>,
}

const MEMBERS: usize = 3;

const TABLE: &str = "DROP TABLE IF EXISTS leader_wrote; \
    CREATE TABLE leader_wrote (token bigint NOT NULL, member int NOT NULL, at timestamptz DEFAULT clock_timestamp())";

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let lease = Duration::try_from_secs_f64(options.lease)?;
    if options.measure {
        return measure::measure(&options.url, lease);
    }
    if let Some(number) = options.member {
        return member::run(&options.url, lease, options.at_once, number);
    }
    let mut client = Client::connect(&options.url, NoTls)?;
    client.batch_execute(TABLE)?;
    let mut fleet = Fleet::start(&options.url, lease, options.at_once, MEMBERS)?;
    let mut show = Show::new();
    show.watch(&fleet, Duration::from_secs(1));
    for what in ["is killed", "is frozen", "is cut off", "resigns"] {
        let leader = fleet.wait_for_leader()?;
        show.watch(&fleet, Duration::from_secs(1));
        let since = Instant::now();
        match what {
            "is killed" => fleet.members[leader].kill()?,
            "is frozen" => fleet.members[leader].signal("STOP")?,
            "is cut off" => fleet.members[leader].network.freeze(true),
            _ => fleet.members[leader].resign()?,
        }
        let next = fleet.wait_for_another(leader, || show.frame(&fleet))?;
        let took = since.elapsed().as_secs_f64();
        show.say(&format!(
            "member {leader} {what}; member {next} leads after {took:.3} s"
        ));
        show.watch(&fleet, Duration::from_millis(500));
        match what {
            "is killed" => fleet.restart(leader)?,
            "is frozen" => fleet.members[leader].signal("CONT")?,
            "is cut off" => fleet.members[leader].network.freeze(false),
            _ => {}
        }
    }
    fleet.wait_for_leader()?;
    show.watch(&fleet, lease);
    let tally = fleet.end();
    tally
        .print(&mut client, options.at_once)
        .context("the tally")
}

/// Shows who leads: as a table that changes on a terminal, else only what happens.
struct Show {
    live: bool,
    lines: usize,
}

impl Show {
    fn new() -> Self {
        Self {
            live: std::io::stdout().is_terminal(),
            lines: 0,
        }
    }

    fn watch(&mut self, fleet: &Fleet, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.frame(fleet);
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn frame(&mut self, fleet: &Fleet) {
        if self.live {
            let table = fleet.table();
            if self.lines > 0 {
                print!("\x1b[{}A", self.lines);
            }
            self.lines = table.lines().count();
            println!("{table}");
        }
    }

    /// Above the table.
    fn say(&mut self, text: &str) {
        if self.lines > 0 {
            print!("\x1b[{}A\x1b[J", self.lines);
            self.lines = 0;
        }
        println!("{text}");
    }
}
