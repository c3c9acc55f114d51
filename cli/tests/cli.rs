//! The command `pglock`, as a process.

#[path = "../../tests/support/oracle.rs"]
mod oracle;
#[path = "support/process.rs"]
mod process;
#[path = "../../tests/support/server.rs"]
mod server;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use oracle::{Oracle, unique_name, wait_until};
use pglock::Key;
use process::{Running, assert_fails, kill, output, pglock, stdout};
use serde_json::Value;
use server::Server;

/// A name of this test's own, and its key.
fn unique() -> (String, Key) {
    let name = unique_name("cli");
    let key = Key::from(&name);
    (name, key)
}

#[test]
fn a_command_runs_under_the_lock_and_its_status_is_passed_on() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let mut running = Running::start(&name, &[], "");
    assert_eq!(oracle.held(&key), ["ExclusiveLock"]);
    running.0.stdin.take();
    let (status, stderr) = running.end();
    // `read` says 1 at the end of its input.
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
fn signals_are_passed_on_to_the_command() {
    let (name, key) = unique();
    for signal in ["TERM", "INT", "HUP", "USR1"] {
        let script = format!("trap 'exit 5' {signal}");
        let running = Running::start(&name, &[], &script);
        running.kill(signal);
        let (status, stderr) = running.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(5), ""), "{signal}");
        Oracle::new().assert_free(&key);
    }
    let running = Running::start(&name, &[], "");
    running.kill("TERM");
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
    running.kill("HUP");
    running.0.stdin.take();
    assert_eq!(running.end().0.code(), Some(4));
}

#[test]
fn a_wait_ends_with_ctrl_c_and_leaves_no_waiter() {
    let ((name, key), mut oracle, mut holder) = (unique(), Oracle::new(), Oracle::new());
    holder.lock(&key);
    let mut waiting = pglock(&["run", &name, "--", "true"]).spawn().unwrap();
    oracle.wait_for_waiter(&key);
    kill("INT", waiting.id());
    assert_eq!(waiting.wait().unwrap().signal(), Some(2));
    wait_until("the end of the wait", || {
        (oracle.rows(&key).len() == 1).then_some(())
    });
}

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
    running.kill("KILL");
    assert_eq!(running.line(), "told");
    wait_until("the end of the lock", || {
        oracle.rows(&key).is_empty().then_some(())
    });
}

#[test]
fn locks_are_shown_for_people_and_for_programs() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &[], "");
    let pid = oracle.holder(&key);
    let number = key.as_i64().unwrap();

    let table = stdout(&["who", &name]);
    assert!(table.starts_with("KEY"), "{table}");
    assert!(table.contains(&format!("\"{name}\" = {number}")), "{table}");
    assert!(stdout(&["ls"]).contains(&format!("\n{number} ")));

    let json: Value = serde_json::from_str(&stdout(&["who", "--json", &name])).unwrap();
    assert_eq!(json[0]["pid"], pid);
    assert_eq!(json[0]["key"], number);
    assert_eq!(json[0]["name"], name);
    assert_eq!(json[0]["application"], "pglock: sh");
    assert_eq!(json[0]["granted"], true);
    let json: Value = serde_json::from_str(&stdout(&["ls", "--json"])).unwrap();
    let claims = json.as_array().unwrap();
    assert!(
        claims
            .iter()
            .any(|claim| claim["key"] == number && claim["name"].is_null())
    );

    let mut watching = pglock(&["ls", "--watch=1ms", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for line in lines.take(3) {
        assert!(line.unwrap().contains(&number.to_string()));
    }
    // A reader that has gone ends it, without a word.
    assert_eq!(watching.wait().unwrap().code(), Some(0));

    drop(running);
    wait_until("the end of the lock", || {
        oracle.rows(&key).is_empty().then_some(())
    });
    assert_fails(&["who", &name], 1, "nobody holds");
    assert_fails(&["kill", &name, "--yes"], 1, "nobody holds");
    assert_eq!(output(&["who", "--json", &name]).stdout, b"[]\n");
}

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
fn the_numbers_of_a_name_are_shown_in_every_scheme() {
    let table = stdout(&["key", "some lock"]);
    for number in [
        "-205618829",
        "-5588203449678238657",
        "pg_advisory_lock(1941864819, 0)",
    ] {
        assert!(table.contains(number), "{table}");
    }
    let json: Value = serde_json::from_str(&stdout(&["key", "--json", "seat:12A"])).unwrap();
    assert_eq!(json[0]["key"], 4_328_960_076_536_664_018_i64);
    let json = stdout(&["key", "--json", "--namespace", "billing", "invoice:7"]);
    assert!(json.contains("4713738466874322346"), "{json}");
}

#[test]
fn bad_input_is_told_in_its_place() {
    assert_fails(&[], 64, "Usage");
    assert_fails(&["run", "--", "true"], 64, "required");
    assert_fails(
        &["run", "x", "--int", "5", "--", "true"],
        64,
        "cannot be used with",
    );
    assert_fails(&["run", "x", "--timeout", "5x", "--", "true"], 64, "5x");
    assert_fails(&["run", "x", "--timeout", "5", "--", "true"], 64, "'5'");
    assert_fails(
        &["run", "--pair", "1", "--", "true"],
        64,
        "two 32-bit numbers",
    );
    assert_fails(
        &["run", "x", "--scheme", "y", "--", "true"],
        64,
        "no key scheme",
    );
    assert_fails(&["--url", "dbname=nosuch", "ls"], 69, "nosuch");
    assert_fails(&["--url", "dbname='nosuch", "ls"], 69, "pglock: ");
    assert!(stdout(&["--help"]).contains("Exit status:"));
    assert!(stdout(&["completions", "bash"]).contains("_pglock"));
}
