//! Deadlocks: each is found, and nobody is told of one where there is none. The cases are those of the
//! server's own isolation tests, with pglock on both drivers and SQL beside it.

#[macro_use]
#[path = "../conformance/backends.rs"]
#[allow(unused_macros)] // of all backends, those of other suites
mod backends;
#[path = "../conformance/harness.rs"]
#[allow(dead_code)] // some of it is for locks
mod harness;
#[path = "../support/oracle.rs"]
mod oracle;

mod hard;
mod index;
mod parties;
mod soft;

use std::time::Duration;

use harness::*;

/// After that a wait counts as one that never ends. Only a failing test waits so long.
pub const HANGS: Duration = Duration::from_secs(60);

macro_rules! deadlocks {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            hard::{
                two_of_which_one_is_a_section,
                two_of_which_one_wants_several,
                two_of_which_one_is_in_its_callers_transaction,
                two_of_which_one_begins_a_transaction,
                two_of_which_one_sends_a_message,
                three,
                eight,
                two_upgrades,
            }
            soft::{
                a_reader_behind_a_writer,
                two_readers_behind_two_writers,
                a_reader_behind_two_writers,
            }
            index::{
                an_index_whose_builder_holds_what_a_writer_wants,
                an_index_whose_builder_holds_what_others_wait_for,
            }
        }
    };
}

#[cfg(feature = "postgres")]
deadlocks!(postgres_client, crate::PostgresClient);
#[cfg(feature = "diesel")]
deadlocks!(diesel_connection, crate::DieselConnection);
#[cfg(all(feature = "r2d2", feature = "postgres"))]
deadlocks!(postgres_pool, crate::PostgresPool);
#[cfg(all(feature = "r2d2", feature = "diesel"))]
deadlocks!(diesel_pool, crate::DieselPool);
