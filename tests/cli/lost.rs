//! `pglock run` when the lock is lost, or pglock is.

use rustix::process::Signal;

use crate::oracle::{Oracle, wait_until};
use crate::process::{Running, assert_fails};
use crate::server::Server;
use crate::unique;

#[test]
fn a_lost_lock_ends_the_command() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &[], "trap 'exit 0' TERM");
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
    let (status, stderr) = running.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
    assert!(stderr.contains("was lost, ending the command"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    // A command that does not heed TERM.
    let running = Running::start(&name, &["--grace", "100ms"], "trap '' TERM");
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
    let (status, stderr) = running.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
}

#[test]
fn a_transaction_that_the_server_ends_ends_the_command() {
    let server = Server::new("cli-idle");
    server.configure("idle_in_transaction_session_timeout = '300ms'\n");
    server.start();
    let url = server.url();
    let options = ["--url", &url, "--scope", "transaction"];
    let running = Running::start("x", &options, "");
    let (status, stderr) = running.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
}

#[test]
fn a_server_that_stops_ends_the_command() {
    let server = Server::new("cli-stop");
    server.start();
    let url = server.url();
    let running = Running::start("x", &["--url", &url], "");
    drop(server);
    let (status, stderr) = running.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
    assert_fails(&["--url", &url, "ls"], 69, "pglock: connection to server");
}

#[test]
#[cfg(target_os = "linux")]
fn a_pglock_that_is_killed_takes_its_command_with_it() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let mut running = Running::start(&name, &[], "trap 'echo told; exit' TERM");
    running.signal(Signal::KILL);
    assert_eq!(running.line(), "told");
    wait_until("the end of the lock", || {
        oracle.rows(&key).is_empty().then_some(())
    });
}
