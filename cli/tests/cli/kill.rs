//! `pglock kill`.

use postgres::{Client, NoTls};

use crate::oracle::{Oracle, wait_until};
use crate::process::{Running, assert_fails, stdout};
use crate::server::Server;
use crate::unique;

#[test]
fn a_holder_is_ended_only_when_that_was_meant() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &[], "");
    let pid = oracle.holder(&key);
    assert_fails(&["kill", &name], 64, &format!("held by pid {pid}"));
    // It is idle: there is nothing to cancel.
    stdout(&["kill", &name, "--cancel", "--yes"]);
    assert_eq!(oracle.holder(&key), pid);
    assert!(stdout(&["kill", &name, "--yes"]).starts_with(&format!("ended pid {pid} ")));
    assert_eq!(running.end().0.code(), Some(76));
    oracle.assert_free(&key);
}

#[test]
fn a_prepared_transaction_is_ended_by_its_name() {
    let server = Server::new("cli-prepared");
    server.configure("max_prepared_transactions = 2\n");
    server.start();
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let prepare = "BEGIN; SELECT pg_advisory_xact_lock_shared(5); PREPARE TRANSACTION 'it''s mine'";
    client.batch_execute(prepare).unwrap();
    let url = server.url();
    let kill = ["--url", &url, "kill", "--int", "5"];
    let advice = "ROLLBACK PREPARED 'it''s mine'";
    assert_fails(&kill, 69, advice);
    assert_fails(&[&kill[..], &["--cancel", "--yes"]].concat(), 69, advice);

    // A session that shares the lock is still ended.
    let share = "SELECT pg_advisory_lock_shared(5)";
    let mut other = Client::connect(&url, NoTls).unwrap();
    other.batch_execute(share).unwrap();
    assert_fails(&[&kill[..], &["--yes"]].concat(), 69, advice);
    let held = "SELECT FROM pg_locks WHERE locktype = 'advisory'";
    wait_until("the end of the session", || {
        (client.query(held, &[]).unwrap().len() == 1).then_some(())
    });

    // It survives a restart of the server, under another number.
    server.stop();
    server.start();
    assert_fails(&kill, 69, advice);
    let mut client = Client::connect(&url, NoTls).unwrap();
    client.batch_execute(advice).unwrap();
    assert_fails(&kill, 1, "nobody holds 5");
}
