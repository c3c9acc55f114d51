//! `pglock run` when a holder freezes: the lock is free after a lease, and the command was ended before.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pglock::Key;
use postgres::{Client, NoTls};
use rustix::process::Signal;

use crate::oracle::{Oracle, unique_name, wait_until};
use crate::process::{Running, assert_fails, pglock, stdout};
use crate::proxy::Proxy;
use crate::server::Server;
use crate::unique;

/// What commands write, one line each.
struct Log(PathBuf);

impl Log {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique_name("log"));
        fs::write(&path, "").unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const WORK: &str = "while :; do echo old >>$LOG; sleep 0.01; done";

/// A command that ends on TERM, one that does not, and one whose child does not: each writes for as long
/// as it runs.
const ON_TERM: [&str; 3] = [
    "trap 'echo old end >>$LOG; exit' TERM; echo started; eval \"$WORK\"",
    "trap '' TERM; echo started; eval \"$WORK\"",
    "(trap '' TERM; exec 2>/dev/null; eval \"$WORK\") & echo started; wait",
];

#[test]
fn a_frozen_holder_loses_the_lock_after_a_lease_and_its_command_was_ended_before() {
    for scope in ["session", "transaction"] {
        for on_term in ON_TERM {
            let ((name, key), mut oracle) = (unique(), Oracle::new());
            let (proxy, log) = (Proxy::start(), Log::new());
            let script = format!("LOG={}; WORK='{WORK}'; {on_term}", log.path());
            let run = [
                "run",
                &name,
                "--url",
                &proxy.url(),
                "--lease",
                "2s",
                "--scope",
                scope,
            ];
            let run = [&run[..], &["--", "sh", "-c", &script]].concat();
            let running = Running::of(&mut pglock(&run));
            let pid = oracle.holder(&key);
            proxy.freeze(true, true);

            let next = format!("echo new >>{}", log.path());
            stdout(&["run", &name, "--", "sh", "-c", &next]);
            oracle.wait_for_end(pid);
            let (status, stderr) = running.end();
            assert_eq!(status.code(), Some(76), "{stderr}");
            assert!(stderr.contains("silent"), "{stderr}");
            let lines = log.lines();
            assert_eq!(lines.last().map(String::as_str), Some("new"), "{lines:?}");
            assert!(lines.len() > 1);
        }
    }
}

#[test]
fn a_waiter_that_is_granted_the_lock_when_it_is_cut_off_loses_it() {
    let ((name, key), mut holder, proxy) = (unique(), Oracle::new(), Proxy::start());
    holder.lock(&key);
    let run = [
        "run",
        &name,
        "--url",
        &proxy.url(),
        "--lease",
        "1s",
        "--",
        "true",
    ];
    let mut waiting = pglock(&run).spawn().unwrap();
    let pid = holder.wait_for_waiter(&key);
    proxy.freeze(true, true);
    holder.unlock(&key);
    holder.wait_for_end(pid);
    holder.assert_free(&key);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

/// When the session last asked the server something.
fn last_question(oracle: &mut Oracle, pid: i32) -> String {
    let query = "SELECT query_start::text FROM pg_stat_activity WHERE pid = $1";
    oracle.client.query_one(query, &[&pid]).unwrap().get(0)
}

/// Waits until it asks again.
fn next_question(oracle: &mut Oracle, pid: i32) {
    let last = last_question(oracle, pid);
    wait_until("a question to the server", || {
        (last_question(oracle, pid) != last).then_some(())
    });
}

/// Stopped for longer than a server may be silent, and for less than the lease.
#[test]
fn a_pglock_that_was_stopped_asks_before_it_judges() {
    let mut oracle = Oracle::new();
    let runs = [(); 3].map(|()| {
        let (name, key) = unique();
        let running = Running::start(&name, &["--lease", "12s", "--grace", "1h"], "");
        let pid = oracle.holder(&key);
        (running, pid)
    });
    for (_, pid) in &runs {
        next_question(&mut oracle, *pid);
    }
    for (running, _) in &runs {
        running.signal(Signal::STOP);
    }
    std::thread::sleep(Duration::from_millis(6_500));
    for (running, _) in &runs {
        running.signal(Signal::CONT);
    }
    for (mut running, pid) in runs {
        next_question(&mut oracle, pid);
        running.0.stdin.take();
        let (status, stderr) = running.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(1), ""));
    }
}

/// As by a host that throttles or swaps: each stop is an excuse, but only one before the next answer.
#[test]
fn a_pglock_that_is_stopped_again_and_again_ends_the_command() {
    let ((name, key), mut oracle, proxy) = (unique(), Oracle::new(), Proxy::start());
    let options = ["--url", &proxy.url(), "--lease", "2s"];
    let mut running = Running::start(&name, &options, "trap 'exit 0' TERM");
    let pid = oracle.holder(&key);
    proxy.freeze(true, true);
    for _ in 0..15 {
        if running.0.try_wait().unwrap().is_some() {
            break;
        }
        running.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(1_200));
        running.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(300));
    }
    let ended = running.0.try_wait().unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(76));
    oracle.wait_for_end(pid);
}

#[test]
fn a_pglock_that_was_stopped_for_longer_than_the_lease_ends_the_command() {
    for scope in ["session", "transaction"] {
        let ((name, key), mut oracle) = (unique(), Oracle::new());
        let options = ["--lease", "1s", "--scope", scope];
        let running = Running::start(&name, &options, "trap 'exit 0' TERM");
        let pid = oracle.holder(&key);
        running.signal(Signal::STOP);
        oracle.wait_for_end(pid);
        oracle.assert_free(&key);
        running.signal(Signal::CONT);
        let (status, stderr) = running.end();
        assert_eq!(status.code(), Some(76), "{stderr}");
    }
}

#[test]
fn a_server_with_less_patience_makes_the_lease_shorter() {
    let server = Server::new("cli-idle");
    server.configure(
        "idle_session_timeout = '1500ms'\nidle_in_transaction_session_timeout = '300ms'\n",
    );
    server.start();
    let url = server.url();
    let mut running = Running::start("x", &["--url", &url, "--lease", "1h"], "");
    let mut client = Client::connect(&url, NoTls).unwrap();
    let key = Key::from("x").pg_locks();
    let query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND granted";
    let pid = client.query_one(query, &[&key.1]).unwrap().get(0);
    let mut oracle = Oracle { client };
    for _ in 0..5 {
        next_question(&mut oracle, pid);
    }
    running.0.stdin.take();
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(1), ""));

    let run = [
        "run",
        "x",
        "--url",
        &url,
        "--scope",
        "transaction",
        "--",
        "true",
    ];
    assert_fails(&run, 69, "idle_in_transaction_session_timeout is 300ms");
}
