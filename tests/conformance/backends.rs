//! The backends on which each promise of a suite is checked.

/// A test for each promise, on one backend: `backend::promise`.
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

/// Calls the two macros of a suite, each of which takes a name and a harness, for every backend: one for
/// those outside a transaction, one for those in a transaction of the caller's.
///
/// `postgres::Client` is never inside one, `postgres::Transaction` is never outside one, and a pool
/// hands out connections that are outside.
macro_rules! on_every_backend {
    ($outside:ident, $inside:ident) => {
        #[cfg(feature = "postgres")]
        mod postgres_crate {
            $outside!(client, crate::PostgresClient);
            $inside!(transaction, crate::PostgresTransaction);
        }

        #[cfg(feature = "diesel")]
        mod diesel_crate {
            $outside!(connection, crate::DieselConnection);
            $inside!(transaction, crate::DieselTransaction);
        }

        #[cfg(all(feature = "r2d2", feature = "postgres"))]
        mod postgres_pools {
            $outside!(pool, crate::PostgresPool);
            $outside!(pooled, crate::PostgresPooled);
            $outside!(queued, crate::PostgresQueued);
        }

        #[cfg(all(feature = "r2d2", feature = "diesel"))]
        mod diesel_pools {
            $outside!(pool, crate::DieselPool);
            $outside!(pooled, crate::DieselPooled);
            $outside!(queued, crate::DieselQueued);
            $inside!(pooled_transaction, crate::DieselPooledTransaction);
        }
    };
}
