//! A consumer of webhooks: each event is handled once, however often and wherever it is delivered, and the
//! events of one order are handled one after the other.
//!
//! ```sh
//! scripts/with-postgres cargo run -p recipes --bin webhook
//! ```
//!
//! Two servers get each event three times, all at once, from a sender that repeats what is not answered with
//! 200. One of the servers is killed in between.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing::post};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use pglock::{Lock, key};
use recipes::{Schema, start, url};
use schema::{event, purchase};
use tokio::task::spawn_blocking;

type Connections = Pool<ConnectionManager<PgConnection>>;

const EVENTS: i64 = 60;
const ORDERS: i64 = 4;
const DELIVERIES: usize = 3;
/// Threads that send the events of a delivery.
const SENDERS: usize = 7;

mod schema {
    diesel::table! {
        event (id) {
            id -> BigInt,
        }
    }

    diesel::table! {
        purchase (id) {
            id -> BigInt,
            paid -> BigInt,
        }
    }
}

/// Adds a payment to an order, once. The mark that the event was handled is committed together with the work.
fn handle(pool: &Connections, order: i64, id: i64, amount: i64) -> Result<StatusCode> {
    Lock::new(pool, key!("webhook:order:{order}"))
        .timeout(Duration::from_secs(2))
        .run_in_transaction_or_else(
            |conn| {
                let mark = diesel::insert_into(event::table).values(event::id.eq(id));
                if mark.on_conflict_do_nothing().execute(conn)? == 0 {
                    return Ok(StatusCode::OK); // it was handled before
                }
                let of_order = purchase::table.find(order);
                let paid: i64 = of_order.select(purchase::paid).first(conn)?;
                thread::sleep(Duration::from_millis(5)); // the work takes a moment
                let pay = diesel::update(of_order).set(purchase::paid.eq(paid + amount));
                pay.execute(conn)?;
                Ok(StatusCode::OK)
            },
            |_busy| Ok(StatusCode::SERVICE_UNAVAILABLE), // the sender comes again
        )
}

async fn receive(
    State(pool): State<Connections>,
    Path((order, id, amount)): Path<(i64, i64, i64)>,
) -> StatusCode {
    // pglock blocks, and so does diesel.
    let failed = |error: anyhow::Error| {
        eprintln!("{error:#}");
        StatusCode::INTERNAL_SERVER_ERROR
    };
    match spawn_blocking(move || handle(&pool, order, id, amount)).await {
        Ok(handled) => handled.unwrap_or_else(failed),
        Err(panicked) => failed(panicked.into()),
    }
}

fn serve() -> Result<()> {
    let pool = Pool::builder().max_size(8);
    let pool = pool.build(ConnectionManager::new(url()?))?;
    let route = post(receive);
    let routes = Router::new().route("/orders/{order}/events/{id}/{amount}", route);
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("http://{}", listener.local_addr()?);
        Ok(axum::serve(listener, routes.with_state(pool)).await?)
    })
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(schema: &Schema) -> Result<Self> {
        let mut process = start(schema, &["serve"])?;
        let mut address = String::new();
        let stdout = process.stdout.take().context("it has no output")?;
        BufReader::new(stdout).read_line(&mut address)?;
        let address = address.trim().to_owned();
        Ok(Self { process, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Delivers an event until a server says that it was handled.
fn deliver(servers: &Mutex<[Server; 2]>, id: i64, to: usize) -> Result<()> {
    for attempt in to..to + 200 {
        let address = {
            let servers = servers.lock().expect("nobody panics with it");
            servers[attempt % 2].address.clone()
        };
        let event = format!("{address}/orders/{}/events/{id}/{id}", id % ORDERS);
        if ureq::post(event).send_empty().is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("event {id} was never handled")
}

fn main() -> Result<()> {
    if std::env::args().nth(1).is_some() {
        return serve();
    }
    let mut schema = Schema::new("webhook")?;
    schema.client.batch_execute(&format!(
        "CREATE TABLE event (id bigint PRIMARY KEY);
         CREATE TABLE purchase (id bigint PRIMARY KEY, paid bigint NOT NULL);
         INSERT INTO purchase SELECT n, 0 FROM generate_series(0, {ORDERS} - 1) AS n"
    ))?;
    let servers = Mutex::new([Server::start(&schema)?, Server::start(&schema)?]);
    thread::scope(|threads| {
        let servers = &servers;
        let senders: Vec<_> = (0..DELIVERIES * SENDERS)
            .map(|number| {
                let mut events = (1..=EVENTS).skip(number % SENDERS).step_by(SENDERS);
                threads.spawn(move || events.try_for_each(|id| deliver(servers, id, number)))
            })
            .collect();
        while schema.number("SELECT count(*) FROM event")? < EVENTS / 2 {
            thread::sleep(Duration::from_millis(5));
        }
        servers.lock().expect("nobody panics with it")[0] = Server::start(&schema)?; // the first is killed
        for sender in senders {
            sender.join().expect("a sender panicked")?;
        }
        anyhow::Ok(())
    })?;
    let (handled, paid) = (
        schema.number("SELECT count(*) FROM event")?,
        schema.number("SELECT sum(paid)::bigint FROM purchase")?,
    );
    println!("{EVENTS} events, each delivered {DELIVERIES} times: {handled} handled, {paid} paid");
    ensure!(
        (handled, paid) == (EVENTS, EVENTS * (EVENTS + 1) / 2),
        "some were handled twice, or not at all"
    );
    Ok(())
}
