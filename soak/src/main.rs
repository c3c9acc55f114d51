//! Processes and threads on all drivers and pools, and through a pooler that wipes out all settings, move money under locks, while sessions are
//! terminated and cancelled, connections cut, processes killed, and bodies panic. The sum must not
//! change, nobody may get in beside a holder or into a slot that is taken, no two may lead at a time, and
//! no lock may be left.
//!
//! ```sh
//! scripts/with-postgres cargo run --release -p soak -- --minutes 10
//! ```

mod bank;
mod bouncer;
mod faults;
mod held;
mod leader;
mod permit;
mod process;
#[path = "../../tests/support/proxy.rs"]
mod proxy;
mod random;
mod section;
mod tally;
mod worker;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use bank::Bank;
use bouncer::Bouncer;
use faults::Faults;
use process::Process;
use random::Random;
use tally::Tally;

/// Moves money under locks while everything fails, and checks that none is lost.
///
/// The server is the one that DATABASE_URL names; scripts/with-postgres starts one. Exit status 1
/// means that a promise was broken.
#[derive(Debug, Parser)]
struct Options {
    /// How many minutes to run
    #[arg(long, default_value_t = 0)]
    minutes: u64,
    /// How many seconds more; 30 if neither is given
    #[arg(long)]
    seconds: Option<u64>,
    /// Repeats the random choices of a run, but not their timing
    #[arg(long)]
    seed: Option<u64>,
    /// Processes of sixteen threads each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    processes: u64,
    /// Makes this one of the processes: its number, and its run
    #[arg(long, hide = true, num_args = 2, value_names = ["NUMBER", "RUN"])]
    process: Option<Vec<i32>>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let url = std::env::var("DATABASE_URL").ok().context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run --release -p soak",
    )?;
    if let Some(&[number, run]) = options.process.as_deref() {
        process::work(options.seed.unwrap_or_default(), number, run);
        return Ok(ExitCode::SUCCESS);
    }
    let default = if options.minutes == 0 { 30 } else { 0 };
    let length = options.minutes * 60 + options.seconds.unwrap_or(default);
    let seed = options.seed.unwrap_or_else(random::seed);
    println!("seed {seed}: {length} s, {} processes", options.processes);

    let mut bank = Bank::open(&url)?;
    let bouncer = Bouncer::start(bank.run)?;
    let mut tally = soak(&options, &mut bank, seed, Duration::from_secs(length))?;
    drop(bouncer);
    tally.add(&bank.close()?);
    print!("{tally}");
    Ok(if tally.violations() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Keeps the processes running, injects faults from outside, and checks the sum.
fn soak(options: &Options, bank: &mut Bank, seed: u64, length: Duration) -> Result<Tally> {
    let start = Instant::now();
    let mut random = Random::new(seed);
    let mut faults = Faults::new(bank.run)?;
    let mut processes = Vec::new();
    for number in 1..=options.processes {
        processes.push(Process::start(number, random.number(), bank.run)?);
    }
    let mut tally = Tally::default();
    while start.elapsed() < length {
        std::thread::sleep(Duration::from_millis(random.below(60)));
        if random.one_in(100) {
            let victim = random.pick(&mut processes);
            tally.add(&victim.kill()?);
            tally.count("faults: killed processes");
            *victim = Process::start(victim.number, random.number(), bank.run)?;
        } else {
            faults.inject(&mut random, &mut tally)?;
        }
        if random.one_in(20) {
            bank.check_sum(&mut tally)?;
        }
    }
    for process in processes {
        tally.add(&process.stop()?);
    }
    Ok(tally)
}
