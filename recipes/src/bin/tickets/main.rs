//! A shop for the seats of a theatre, as a web service: axum, a pool of diesel connections, and one
//! lock for each seat.
//!
//! ```sh
//! scripts/with-postgres cargo run -p recipes --bin tickets           # then open the page
//! scripts/with-postgres cargo run -p recipes --bin tickets -- --load # 50 buyers, and a tally
//! ```

mod load;
mod shop;
mod web;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use recipes::Schema;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use shop::Shop;

/// Sells the seats of a theatre on a web page.
#[derive(Debug, Parser)]
struct Options {
    /// Send buyers to it, print the tally, and end
    #[arg(long)]
    load: bool,
    /// Buyers for --load
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    buyers: u32,
    /// Seats of the theatre
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i32).range(1..=1000))]
    seats: i32,
    /// How long a payment takes, in milliseconds
    #[arg(long, default_value_t = 30)]
    payment: u64,
    /// The port of the page; 0 takes any free port
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Sell without a lock, so that seats are sold twice
    #[arg(long)]
    no_lock: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    // Contains a `postgres::Client`, which must stay outside the runtime.
    let mut schema = Schema::new("tickets")?;
    schema.client.batch_execute(&format!(
        "CREATE TABLE seat (name text PRIMARY KEY, buyer text);
         CREATE TABLE sale (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, seat text NOT NULL, buyer text NOT NULL);
         INSERT INTO seat SELECT chr(65 + n / 10 % 26) || (n / 260 * 10 + n % 10 + 1)
            FROM generate_series(0, {} - 1) AS n",
        options.seats
    ))?;
    let payment = Duration::from_millis(options.payment);
    let shop = Shop::new(&schema.url, payment, !options.no_lock)?;
    let runtime = Runtime::new()?;
    let listener = runtime
        .block_on(TcpListener::bind(("127.0.0.1", options.port)))
        .context("cannot listen")?;
    let address = format!("http://{}", listener.local_addr()?);
    println!("The theatre is at {address}");
    let server = web::serve(listener, Arc::new(shop));
    if !options.load {
        return runtime.block_on(server);
    }
    runtime.spawn(server);
    let tally = load::run(&address, options.buyers);
    runtime.shutdown_timeout(Duration::from_secs(1));
    tally?.check(&mut schema)
}
