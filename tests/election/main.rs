//! Elections: one leader at a time, whatever breaks.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "../support/bouncer.rs"]
mod bouncer;
#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/server.rs"]
mod server;

mod campaigns;
mod changes;
mod connections;
mod faults;
mod fencing;
mod fleet;
mod harness;
mod many;
mod succession;
mod terms;
mod tokens;
