//! Guests book stays of several nights: without a lock, with a lock on the whole room, and with a lock
//! on the nights.
//!
//! ```sh
//! scripts/with-postgres cargo run --example nights
//! ```

use std::ops::Range;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use pglock::{KeyRange, Lock, key};
use postgres::{Client, Config, NoTls};

/// Books stays of a few nights in a few rooms, and counts the nights that were booked twice.
///
/// The server is the one that DATABASE_URL names; scripts/with-postgres starts one.
#[derive(Debug, Parser)]
struct Options {
    /// Guests who book at the same time
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    guests: u32,
    /// Stays that each of them asks for
    #[arg(long, default_value_t = 25)]
    stays: u32,
    /// Rooms
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..))]
    rooms: i32,
    /// Nights of the season
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..))]
    nights: i64,
    /// How long a booking takes besides the database, in milliseconds
    #[arg(long, default_value_t = 20)]
    payment: u64,
}

/// What is locked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Strategy {
    Nothing,
    Room,
    Nights,
}

struct Season {
    strategy: Strategy,
    booked: i64,
    twice: i64,
    time: Duration,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let url = std::env::var("DATABASE_URL").ok().context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run --example nights",
    )?;
    let mut config: Config = url.parse().context("cannot read DATABASE_URL")?;
    let mut client = config.connect(NoTls).context("cannot connect")?;

    // While this connection lives, no other run has the same number, and so the same schema.
    let run: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let schema = format!("pglock_nights_{run}");
    client.batch_execute(&format!(
        "DROP SCHEMA IF EXISTS {schema} CASCADE; -- of a run that was killed
         CREATE SCHEMA {schema};
         SET search_path TO {schema};
         CREATE TABLE booking (room integer NOT NULL, night bigint NOT NULL)"
    ))?;
    config.options(&format!("-c search_path={schema}"));
    let seasons = [Strategy::Nothing, Strategy::Room, Strategy::Nights]
        .into_iter()
        .map(|strategy| season(&options, &config, &mut client, strategy))
        .collect::<Result<Vec<_>>>();
    let dropped = client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE"));
    let report = report(&options, &seasons?);
    dropped.context("cannot clean up")?;
    Ok(report)
}

fn season(
    options: &Options,
    config: &Config,
    client: &mut Client,
    strategy: Strategy,
) -> Result<Season> {
    client.batch_execute("TRUNCATE booking")?;
    let start = Instant::now();
    thread::scope(|scope| {
        let guests: Vec<_> = (0..options.guests)
            .map(|guest| scope.spawn(move || guest_books(options, config, guest, strategy)))
            .collect();
        guests
            .into_iter()
            .try_for_each(|guest| guest.join().expect("a guest panicked"))
    })?;
    let time = start.elapsed();
    let counts = "SELECT coalesce(sum(n), 0)::bigint, coalesce(sum(n - 1), 0)::bigint
        FROM (SELECT count(*) AS n FROM booking GROUP BY room, night) AS nights";
    let row = client.query_one(counts, &[])?;
    Ok(Season {
        strategy,
        booked: row.get(0),
        twice: row.get(1),
        time,
    })
}

fn guest_books(options: &Options, config: &Config, guest: u32, strategy: Strategy) -> Result<()> {
    let mut client = config.connect(NoTls)?;
    // The same wishes for every strategy.
    let mut random = u64::from(guest) + 1;
    for _ in 0..options.stays {
        let room = (next(&mut random) % options.rooms as u64) as i32;
        let arrival = (next(&mut random) % options.nights as u64) as i64;
        let stay = arrival..arrival + 1 + (next(&mut random) % 4) as i64;
        let book = |client: &mut Client| book(options, client, room, &stay);
        match strategy {
            Strategy::Nothing => book(&mut client)?,
            Strategy::Room => Lock::new(&mut client, key!("room:{room}")).run(book)?,
            Strategy::Nights => {
                Lock::new(
                    &mut client,
                    KeyRange::new(key!("room:{room}"), stay.clone()),
                )
                .run(book)?;
            }
        }
    }
    Ok(())
}

/// Only the lock keeps two guests from finding the same nights free.
fn book(options: &Options, client: &mut Client, room: i32, stay: &Range<i64>) -> Result<()> {
    let taken = "SELECT FROM booking WHERE room = $1 AND night >= $2 AND night < $3 LIMIT 1";
    let taken = client.query_opt(taken, &[&room, &stay.start, &stay.end])?;
    if taken.is_none() {
        thread::sleep(Duration::from_millis(options.payment));
        let book = "INSERT INTO booking SELECT $1, generate_series($2::bigint, $3::bigint - 1)";
        client.execute(book, &[&room, &stay.start, &stay.end])?;
    }
    Ok(())
}

/// Xorshift; never 0.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random >> 11
}

fn report(options: &Options, seasons: &[Season]) -> ExitCode {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["lock on", "nights booked", "booked twice", "time"]);
    for season in seasons {
        let on = match season.strategy {
            Strategy::Nothing => "nothing",
            Strategy::Room => "the room",
            Strategy::Nights => "the nights",
        };
        table.add_row([
            on.to_owned(),
            season.booked.to_string(),
            season.twice.to_string(),
            format!("{:.2} s", season.time.as_secs_f64()),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "Guests: {}. Each asked for {} stays of 1 to 4 nights, in {} rooms of {} nights.",
        options.guests, options.stays, options.rooms, options.nights
    );
    let mut locked = seasons
        .iter()
        .filter(|season| season.strategy != Strategy::Nothing);
    if locked.any(|season| season.twice > 0) {
        eprintln!("In spite of a lock, nights were booked twice: a bug.");
        return ExitCode::FAILURE;
    }
    println!("Under a lock, no night was booked twice.");
    ExitCode::SUCCESS
}
