//! The command `pglock`, as a process.

#[path = "../../../tests/support/bouncer.rs"]
mod bouncer;
#[path = "../../../tests/support/oracle.rs"]
mod oracle;
#[path = "../support/pgpool.rs"]
mod pgpool;
#[path = "../support/process.rs"]
mod process;
#[path = "../../../tests/support/proxy.rs"]
mod proxy;
#[path = "../../../tests/support/server.rs"]
mod server;
#[path = "../support/terminal.rs"]
mod terminal;

mod away;
#[cfg(target_os = "linux")]
mod descendants;
mod doctor;
mod errors;
mod hostile;
#[cfg(target_os = "linux")]
mod init;
mod input;
mod kill;
mod lease;
mod look;
mod lost;
mod man;
mod names;
mod output;
mod report;
mod routing;
mod run;
mod shown;
mod slots;
mod tree;

use oracle::unique_name;
use pglock::Key;

/// A name that only this test uses, and its key.
fn unique() -> (String, Key) {
    let name = unique_name("cli");
    let key = Key::from(&name);
    (name, key)
}
