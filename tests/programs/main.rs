//! Random programs over one connection, beside another that contends: after each step, `pg_locks` shows
//! a third connection exactly what a model says is held.
//!
//! A program is a tree of sections, transactions, guards, savepoints, errors and raw statements, which
//! proptest shrinks when one fails. The full number takes some minutes:
//!
//! ```text
//! PGLOCK_PROGRAMS=10000 scripts/with-postgres cargo test --all-features --test programs
//! ```

#[path = "../support/oracle.rs"]
mod oracle;

mod calls;
mod drivers;
mod guards;
mod model;
mod program;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use drivers::Connection;
use program::Step;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use world::{Mismatch, World};

/// How many programs each driver runs.
fn programs() -> u32 {
    std::env::var("PGLOCK_PROGRAMS").map_or(300, |number| number.parse().unwrap())
}

/// Runs all programs on one connection, and takes a new one after each failed program.
fn run_programs<C: Connection + 'static>(connect: impl Fn() -> C) {
    let config = ProptestConfig {
        cases: programs(),
        max_shrink_iters: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sessions = RefCell::new(None);
    let outcome = TestRunner::new(config).run(&program::steps(), |steps| {
        let (mut connection, mut world) = sessions.take().unwrap_or_else(|| {
            let mut connection = connect();
            let world = World::around(&mut connection);
            (connection, world)
        });
        run(&mut connection, &mut world, &steps).map_err(TestCaseError::fail)?;
        sessions.replace(Some((connection, world)));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, program)) => panic!("{why}\nthe program: {program:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

fn run<C: Connection>(connection: &mut C, world: &mut World, steps: &[Step]) -> Result<(), String> {
    let ran = catch_unwind(AssertUnwindSafe(|| world.run_program(connection, steps)));
    ran.map_err(|panic| match panic.downcast::<Mismatch>() {
        Ok(mismatch) => mismatch.0,
        Err(other) => resume_unwind(other),
    })
}

#[test]
fn programs_hold_what_they_must_on_postgres() {
    run_programs(oracle::connect);
}

#[test]
fn programs_hold_what_they_must_on_diesel() {
    use diesel::connection::Connection;
    run_programs(|| diesel::PgConnection::establish(&oracle::url()).unwrap());
}
