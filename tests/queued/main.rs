//! Queued pools: the promises beyond the conformance suite, which also runs on them. Two queued pools
//! know nothing of each other, so they can replace two processes.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/timeouts.rs"]
mod timeouts;

mod handing_over;
mod nesting;
mod processes;
mod sharing;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pglock::driver::Session;
use pglock::{Error, QueuedPool};
use r2d2::event::CheckoutEvent;
use r2d2::{HandleEvent, ManageConnection, Pool};

/// Calls a function with a maker of managers, for each driver.
macro_rules! with_each_driver {
    ($module:ident: $($test:ident,)*) => {
        $(mod $test {
            #[cfg(feature = "postgres")]
            #[test]
            fn postgres() {
                crate::$module::$test(crate::postgres_manager);
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn diesel() {
                crate::$module::$test(crate::diesel_manager);
            }
        })*
    };
}

with_each_driver! { handing_over:
    threads_are_served_in_the_order_in_which_they_came,
    a_hand_over_is_one_message,
    what_did_not_end_well_is_not_handed_over,
    what_was_lost_is_told_and_not_handed_over,
    several_keys_are_handed_over_together,
    a_guard_is_handed_over_from_another_thread,
    a_lock_that_is_not_taken_over_does_not_go_back_to_the_pool,
}

with_each_driver! { waiting:
    a_contended_key_takes_one_connection,
    who_gives_up_leaves_the_queue,
    no_connection_to_be_had_is_told_to_each,
    other_keys_get_a_connection_of_a_busy_ones,
    shared_locks_do_not_queue,
    transactions_queue_and_hand_nothing_over,
}

with_each_driver! { nesting:
    a_key_does_not_nest_through_the_pool,
    what_overlaps_does_not_nest_either,
    a_shared_lock_does_not_nest_behind_an_exclusive_one,
    what_is_not_self_conflicting_does_not_queue,
}

with_each_driver! { sharing:
    two_pools_take_turns,
    a_waiter_at_the_server_gets_its_turn,
    sections_never_overlap_whatever_happens_in_them,
}

#[cfg(feature = "postgres")]
fn postgres_manager() -> r2d2_postgres::PostgresConnectionManager<postgres::NoTls> {
    let config = oracle::url().parse().unwrap();
    r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls)
}

#[cfg(feature = "diesel")]
fn diesel_manager() -> diesel::r2d2::ConnectionManager<diesel::PgConnection> {
    diesel::r2d2::ConnectionManager::new(oracle::url())
}

/// A queued pool, and how many connections it was asked for.
fn queued<M: ManageConnection>(manager: M, size: u32) -> (QueuedPool<M>, Checkouts) {
    let checkouts = Checkouts::default();
    let pool = Pool::builder()
        .max_size(size)
        .min_idle(Some(0))
        .event_handler(Box::new(checkouts.clone()))
        .build(manager)
        .unwrap();
    (QueuedPool::new(pool), checkouts)
}

#[derive(Debug, Clone, Default)]
struct Checkouts(Arc<AtomicU32>);

impl Checkouts {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl HandleEvent for Checkouts {
    fn handle_checkout(&self, _: CheckoutEvent) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn wait_for_waiting<M: ManageConnection>(pool: &QueuedPool<M>, count: usize) {
    let start = Instant::now();
    while pool.waiting() != count {
        assert!(start.elapsed() < Duration::from_secs(30), "{pool:?}");
        std::thread::sleep(Duration::from_millis(1)); // between two looks
    }
}

fn never<S: ?Sized>(_: &mut S) -> Result<(), Error> {
    panic!("the body must not run")
}

/// The value of an expression, as text.
fn ask<S: Session>(session: &mut S, expression: &str) -> Result<String, Error> {
    let query = format!("SELECT ({expression})::text AS line");
    let lines = session.query(&query);
    Ok(lines
        .map_err(|failure| Error::body(format!("{failure:?}")))?
        .remove(0))
}

/// How many transactions, and so messages, a session has run. (The second number of a virtual
/// transaction ID counts them.)
fn messages<S: Session>(session: &mut S) -> Result<u32, Error> {
    let count = ask(
        session,
        "SELECT split_part(virtualtransaction, '/', 2) FROM pg_locks \
         WHERE pid = pg_backend_pid() AND locktype = 'virtualxid'",
    )?;
    Ok(count.parse().unwrap())
}

fn send<S: Session>(session: &mut S, sql: &str) -> Result<(), Error> {
    session
        .send(sql)
        .map_err(|failure| Error::body(format!("{failure:?}")))
}
