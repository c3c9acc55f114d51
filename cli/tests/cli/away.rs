//! `pglock run` when the server is away or silent before the command runs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::mpsc;

use pglock::Key;
use postgres::{Client, NoTls};
use rustix::process::Signal;

use crate::oracle::{Oracle, wait_until};
use crate::process::{assert_fails, pglock, signal};
use crate::proxy::{Point, Proxy, Then};
use crate::server::Server;
use crate::unique;

fn start(arguments: &[&str]) -> Child {
    let mut command = pglock(arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until it says that it waits for the server.
fn said(waiting: &mut Child) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("waiting for the server"), "{line}");
    stderr
}

/// Its status, and what else it has said.
#[track_caller]
fn end(mut waiting: Child) -> (std::process::ExitStatus, String) {
    let status = wait_until("the end of pglock", || waiting.try_wait().unwrap());
    let mut said = String::new();
    if let Some(mut stderr) = waiting.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    (status, said)
}

#[test]
fn a_wait_outlasts_a_restart_of_the_server() {
    let server = Server::new("cli-restart");
    server.start();
    let url = server.url();
    for (options, stop) in [
        (&["--timeout", "1h"][..], Server::stop as fn(&Server)),
        (&["--timeout", "1h", "--scope", "transaction"], Server::stop),
        (&[], Server::crash),
        (&["--slots", "1"], Server::stop),
    ] {
        let holder = [&["--url", &url, "run", "x"], options, &["--", "cat"]].concat();
        let mut holder = pglock(&holder);
        let holder = holder.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let mut looks = Client::connect(&url, NoTls).unwrap();
        wait_for_sessions(&mut looks, 1);
        let wait = [
            &["--url", &url, "run", "-q", "x"],
            options,
            &["--", "echo", "ran"],
        ]
        .concat();
        let mut waiting = start(&wait);
        wait_for_sessions(&mut looks, 2);
        stop(&server);
        let stderr = said(&mut waiting);
        server.start();
        let mut stdout = waiting.stdout.take().unwrap();
        assert_eq!(end(waiting).0.code(), Some(0), "{options:?}");
        let mut ran = String::new();
        stdout.read_to_string(&mut ran).unwrap();
        assert_eq!(ran, "ran\n");
        assert_eq!(stderr.lines().count(), 0);
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
}

/// Waits until that many sessions hold an advisory lock or wait for one.
fn wait_for_sessions(client: &mut Client, count: i64) {
    let query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'";
    wait_until(&format!("{count} sessions"), || {
        let row = client.query_one(query, &[]).unwrap();
        (row.get::<_, i64>(0) == count).then_some(())
    });
}

#[test]
fn a_wait_for_a_server_that_stays_away_ends_with_its_timeout() {
    let server = Server::new("cli-away");
    server.start();
    let mut holder = Client::connect(&server.url(), NoTls).unwrap();
    let number = Key::from("x").as_i64().unwrap();
    let lock = format!("SELECT pg_advisory_lock({number})");
    holder.batch_execute(&lock).unwrap();
    let url = server.url();
    let mut waiting = start(&[
        "--url",
        &url,
        "run",
        "-q",
        "x",
        "--timeout",
        "2s",
        "--",
        "true",
    ]);
    wait_for_sessions(&mut holder, 2);
    server.stop();
    drop(said(&mut waiting));
    assert_eq!(end(waiting).0.code(), Some(69));
}

#[test]
fn a_server_that_is_not_up_yet_is_waited_for() {
    let server = Server::new("cli-not-yet");
    let url = server.url();
    let run = ["--url", &url, "run", "-q", "x", "--wait-for-server"];
    let mut waiting = start(&[&run[..], &["1h", "--try", "--", "true"]].concat());
    let stderr = said(&mut waiting);
    server.start();
    assert_eq!(end(waiting).0.code(), Some(0));
    assert_eq!(stderr.lines().count(), 0);

    // A server that says no is up.
    let url = url.replace("/postgres", "/nosuch");
    let run = ["--url", &url, "run", "x", "--wait-for-server", "1h"];
    assert_fails(&[&run[..], &["--", "true"]].concat(), 69, "nosuch");
    // No server can make this string one.
    let run = [
        "--url",
        "postgres://a:%zz@b",
        "run",
        "x",
        "--wait-for-server",
        "1h",
    ];
    assert_fails(&[&run[..], &["--", "true"]].concat(), 64, "cannot be read");
    drop(server);
    let run = ["--url", &url, "run", "x", "--wait-for-server", "1ms"];
    assert_fails(&[&run[..], &["--", "true"]].concat(), 69, "pglock: ");
}

#[test]
fn a_signal_ends_the_wait_for_a_server() {
    let server = Server::new("cli-not-at-all");
    let url = server.url();
    let run = ["--url", &url, "run", "x", "--wait-for-server", "1h"];
    let mut waiting = start(&[&run[..], &["--", "true"]].concat());
    drop(said(&mut waiting));
    signal(Signal::TERM, &waiting);
    assert_eq!(end(waiting).0.signal(), Some(15));
}

#[test]
fn a_timeout_ends_a_wait_behind_a_frozen_network() {
    for wait in [
        &["--timeout", "2s"][..],
        &["--timeout", "2s", "--slots", "1"],
    ] {
        let ((name, key), mut holder, proxy) = (unique(), Oracle::new(), Proxy::start());
        let key = match wait.len() {
            2 => key,
            _ => pglock::Slots::new(&name, 1).queue().clone(),
        };
        holder.lock(&key);
        let url = proxy.url();
        let run = [&["--url", &url, "run", &name], wait, &["--", "true"]].concat();
        let waiting = start(&run);
        holder.wait_for_waiter(&key);
        proxy.freeze(true, true);
        let (status, stderr) = end(waiting);
        assert_eq!(status.code(), Some(69), "{stderr}");
        assert!(stderr.contains("does not answer"), "{stderr}");
    }
}

/// The question after the grant has no answer.
fn silent_after_the_grant(proxy: &Proxy) -> mpsc::Sender<()> {
    let (ends, ended) = mpsc::channel();
    proxy.at("pg_backend_pid()::text AS line", Point::Before, move || {
        let _ = ended.recv();
        Then::Cut
    });
    ends
}

#[test]
fn a_server_that_falls_silent_after_the_grant_keeps_nobody_from_ending() {
    let ((name, key), mut oracle, proxy) = (unique(), Oracle::new(), Proxy::start());
    let run = ["--url", &proxy.url(), "run", &name];
    let silence = silent_after_the_grant(&proxy);
    let waiting = start(&[&run[..], &["--lease", "1h", "--", "true"]].concat());
    oracle.wait_for_holder(&key);
    wait_until("the question", || (!proxy.is_armed()).then_some(()));
    signal(Signal::TERM, &waiting);
    assert_eq!(end(waiting).0.signal(), Some(15));
    drop(silence);
    oracle.wait_until_free(&key);

    // Nor from waiting for it anew: the server frees the lock after the lease.
    let silence = silent_after_the_grant(&proxy);
    let waiting = start(&[&run[..], &["--lease", "1s", "--", "true"]].concat());
    let (status, stderr) = end(waiting);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("does not answer"), "{stderr}");
    drop(silence);
}

/// The limit for the first connection's answer is not one for the next wait.
#[test]
fn a_connection_that_breaks_after_the_grant_is_one_more_wait() {
    let ((name, key), mut oracle, proxy) = (unique(), Oracle::new(), Proxy::start());
    let silence = silent_after_the_grant(&proxy);
    let run = ["--url", &proxy.url(), "run", &name, "--lease", "1s"];
    let waiting = start(&[&run[..], &["--", "true"]].concat());
    oracle.wait_for_holder(&key);
    wait_until("the question", || (!proxy.is_armed()).then_some(()));
    drop(silence);
    oracle.lock(&key);
    let query = "SELECT FROM pg_stat_activity WHERE pid = $1 \
                 AND substring(query FROM 'waited ([0-9]+) ms')::int > 2000";
    let mut looks = Oracle::new();
    wait_until("a long wait", || {
        let pid = looks.wait_for_waiter(&key);
        looks.client.query_opt(query, &[&pid]).unwrap().map(drop)
    });
    oracle.unlock(&key);
    let (status, stderr) = end(waiting);
    assert_eq!(status.code(), Some(0), "{stderr}");
}
