//! Sells the seats of a show from several processes of several threads, once without a lock and then
//! with each way to keep buyers apart, and counts the seats that were sold twice.
//!
//! ```sh
//! scripts/with-postgres cargo run --example booking
//! scripts/with-postgres cargo run --example booking -- --help
//! ```
//!
//! The strategies are in `strategy.rs`; this file has the options and the report.

mod database;
#[path = "../../tests/support/proxy.rs"]
mod proxy;
mod strategy;
mod worker;

use std::io::{self, IsTerminal};
use std::ops::Add;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};

use database::Show;
use strategy::Strategy;
use worker::{Tally, Task, Worker};

const AFTER_HELP: &str = "\
Exit status: 1 if a seat was sold twice in spite of a strategy, or on an error.
When interrupted, it leaves the schema pglock_booking_<number> in the database.";

/// Sells the seats of a show to more buyers than there are seats, by several strategies.
///
/// Each buyer is a thread with a connection of its own. All of them try to buy every seat, in the same
/// order: is it free? pay; book it. (With skip-locked, each tries as often to buy any seat.) The
/// strategies run one after the other, and after each one the bookings are counted. The server is the
/// one that DATABASE_URL names; scripts/with-postgres starts one.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
struct Options {
    /// Seats to sell
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    seats: u16,
    /// Buyers in each process
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    buyers: u16,
    /// Processes of buyers: threads could share a mutex, processes need the database
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    processes: u16,
    /// The driver whose connections hold the locks
    #[arg(long, default_value = "postgres")]
    driver: Driver,
    /// Milliseconds that a buyer waits before giving up, in the strategy `timeout`. A payment takes
    /// 5; with 0 nobody waits
    #[arg(long, value_name = "MS", default_value_t = 3)]
    timeout: u64,
    /// What a network adds to each round trip, such as 1ms
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = milliseconds)]
    delay: Duration,
    /// Only this strategy; can be given several times
    #[arg(long)]
    strategy: Vec<Strategy>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum Role {
    /// One of the processes: this program starts itself again as such.
    #[command(hide = true)]
    Worker(Task),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Driver {
    /// postgres::Client
    Postgres,
    /// diesel::PgConnection
    Diesel,
    /// A pool of postgres::Client in each process
    R2d2,
}

/// The outcome of a strategy.
struct Sale {
    strategy: Strategy,
    sold: i64,
    oversold: i64,
    told: Tally,
    time: Duration,
}

fn main() -> Result<ExitCode> {
    let mut options = Options::parse();
    if let Some(Role::Worker(task)) = &options.role {
        worker::work(&options, task)?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.strategy.is_empty() {
        options.strategy = Strategy::value_variants().to_vec();
    }
    let mut show = Show::open()?;
    let sales = sell_all(&options, &mut show);
    let closed = show.close();
    let sales = sales?;
    closed?;
    Ok(report(&options, &sales))
}

fn sell_all(options: &Options, show: &mut Show) -> Result<Vec<Sale>> {
    let sales = options.strategy.iter().map(|&strategy| {
        progress(&name(&strategy));
        sell(strategy, options, show)
    });
    let sales = sales.collect();
    progress("");
    sales
}

/// On a terminal, shows what is going on, in a line that the next one overwrites.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{text:<20}\r");
    }
}

fn sell(strategy: Strategy, options: &Options, show: &mut Show) -> Result<Sale> {
    show.restart(options.seats)?;
    let workers = (0..options.processes).map(|number| Worker::start(strategy, show.id, number));
    let mut workers = workers.collect::<Result<Vec<_>>>()?;
    workers.iter_mut().try_for_each(Worker::ready)?;
    let start = Instant::now();
    workers.iter_mut().try_for_each(Worker::go)?;
    let told = thread::scope(|scope| {
        let readers: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| worker.tally()))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader panicked"))
            .sum::<Result<Tally>>()
    })?;
    let time = start.elapsed();
    let (sold, bookings) = show.count()?;
    ensure!(
        told.booked == bookings,
        "buyers were sold a seat {} times, but there are {bookings} bookings",
        told.booked,
    );
    Ok(Sale {
        strategy,
        sold,
        oversold: bookings - sold,
        told,
        time,
    })
}

fn report(options: &Options, sales: &[Sale]) -> ExitCode {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "strategy",
        "seats sold",
        "oversold",
        "refused: taken",
        "refused: busy",
        "time",
    ]);
    for sale in sales {
        table.add_row([
            name(&sale.strategy),
            format!("{} of {}", sale.sold, options.seats),
            sale.oversold.to_string(),
            sale.told.taken.to_string(),
            sale.told.busy.to_string(),
            format!("{:.2} s", sale.time.as_secs_f64()),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "Processes: {}. Buyers in each: {}. Driver: {}. Every buyer tried every seat: {} attempts.\n\
         oversold: bookings of a seat that was sold already. taken: the seat was sold.\n\
         busy: after {} ms, somebody else still held the seat's lock.\n",
        options.processes,
        options.buyers,
        name(&options.driver),
        options.attempts(),
        options.timeout,
    );
    let oversold = |protects: bool| {
        let sales = sales
            .iter()
            .filter(|sale| sale.strategy.protects() == protects);
        sales.map(|sale| sale.oversold).reduce(i64::add)
    };
    if let Some(n @ 1..) = oversold(true) {
        eprintln!(
            "In spite of a strategy, {n} bookings went to seats that were sold already: a bug."
        );
        return ExitCode::FAILURE;
    }
    match oversold(false) {
        Some(0) => println!("Without a lock, nothing was oversold: luck, or too few buyers."),
        Some(n) => println!("Without a lock, {n} bookings went to seats that were sold already."),
        None => {}
    }
    if oversold(true).is_some() {
        println!("With any of the others, nothing was oversold.");
    }
    ExitCode::SUCCESS
}

fn milliseconds(text: &str) -> Result<Duration> {
    let number = text.trim_end_matches("ms").trim_end();
    let millis: f64 = number.parse().context("not a number of milliseconds")?;
    Duration::try_from_secs_f64(millis / 1e3).context("no such time")
}

impl Options {
    fn attempts(&self) -> u64 {
        u64::from(self.processes) * u64::from(self.buyers) * u64::from(self.seats)
    }
}

/// Its name on the command line.
fn name(value: &impl ValueEnum) -> String {
    let name = value.to_possible_value().expect("none is skipped");
    name.get_name().to_owned()
}
