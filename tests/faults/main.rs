//! Real faults at chosen points of a section: the connection is cut, the session terminated or cancelled,
//! the client killed.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "../support/oracle.rs"]
mod oracle;
#[cfg(feature = "postgres")]
#[path = "../support/line.rs"]
mod places;
#[path = "../support/proxy.rs"]
mod proxy;

mod backends;
#[cfg(feature = "postgres")]
mod cancels;
#[cfg(feature = "r2d2")]
mod hand_over;
mod held;
#[cfg(feature = "postgres")]
mod line;
mod processes;
mod section;
mod wire;
