//! The drivers: each is one module behind a feature of its own.

#[cfg(feature = "diesel")]
pub(crate) mod diesel;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "r2d2")]
pub(crate) mod r2d2;
