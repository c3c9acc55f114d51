//! `pglock kill`.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;

use postgres::{Client, NoTls};

use crate::oracle::{Oracle, wait_until};
use crate::process::{Running, assert_fails, pglock, stdout};
use crate::server::Server;
use crate::terminal::Terminal;
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

/// With a transaction's lock, too; and on a TCP connection.
#[test]
fn the_server_s_reason_reaches_the_holder() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = Server::new("cli-reason");
    server.configure(&format!("listen_addresses = '127.0.0.1'\nport = {port}\n"));
    server.start();
    let tcp = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let styles = ["SQL", "German", "Postgres", "ISO, DMY"];
    let socket = server.url_at(port);
    let ways = [&tcp, &socket].map(|url| ["session", "transaction"].map(|scope| (url, scope)));
    for ((url, scope), style) in ways.iter().flatten().zip(styles) {
        let script = "echo started; read -r _";
        let command = ["--", "sh", "-c", script];
        let run = ["--url", url, "run", "x", "--lease", "1h", "--scope", scope];
        let running = Running::of(&mut pglock(&[&run[..], &command].concat()));
        change_a_setting(url, style);
        stdout(&["--url", url, "kill", "x", "--yes"]);
        let (status, stderr) = running.end();
        assert_eq!(status.code(), Some(76), "{stderr}");
        let reason = "ending the command: terminating connection due to administrator command";
        assert!(stderr.contains(reason), "{url} {scope}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// The server tells all sessions of it unasked; the holder takes that for no end.
fn change_a_setting(url: &str, style: &str) {
    let mut client = Client::connect(url, NoTls).unwrap();
    let mut holder = || {
        let query = "SELECT state_change::text FROM pg_stat_activity JOIN pg_locks USING (pid) \
                     WHERE locktype = 'advisory' AND state LIKE 'idle%'";
        let row = client.query_opt(query, &[]).unwrap();
        row.map(|row| row.get::<_, String>(0))
    };
    // With so long a lease, it asks only once.
    let mut before = None;
    wait_until("the first question", || {
        let now = holder();
        let same = now.is_some() && now == before;
        before = now;
        same.then_some(())
    });
    let mut other = Client::connect(url, NoTls).unwrap();
    for change in [
        &format!("ALTER SYSTEM SET DateStyle = '{style}'"),
        "SELECT pg_reload_conf()",
    ] {
        other.batch_execute(change).unwrap();
    }
    wait_until("another question", || {
        holder().filter(|now| Some(now) != before.as_ref())
    });
}

#[test]
fn the_status_says_that_the_answer_was_no() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    for (answer, code, text) in [
        ("n\n", 1, "ended nothing"),
        ("\n", 1, "ended nothing"),
        ("y\n", 0, "end it?"),
    ] {
        let running = Running::start(&name, &[], "");
        let pid = oracle.holder(&key);
        let terminal = Terminal::new(80);
        let mut keys = File::from(terminal.keys.try_clone().unwrap());
        keys.write_all(answer.as_bytes()).unwrap();
        let output = pglock(&["kill", &name]).stdin(terminal.end()).output();
        let output = output.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{answer:?}: {stderr}");
        assert!(stderr.contains(text), "{answer:?}: {stderr}");
        if code == 0 {
            running.end();
        } else {
            assert_eq!(oracle.holder(&key), pid);
            drop(running);
            wait_until("the end of the lock", || {
                oracle.rows(&key).is_empty().then_some(())
            });
        }
    }
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
