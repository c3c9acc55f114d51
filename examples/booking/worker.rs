//! A process of buyers, seen from inside and from the parent.
//!
//! A worker connects, prints `ready`, waits for a line, and then prints an `Outcome` per attempt.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::iter::Sum;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::database::{self, Database};
use crate::strategy::{Strategy, Wish};
use crate::{Driver, Options, name};

/// What the parent passes to a worker, in addition to its own options.
#[derive(Debug, Args)]
pub(crate) struct Task {
    show: i32,
    strategy: Strategy,
    number: u16,
}

/// What a worker process does.
pub(crate) fn work(options: &Options, task: &Task) -> Result<()> {
    let (show, buyers) = (task.show, options.buyers);
    database::delay(options.delay);
    match options.driver {
        Driver::Postgres => {
            let connections = (0..buyers).map(|_| database::postgres(show));
            buy_seats(connections.collect::<Result<_>>()?, options, task)
        }
        Driver::Diesel => {
            let connections = (0..buyers).map(|_| database::diesel(show));
            buy_seats(connections.collect::<Result<_>>()?, options, task)
        }
        Driver::R2d2 => {
            let pool = database::pool(show, buyers.into())?;
            buy_seats((0..buyers).map(|_| pool.clone()).collect(), options, task)
        }
    }
}

/// Lets each buyer, a thread with its own connection or pool handle, try to buy each seat.
fn buy_seats(databases: Vec<impl Database + Send>, options: &Options, task: &Task) -> Result<()> {
    println!("ready");
    if io::stdin().read_line(&mut String::new())? == 0 {
        return Ok(()); // the parent has given up
    }
    let timeout = Duration::from_millis(options.timeout);
    let (strategy, show) = (task.strategy, task.show);
    let buyers = i32::from(task.number) * i32::from(options.buyers)..;
    thread::scope(|scope| {
        let threads: Vec<_> = buyers
            .zip(databases)
            .map(|(buyer, mut database)| {
                scope.spawn(move || -> Result<()> {
                    for seat in 1..=options.seats.into() {
                        let wish = Wish { show, seat, buyer };
                        let outcome = strategy
                            .buy(&mut database, wish, timeout)
                            .with_context(|| format!("buyer {buyer} at seat {seat}"))?;
                        writeln!(io::stdout(), "{outcome:?}")?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a buyer panicked"))
    })
}

/// A worker process, for the parent.
pub(crate) struct Worker {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// How often each outcome occurred.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) booked: i64,
    pub(crate) taken: i64,
    pub(crate) busy: i64,
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |a, b| Self {
            booked: a.booked + b.booked,
            taken: a.taken + b.taken,
            busy: a.busy + b.busy,
        })
    }
}

impl Worker {
    /// Starts this program once more, with the same options.
    pub(crate) fn start(strategy: Strategy, show: i32, number: u16) -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(env::args_os().skip(1))
            .args([
                "worker",
                &show.to_string(),
                &name(&strategy),
                &number.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker process")?;
        Ok(Self {
            stdin: process.stdin.take().expect("it is piped"),
            stdout: BufReader::new(process.stdout.take().expect("it is piped")),
            process,
        })
    }

    /// Waits until it is connected.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(line == "ready\n", FAILED);
        Ok(())
    }

    pub(crate) fn go(&mut self) -> Result<()> {
        writeln!(self.stdin).context(FAILED)
    }

    /// Counts the outcomes of its buyers until all are done.
    pub(crate) fn tally(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        for line in (&mut self.stdout).lines() {
            match line?.as_str() {
                "Booked" => tally.booked += 1,
                "Taken" => tally.taken += 1,
                "Busy" => tally.busy += 1,
                line => bail!("a worker process printed {line:?}"),
            }
        }
        ensure!(self.process.wait()?.success(), FAILED);
        Ok(tally)
    }
}

const FAILED: &str = "a worker process failed; its error is above";

/// So that no process is left behind, whatever happens.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
