//! What a program can do.

use std::time::Duration;

use pglock::{Mode, Scope};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Few, so that they collide.
pub const KEYS: i32 = 3;

/// How a call waits for its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the end; for a millisecond, if the wait would never end.
    Wait,
    /// The same, keeping the place in the server's queue.
    KeepPlace,
    /// `try_…`.
    Try,
    /// With a timeout: 0 is one attempt.
    Timeout(Duration),
}

/// A lock to be acquired.
#[derive(Debug, Clone)]
pub struct Spec {
    pub keys: Vec<i32>,
    pub mode: Mode,
    pub scope: Option<Scope>,
    pub way: Way,
}

/// What runs under a lock or in a transaction.
#[derive(Debug, Clone)]
pub struct Block {
    pub steps: Vec<Step>,
    pub ending: Ending,
}

/// How a block ends.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Ok,
    /// With an error, which passes through that many more calls.
    Err(u8),
    Panic,
}

/// What is done with a guard.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Downgrade,
    Upgrade,
    IsHeld,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// `run` or `try_run`.
    Section(Spec, Block),
    /// `run_in_transaction` or `try_run_in_transaction`, with `rollback_on_error`.
    Transact(Spec, bool, Block),
    /// A guard: changes before and after what runs under it, then `release` or drop.
    Guard(Spec, Vec<Change>, Block, Vec<Change>, bool),
    /// `batch_execute` or `try_batch_execute`, with a text that fails or not.
    OneMessage(Spec, bool),
    /// The driver's own transaction, or savepoint in one.
    Nest(Block),
    /// A row is written.
    Write,
    /// A statement that fails.
    SqlError,
    /// A BEGIN that the driver does not know of, and a query.
    RawBegin,
    /// COMMIT or ROLLBACK of such a transaction.
    RawEnd(bool),
    /// `pg_advisory_unlock_all()` behind pglock's back.
    GiveAway,
    /// The other connection takes a key, if it can.
    RivalTakes(i32, Mode),
    /// The other connection releases all that it holds.
    RivalReleases,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..7)
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        3 => (spec(), prop::bool::weighted(0.3)).prop_map(|(spec, fails)| Step::OneMessage(spec, fails)),
        3 => Just(Step::Write),
        1 => Just(Step::SqlError),
        1 => Just(Step::RawBegin),
        1 => any::<bool>().prop_map(Step::RawEnd),
        1 => Just(Step::GiveAway),
        4 => (0..KEYS, mode()).prop_map(|(key, mode)| Step::RivalTakes(key, mode)),
        2 => Just(Step::RivalReleases),
    ];
    leaf.prop_recursive(4, 24, 4, |step| {
        let block = (vec(step, 0..4), ending()).prop_map(|(steps, ending)| Block { steps, ending });
        let block = block.boxed();
        let changes = || vec(select(vec![Change::Downgrade, Change::Upgrade, Change::IsHeld]), 0..3);
        prop_oneof![
            4 => (spec(), block.clone()).prop_map(|(spec, block)| Step::Section(spec, block)),
            3 => (spec(), prop::bool::weighted(0.8), block.clone())
                .prop_map(|(spec, rollback, block)| Step::Transact(spec, rollback, block)),
            4 => (spec(), changes(), block.clone(), changes(), any::<bool>())
                .prop_map(|(spec, before, block, after, release)| Step::Guard(spec, before, block, after, release)),
            3 => block.prop_map(Step::Nest),
        ]
    })
}

fn spec() -> impl Strategy<Value = Spec> {
    let way = prop_oneof![
        4 => Just(Way::Wait),
        1 => Just(Way::KeepPlace),
        2 => Just(Way::Try),
        1 => select(vec![0, 1, 5]).prop_map(|millis| Way::Timeout(Duration::from_millis(millis))),
    ];
    let scope = option::weighted(0.15, select(vec![Scope::Session, Scope::Transaction]));
    let spec = (vec(0..KEYS, 1..4), mode(), scope, way);
    spec.prop_map(|(keys, mode, scope, way)| Spec {
        keys,
        mode,
        scope,
        way,
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Exclusive, Mode::Shared])
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        6 => Just(Ending::Ok),
        3 => (0..3_u8).prop_map(Ending::Err),
        1 => Just(Ending::Panic),
    ]
}
