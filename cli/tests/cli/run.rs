//! `pglock run`: the lock, the status, the signals.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pglock::Key;
use rustix::process::{Pid, Signal, test_kill_process};

use crate::oracle::{Oracle, unique_name, wait_until};
use crate::process::{Running, assert_fails, output, pglock, signal};
use crate::proxy::Proxy;
use crate::unique;

#[test]
fn a_command_runs_under_the_lock_and_its_status_is_passed_on() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let mut running = Running::start(&name, &[], "");
    assert_eq!(oracle.held(&key), ["ExclusiveLock"]);
    running.0.stdin.take();
    let (status, stderr) = running.end();
    // `read` returns 1 at the end of its input.
    assert_eq!((status.code(), stderr.as_str()), (Some(1), ""));
    oracle.assert_free(&key);

    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)] {
        assert_fails(&["run", &name, "--", "sh", "-c", script], code, "");
        oracle.assert_free(&key);
    }
    assert_fails(
        &["run", &name, "--", "/no/such/command"],
        127,
        "/no/such/command: command not found",
    );
    assert_fails(
        &["run", &name, "--", "/etc/passwd"],
        126,
        "/etc/passwd: cannot be run",
    );
    oracle.assert_free(&key);
}

#[test]
fn keys_are_names_numbers_and_pairs_in_every_mode_and_scope() {
    let mut oracle = Oracle::new();
    let name = unique_name("cli");
    let number = Key::from(&name).as_i64().unwrap();
    let low = number as i32;
    let cases: [(&[&str], Key, &str); 5] = [
        (
            &["--namespace", "cli", &name],
            Key::namespaced("cli", name.clone()),
            "ExclusiveLock",
        ),
        (
            &["--scheme", "sqlx", &name],
            pglock::compat::Scheme::Sqlx.key(&name),
            "ExclusiveLock",
        ),
        (
            &["--int", &number.to_string(), "--shared"],
            Key::from(number),
            "ShareLock",
        ),
        (
            &["--pair", &format!("{low},-1")],
            Key::from((low, -1)),
            "ExclusiveLock",
        ),
        (
            &["--scope", "transaction", &name],
            Key::from(&name),
            "ExclusiveLock",
        ),
    ];
    for (arguments, key, mode) in cases {
        let command = ["--", "sh", "-c", "echo started; read -r _; exit 0"];
        let mut running = Running::of(&mut pglock(&[&["run"], arguments, &command].concat()));
        assert_eq!(oracle.held(&key), [mode], "{arguments:?}");
        running.0.stdin.take();
        let (status, stderr) = running.end();
        assert_eq!(
            (status.code(), stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        oracle.assert_free(&key);
    }
}

/// A command that builds an index concurrently waits for all that have a snapshot.
#[test]
fn a_transaction_holds_no_snapshot_while_the_command_runs() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let options = ["--scope", "transaction", "--lease", "1s"];
    let mut running = Running::start(&name, &options, "");
    let pid = oracle.holder(&key);
    let query = "SELECT query_start::text, backend_xmin::text, backend_xid::text \
                 FROM pg_stat_activity WHERE pid = $1 AND state = 'idle in transaction'";
    // At once, and after questions whether it is held. A row is read piece by piece: what it says
    // counts where the next look finds that no question came meanwhile.
    let mut seen = Vec::new();
    let mut look = || -> Option<(String, [Option<String>; 2])> {
        let row = oracle.client.query_opt(query, &[&pid]).unwrap()?;
        Some((row.get(0), [row.get(1), row.get(2)]))
    };
    wait_until("two questions", || {
        let ((since, snapshot), after) = (look()?, look()?);
        if since != after.0 {
            return None;
        }
        assert_eq!(snapshot, [None, None], "{seen:?}");
        if seen.last() != Some(&since) {
            seen.push(since);
        }
        (seen.len() == 3).then_some(())
    });
    running.0.stdin.take();
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(1), ""));
}

#[test]
fn a_busy_lock_is_75_and_says_whose_it_is() {
    let (name, _) = unique();
    let _holder = Running::start(&name, &[], "");
    for wait in [["--try", "--shared"], ["--timeout", "20ms"]] {
        let arguments = [&["run", &name][..], &wait, &["--", "true"]].concat();
        assert_fails(&arguments, 75, "held by pid ");
        assert_fails(&arguments, 75, "\"pglock: sh\"");
    }
    assert_fails(&["run", &name, "-n", "-E", "3", "--", "true"], 3, &name);
    let quiet = output(&["run", &name, "-n", "-q", "--", "true"]);
    assert_eq!((quiet.status.code(), quiet.stderr.len()), (Some(75), 0));
}

