//! `pglock run` when the lock, or pglock itself, is lost.

use std::collections::BTreeSet;

use postgres::{Client, NoTls};
use rustix::process::Signal;

use crate::oracle::{Oracle, wait_until};
use crate::process::{Running, assert_fails, pglock};
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
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &["--scope", "transaction"], "trap 'exit 0' TERM");
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
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

/// A server whose `pg_locks` somebody else has locked: checks of a transaction lock hang.
struct Hanging {
    locker: Client,
    /// Not in a transaction, which would show all sessions as they were at its first look.
    client: Client,
    server: Server,
}

impl Hanging {
    fn start(name: &str) -> Self {
        let server = Server::new(name);
        server.start();
        let [locker, client] = [(); 2].map(|()| Client::connect(&server.url(), NoTls).unwrap());
        Self {
            locker,
            client,
            server,
        }
    }

    fn hang(&mut self) {
        // A transaction that has asked already would keep it for ever.
        let lock = "SET lock_timeout = '30s'; BEGIN; LOCK TABLE pg_catalog.pg_locks IN ACCESS EXCLUSIVE MODE";
        self.locker.batch_execute(lock).unwrap();
    }

    fn go_on(&mut self) {
        self.locker.batch_execute("ROLLBACK").unwrap();
    }

    /// The session whose check has hung for that long, and since when.
    fn check(&mut self, for_ms: i32) -> Option<(i32, String)> {
        let query = format!(
            "SELECT pid, query_start::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
             AND clock_timestamp() - query_start >= {for_ms} * interval '1ms'"
        );
        let row = self.client.query_opt(&query, &[]).unwrap();
        row.map(|row| (row.get(0), row.get(1)))
    }
}

#[test]
fn a_check_that_is_cancelled_is_no_lost_lock() {
    let mut hanging = Hanging::start("cli-cancel");
    let url = hanging.server.url();
    {
        let scope = "transaction";
        let options = [
            "--url", &url, "--lease", "6s", "--grace", "1ms", "--scope", scope,
        ];
        let mut running = Running::start("x", &options, "");
        hanging.hang();
        let (pid, first) = wait_until("a check", || hanging.check(0));
        let cancel = "SELECT pg_cancel_backend($1)";
        hanging.client.execute(cancel, &[&pid]).unwrap();
        wait_until("another check", || {
            hanging.check(0).filter(|(_, since)| *since != first)
        });
        hanging.go_on();
        running.0.stdin.take();
        let (status, stderr) = running.end();
        assert_eq!(status.code(), Some(1), "{scope}: {stderr}");
        assert!(stderr.contains("canceled"), "{scope}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{scope}: {stderr}");
    }
}

#[test]
fn a_server_that_does_not_answer_in_time_ends_the_command() {
    let mut hanging = Hanging::start("cli-slow");
    let url = hanging.server.url();
    let options = ["--url", &url, "--lease", "6s", "--scope", "transaction"];
    let running = Running::start("x", &options, "trap 'exit 0' TERM");
    hanging.hang();
    let (status, stderr) = running.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
    assert!(stderr.contains("silent"), "{stderr}");
    hanging.go_on();
}

#[test]
fn a_statement_timeout_does_not_cancel_a_check() {
    let mut hanging = Hanging::start("cli-statement");
    let url = hanging.server.url();
    {
        let scope = "transaction";
        let options = [
            "run", "--url", &url, "--lease", "6s", "--grace", "1ms", "--scope", scope,
        ];
        let command = ["x", "--", "sh", "-c", "echo started; read -r _"];
        let mut command = pglock(&[&options[..], &command].concat());
        command.env("PGOPTIONS", "-c statement_timeout=300ms");
        let mut running = Running::of(&mut command);
        hanging.hang();
        wait_until("a check of 600 ms", || hanging.check(600));
        hanging.go_on();
        running.0.stdin.take();
        let (status, stderr) = running.end();
        let ended = (status.code(), stderr.as_str());
        assert_eq!(ended, (Some(1), ""), "{scope}");
    }
}

#[test]
fn a_check_that_may_not_be_asked_is_no_lost_lock() {
    let server = Server::new("cli-rights");
    server.start();
    let revoke = "REVOKE EXECUTE ON FUNCTION pg_try_advisory_xact_lock(bigint) FROM PUBLIC; \
                  CREATE ROLE app LOGIN";
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client.batch_execute(revoke).unwrap();
    let url = server.url().replace("postgres@", "app@");
    let mut running = Running::start("x", &["--url", &url, "--lease", "1s"], "");
    // Where it may not ask for the lock, it asks for the session.
    let query = "SELECT query_start::text FROM pg_stat_activity WHERE query LIKE '%/*pglock held %' \
                 AND query LIKE '%pg_backend_pid()%' AND pid <> pg_backend_pid()";
    let mut questions = BTreeSet::new();
    wait_until("several checks", || {
        let row = client.query_opt(query, &[]).unwrap();
        questions.extend(row.map(|row| row.get::<_, String>(0)));
        (questions.len() == 4).then_some(())
    });
    running.0.stdin.take();
    assert_eq!(running.end().0.code(), Some(1));
}
