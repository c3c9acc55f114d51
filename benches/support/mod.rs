//! What the benches share: variants that take turns, drivers as used without pglock, and tables of
//! results.

#![allow(dead_code)] // no bench uses all of it

pub mod by_hand;
#[path = "../../tests/support/proxy.rs"]
pub mod proxy;
pub mod server;
pub mod table;

use std::time::Instant;

use pglock::driver::Session;
use r2d2::{ManageConnection, Pool};
use server::Cpu;

pub const KEY: i64 = 7_152_069_305_793_108_309;

/// Whether this is `cargo bench`. With `cargo test --benches`, everything only has to run once.
pub fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A piece of code that runs on what all variants share.
pub struct Variant<C> {
    pub name: &'static str,
    pub run: Box<dyn FnMut(&mut C)>,
}

pub fn variant<C>(name: &'static str, run: impl FnMut(&mut C) + 'static) -> Variant<C> {
    Variant {
        name,
        run: Box::new(run),
    }
}

/// The times of each variant, round by round, in microseconds.
///
/// A machine's speed drifts, so the variants take turns in short rounds, and rounds are compared. Their
/// order changes from round to round, since what ran before has an influence.
pub fn take_turns<C>(
    variants: &mut [Variant<C>],
    context: &mut C,
    rounds: usize,
    repeat: u32,
) -> Vec<Vec<f64>> {
    take_turns_by(variants, context, rounds, repeat, |work| {
        let start = Instant::now();
        work();
        Some(start.elapsed().as_secs_f64() * 1e6)
    })
}

/// The same in what a session costs the server. `None` where that does not show.
pub fn server_cpu<C>(
    variants: &mut [Variant<C>],
    context: &mut C,
    cpu: Option<&Cpu>,
    (rounds, repeat): (usize, u32),
) -> Option<Vec<Vec<f64>>> {
    let cpu = cpu?;
    let costs = take_turns_by(variants, context, rounds, repeat, |work| {
        let before = cpu.micros()?;
        work();
        Some(cpu.micros()? - before)
    });
    Some(costs)
}

fn take_turns_by<C>(
    variants: &mut [Variant<C>],
    context: &mut C,
    rounds: usize,
    repeat: u32,
    measure: impl Fn(&mut dyn FnMut()) -> Option<f64>,
) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(rounds); variants.len()];
    let mut order: Vec<usize> = (0..variants.len()).collect();
    let mut random = 1_u32;
    for _ in 0..rounds {
        for end in (1..order.len()).rev() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            order.swap(end, (random >> 16) as usize % (end + 1));
        }
        for &index in &order {
            let run = &mut variants[index].run;
            let cost = measure(&mut || {
                for _ in 0..repeat {
                    run(context);
                }
            });
            times[index].extend(cost.map(|cost| cost / f64::from(repeat)));
        }
    }
    times
}

/// How many times as long as the other one takes, in the median over the rounds.
pub fn ratio(times: &[f64], other: &[f64]) -> f64 {
    median(times.iter().zip(other).map(|(time, other)| time / other))
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a ratio beside what it should be.
pub fn verdict(what: &str, ratio: f64, bound: Bound) {
    let (kept, bound) = match bound {
        Bound::AtMost(limit) => (ratio <= limit, format!("at most {limit:.2}")),
        Bound::AtLeast(limit) => (ratio >= limit, format!("at least {limit:.2}")),
    };
    let word = if kept { "ok" } else { "MISSED" };
    println!("{what}: {ratio:.3}, {bound}: {word}");
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A pool as fast as r2d2 can be: by default it spends a round trip on testing each connection that it
/// hands out.
pub fn pool<M>(manager: M, size: usize) -> Pool<M>
where
    M: ManageConnection<Connection: Session>,
{
    Pool::builder()
        .max_size(u32::try_from(size).expect("a few threads"))
        .min_idle(Some(0))
        .test_on_check_out(false)
        .build(manager)
        .expect("a pool")
}