#[test]
fn a_wait_of_a_second_says_for_what_and_who_holds_it() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let holder = Running::start(&name, &[], "");
    let pid = oracle.holder(&key);
    let [mut waiting, quiet] = [&["run", &name, "true"][..], &["run", "-q", &name, "true"]]
        .map(|run| Running::begin(&mut pglock(run)));
    let mut stderr = BufReader::new(waiting.0.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let start = format!("pglock: waiting for \"{name}\"");
    let held_by = format!(", held by pid {pid} \"pglock: sh\", ");
    assert!(
        said.starts_with(&start) && said.contains(&held_by),
        "{said}"
    );
    drop(holder);
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    for run in [waiting, quiet] {
        let (status, stderr) = run.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn signals_are_passed_on_to_the_command() {
    let (name, key) = unique();
    for (trap, signal) in [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("USR1", Signal::USR1),
    ] {
        let script = format!("trap 'exit 5' {trap}");
        let running = Running::start(&name, &[], &script);
        running.signal(signal);
        let (status, stderr) = running.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(5), ""), "{trap}");
        Oracle::new().assert_free(&key);
    }
    let running = Running::start(&name, &[], "");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0.code(), Some(128 + 15));
}

#[test]
fn a_signal_that_nohup_ignores_stays_ignored() {
    let (name, _) = unique();
    let script = format!(
        "trap '' HUP; exec {} run {name} -- sh -c 'echo started; read -r _; exit 4'",
        env!("CARGO_BIN_EXE_pglock")
    );
    let mut running = Running::of(Command::new("sh").args(["-c", &script]));
    running.signal(Signal::HUP);
    running.0.stdin.take();
    assert_eq!(running.end().0.code(), Some(4));
}

#[test]
fn the_status_is_passed_on_where_children_were_ignored() {
    let (name, _) = unique();
    for script in ["exit 3", "sleep 0.1; exit 3"] {
        let mut command = Command::new("env");
        command.args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_pglock")]);
        command.args(["run", &name, "--", "sh", "-c", script]);
        assert_eq!(command.status().unwrap().code(), Some(3), "{script}");
    }
}

#[test]
fn a_wait_ends_with_a_signal_and_leaves_no_waiter() {
    let ((name, key), mut oracle, mut holder) = (unique(), Oracle::new(), Oracle::new());
    holder.lock(&key);
    for (end, scope) in [
        (Signal::INT, "session"),
        (Signal::TERM, "session"),
        (Signal::TERM, "transaction"),
    ] {
        let run = ["run", &name, "--scope", scope, "--", "echo", "started"];
        let mut waiting = pglock(&run).stdout(Stdio::piped()).spawn().unwrap();
        oracle.wait_for_waiter(&key);
        signal(end, &waiting);
        assert_eq!(waiting.wait().unwrap().signal(), Some(end.as_raw()));
        wait_until("the end of the wait", || {
            (oracle.rows(&key).len() == 1).then_some(())
        });
        let mut said = String::new();
        waiting.stdout.unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
}

/// A server that falls silent does not keep pglock from ending.
#[test]
fn a_wait_behind_a_frozen_network_ends_with_a_signal() {
    let ((name, key), mut holder, proxy) = (unique(), Oracle::new(), Proxy::start());
    holder.lock(&key);
    let run = ["--url", &proxy.url(), "run", &name, "--", "true"];
    let mut waiting = pglock(&run).spawn().unwrap();
    holder.wait_for_waiter(&key);
    proxy.freeze(true, true);
    signal(Signal::INT, &waiting);
    let status = wait_until("the end of pglock", || waiting.try_wait().unwrap());
    assert_eq!(status.signal(), Some(2));
}

#[test]
fn a_lock_is_kept_for_longer_than_a_short_command_runs() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let job = ["--", "sh", "-c", "echo $$; exit 4"];
    for end in [Signal::TERM, Signal::INT] {
        let run = [&["run", &name, "--try", "--at-least", "1h"], &job[..]].concat();
        let mut first = Running::begin(&mut pglock(&run));
        let ran = Pid::from_raw(first.line().parse().unwrap()).unwrap();
        wait_until("the end of the job", || {
            test_kill_process(ran).is_err().then_some(())
        });
        // The other host, whose clock is behind.
        assert_fails(&run, 75, &name);
        oracle.holder(&key);
        first.signal(end);
        let (status, stderr) = first.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(4), ""), "{end:?}");
        oracle.assert_free(&key);
    }

    let start = Instant::now();
    let run = [&["run", &name, "--at-least", "1s"], &job[..]].concat();
    assert_fails(&run, 4, "");
    assert!(start.elapsed() >= Duration::from_secs(1));
    oracle.assert_free(&key);
}

#[test]
fn a_signal_that_ends_the_command_ends_the_rest_of_its_time_too() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &["--at-least", "1h"], "trap 'exit 5' TERM");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0.code(), Some(5));
    oracle.assert_free(&key);
    let lost = [
        &["run", &name, "--at-least", "1h"],
        &["--", "sh", "-c", "echo $$; exit 4"][..],
    ]
    .concat();
    let mut running = Running::begin(&mut pglock(&lost));
    let ran = Pid::from_raw(running.line().parse().unwrap()).unwrap();
    wait_until("the end of the job", || {
        test_kill_process(ran).is_err().then_some(())
    });
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
    let (status, stderr) = running.end();
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("was lost after the command"), "{stderr}");
    assert_fails(
        &["run", &name, "--at-least", "1h", "--", "/no/such/command"],
        127,
        "",
    );
}
