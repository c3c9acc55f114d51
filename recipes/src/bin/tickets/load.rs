//! Many buyers who want the same seats by HTTP, and the answers they got.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use recipes::Schema;
use serde_json::Value;
use ureq::Agent;

/// How often the buyers got which answer.
#[derive(Debug, Default)]
pub struct Tally {
    sold: i64,
    taken: u64,
    busy: u64,
    named: u64,
    time: Duration,
}

pub fn run(address: &str, buyers: u32) -> Result<Tally> {
    let start = Instant::now();
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    let tallies = thread::scope(|scope| {
        let agent = &agent;
        let buyers: Vec<_> = (1..=buyers)
            .map(|buyer| scope.spawn(move || buy(agent, address, &format!("buyer {buyer}"))))
            .collect();
        let join = |buyer: thread::ScopedJoinHandle<'_, _>| buyer.join().expect("a buyer panicked");
        buyers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok(tallies.into_iter().fold(
        Tally {
            time: start.elapsed(),
            ..Tally::default()
        },
        |sum, one| Tally {
            sold: sum.sold + one.sold,
            taken: sum.taken + one.taken,
            busy: sum.busy + one.busy,
            named: sum.named + one.named,
            ..sum
        },
    ))
}

/// Tries to buy one free seat after another, until none is left.
fn buy(agent: &Agent, address: &str, me: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let seats = agent.get(format!("{address}/seats")).call()?;
        let seats: Vec<Value> = seats.into_body().read_json()?;
        let free: Vec<_> = seats
            .iter()
            .filter(|seat| seat["buyer"].is_null())
            .collect();
        if free.is_empty() {
            return Ok(tally);
        }
        let any = RandomState::new().hash_one(me) as usize % free.len();
        let seat = free[any]["name"].as_str().context("a seat has a name")?;
        let path = format!("{address}/seats/{seat}/{}", me.replace(' ', "%20"));
        let answer = agent.post(path).send_empty()?;
        match answer.status().as_u16() {
            200 => tally.sold += 1,
            410 => tally.taken += 1,
            409 => {
                tally.busy += 1;
                let body: Value = answer.into_body().read_json()?;
                if let Some(holder) = body["holder"].as_str() {
                    ensure!(holder != me, "{me} keeps {seat} from {me}");
                    tally.named += 1;
                }
            }
            status => bail!("the shop answers with {status}"),
        }
    }
}

impl Tally {
    /// Prints it, and compares it with the database.
    pub fn check(self, schema: &mut Schema) -> Result<()> {
        let Self {
            sold,
            taken,
            busy,
            named,
            time,
        } = self;
        let seats = schema.number("SELECT count(*) FROM seat")?;
        let sales = schema.number("SELECT count(*) FROM sale")?;
        let distinct = schema.number("SELECT count(DISTINCT seat) FROM sale")?;
        println!(
            "{sales} sales of {seats} seats in {:.2} s\n\
             200, sold: {sold}. 410, taken: {taken}. 409, busy: {busy}, with the holder's name {named} times.",
            time.as_secs_f64()
        );
        let twice = sales - distinct;
        ensure!(twice == 0, "seats were sold again, {twice} times");
        ensure!(
            distinct == seats,
            "only {distinct} of {seats} seats were sold"
        );
        // Somebody may have bought some of them on the page.
        let theirs = schema.number("SELECT count(*) FROM sale WHERE buyer LIKE 'buyer %'")?;
        ensure!(
            sold == theirs,
            "the shop confirmed {sold} sales to buyers, but made {theirs}"
        );
        println!("no seat was sold twice");
        Ok(())
    }
}
