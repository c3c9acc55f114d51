//! Semaphores: each promise is written once and checked on every backend. The lists are as in the
//! conformance suite, and so are the backends.

#[macro_use]
#[path = "../conformance/backends.rs"]
mod backends;
#[path = "../conformance/harness.rs"]
#[allow(dead_code)] // some of it is for locks
mod harness;
#[path = "../support/oracle.rs"]
mod oracle;

mod faults;
#[cfg(any(feature = "postgres", feature = "diesel"))]
mod model;
mod refusals;
mod sections;
mod waiting;

use harness::*;

macro_rules! outside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            sections::{
                as_many_as_there_are_slots_are_let_in,
                each_permit_is_another_slot,
                another_database_has_slots_of_its_own,
                an_error_or_a_panic_gives_the_slot_back,
                what_a_body_breaks_is_told,
                a_transaction_runs_under_a_slot,
                a_transaction_runs_under_a_slot_on_any_session,
                two_numbers_of_slots_never_let_in_more_than_the_greater,
                nothing_else_is_touched,
            }
            refusals::{
                no_slots_and_too_many_are_told,
                a_raw_transaction_is_refused,
                a_session_that_holds_a_slot_for_another_process_is_refused,
            }
            waiting::{
                who_waits_is_let_in_by_a_release,
                a_long_wait_ends_with_a_slot,
                an_index_is_built_concurrently_under_a_wait,
                those_who_wait_are_let_in_as_they_came,
                nobody_overtakes_who_waits,
                a_timeout_names_the_holders_and_leaves_nothing,
                a_token_ends_the_wait,
                the_sessions_own_lock_timeout_ends_the_wait,
                a_wait_for_oneself_is_told,
                a_deadlock_with_all_holders_is_told,
            }
            faults::{
                a_cancel_takes_all_or_nothing,
                a_session_that_ends_is_in_nobodys_way,
            }
        }
    };
}

macro_rules! inside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            refusals::{
                a_transaction_of_the_callers_is_refused,
            }
        }
    };
}

on_every_backend!(outside_a_transaction, inside_a_transaction);

mod third_driver {
    outside_a_transaction!(connection, crate::ThirdConnection);
    inside_a_transaction!(transaction, crate::ThirdTransaction);
}
