//! Nothing that is printed decides what is done.

use std::io::Write;
use std::process::Stdio;

use rustix::process::{Pid, test_kill_process};

use crate::oracle::{Oracle, connect, wait_until};
use crate::process::{Running, broken_pipe, pglock};
use crate::unique;

#[test]
fn a_broken_standard_error_does_not_keep_the_command_running() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let mut running = Running::start(&name, &[], "trap 'exit 0' TERM");
    running.0.stderr.take();
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
    assert_eq!(running.end().0.code(), Some(76));
}

#[test]
fn a_standard_error_that_is_full_does_not_keep_the_command_running() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let (reader, mut full) = std::io::pipe().unwrap();
    // The capacity of a pipe.
    full.write_all(&[b'x'; 1 << 16]).unwrap();
    let script = "trap 'echo told' TERM; echo started; echo $$; read -r _; read -r _";
    let mut command = pglock(&["run", &name, "--grace", "1ms", "--", "sh", "-c", script]);
    let mut running = Running::with_stderr(&mut command, full);
    let command = running.line().parse().ok().and_then(Pid::from_raw).unwrap();
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
    assert_eq!(running.line(), "told");
    wait_until("the end of the grace time", || {
        test_kill_process(command).is_err().then_some(())
    });
    drop(reader);
    assert_eq!(running.end().0.code(), Some(76));
}

#[test]
fn a_broken_standard_error_does_not_change_the_status() {
    let (name, _) = unique();
    let _holder = Running::start(&name, &[], "");
    for (arguments, code) in [
        (&["run", &name, "--try", "--", "true"][..], 75),
        (&["run", &name, "--timeout", "1ms", "--", "true"], 75),
        (&["run", "x", "--", "/no/such/command"], 127),
        (&["kill", &name], 64),
        (&["who", "cli-nobody"], 1),
    ] {
        let mut command = pglock(arguments);
        let status = command.stderr(broken_pipe()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_broken_standard_output_does_not_change_the_status() {
    for (arguments, code) in [
        (&["completions", "bash"][..], 0),
        (&["key", "x"], 0),
        (&["ls"], 0),
        (&["who", "--json", "cli-nobody"], 1),
    ] {
        let mut command = pglock(arguments);
        let command = command.stdout(broken_pipe()).stderr(Stdio::piped());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}

#[test]
fn all_holders_are_ended_although_nobody_reads_so() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let mut holders = [connect(), connect(), connect()];
    let number = key.as_i64().unwrap();
    for holder in &mut holders {
        let lock = format!("SELECT pg_advisory_lock_shared({number})");
        holder.batch_execute(&lock).unwrap();
    }
    let mut command = pglock(&["kill", &name, "--yes"]);
    let status = command.stdout(broken_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    wait_until("the end of the holders", || {
        oracle.rows(&key).is_empty().then_some(())
    });
}
