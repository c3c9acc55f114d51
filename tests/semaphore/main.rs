//! Semaphores: each promise is written once and checked on every backend. The lists are as in the
//! conformance suite, whose backends these are.

#[path = "../conformance/harness.rs"]
#[allow(dead_code)] // some of it is for locks
mod harness;
#[path = "../support/oracle.rs"]
mod oracle;

mod sections;

use harness::*;

macro_rules! promises {
    ($backend:ident, $harness:ty: $($list:ident::{$($promise:ident,)*})*) => {
        mod $backend {
            $($(
                #[test]
                fn $promise() {
                    crate::$list::$promise::<$harness>();
                }
            )*)*
        }
    };
}

macro_rules! outside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            sections::{
                as_many_as_there_are_slots_are_let_in,
            }
        }
    };
}

macro_rules! inside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            sections::{
                a_transaction_of_the_callers_is_refused,
            }
        }
    };
}

#[cfg(feature = "postgres")]
mod postgres_crate {
    outside_a_transaction!(client, crate::PostgresClient);
    inside_a_transaction!(transaction, crate::PostgresTransaction);
}

#[cfg(feature = "diesel")]
mod diesel_crate {
    outside_a_transaction!(connection, crate::DieselConnection);
    inside_a_transaction!(transaction, crate::DieselTransaction);
}

#[cfg(all(feature = "r2d2", feature = "postgres"))]
mod postgres_pools {
    outside_a_transaction!(pool, crate::PostgresPool);
    outside_a_transaction!(pooled, crate::PostgresPooled);
    outside_a_transaction!(queued, crate::PostgresQueued);
}

#[cfg(all(feature = "r2d2", feature = "diesel"))]
mod diesel_pools {
    outside_a_transaction!(pool, crate::DieselPool);
    outside_a_transaction!(pooled, crate::DieselPooled);
    outside_a_transaction!(queued, crate::DieselQueued);
    inside_a_transaction!(pooled_transaction, crate::DieselPooledTransaction);
}

mod third_driver {
    outside_a_transaction!(connection, crate::ThirdConnection);
    inside_a_transaction!(transaction, crate::ThirdTransaction);
}
