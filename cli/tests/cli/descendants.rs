//! `pglock run` and what comes of its command: nothing of it outlives the lock. Linux only.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

use crate::oracle::{Oracle, unique_name, wait_until};
use crate::process::{Running, pglock};
use crate::proxy::Proxy;
use crate::unique;

/// A process that does not heed TERM, and how the command leaves it behind: it says its number and
/// works on when the command has ended.
const WORKER: &str = "trap '' TERM; echo $$; exec >/dev/null 2>&1; while :; do sleep 0.01; done";
const LEFT_BEHIND: [&str; 3] = [
    "sh -c \"$WORKER\" & read -r _",
    "(sh -c \"$WORKER\" &); read -r _",
    "setsid sh -c \"$WORKER\" & read -r _",
];

struct Case {
    running: Running,
    worker: Pid,
    server: i32,
    oracle: Oracle,
}

impl Case {
    fn start(script: &str) -> Self {
        let ((name, key), mut oracle) = (unique(), Oracle::new());
        let run = ["run", &name, "--grace", "100ms", "--", "sh", "-c", script];
        let mut running = Running::begin(pglock(&run).env("WORKER", WORKER));
        let worker = Pid::from_raw(running.line().parse().unwrap()).unwrap();
        let server = oracle.holder(&key);
        Self {
            running,
            worker,
            server,
            oracle,
        }
    }
}

#[test]
fn what_the_command_left_behind_does_not_outlive_a_lost_lock() {
    for script in LEFT_BEHIND {
        let mut case = Case::start(script);
        case.oracle.terminate(case.server);
        let (status, stderr) = case.running.end();
        assert_eq!(status.code(), Some(76), "{script}: {stderr}");
        assert!(test_kill_process(case.worker).is_err(), "{script}");
    }
}

#[test]
fn what_the_command_left_behind_does_not_outlive_a_pglock_that_is_killed() {
    for script in LEFT_BEHIND {
        let case = Case::start(script);
        case.running.signal(Signal::KILL);
        wait_until("the end of the worker", || {
            test_kill_process(case.worker).is_err().then_some(())
        });
    }
}

#[test]
fn the_command_does_not_outlive_the_process_that_watches_over_it() {
    for script in LEFT_BEHIND {
        let mut case = Case::start(&format!("echo $PPID >&2; {script}"));
        let mut said = BufReader::new(case.running.0.stderr.take().unwrap());
        let mut warden = String::new();
        said.read_line(&mut warden).unwrap();
        let warden = Pid::from_raw(warden.trim().parse().unwrap()).unwrap();
        kill_process(warden, Signal::KILL).unwrap();
        let (status, _) = case.running.end();
        assert_eq!(status.code(), Some(128 + 9), "{script}");
        assert!(test_kill_process(case.worker).is_err(), "{script}");
        case.oracle.wait_for_end(case.server);
    }
}

#[test]
fn what_a_command_leaves_behind_when_it_ends_by_itself_is_left_alone() {
    let mut case = Case::start("setsid sh -c \"$WORKER\" & read -r _; exit 3");
    case.running.0.stdin.take();
    assert_eq!(case.running.end().0.code(), Some(3));
    case.oracle.wait_for_end(case.server);
    kill_process(case.worker, Signal::KILL).unwrap();
}

/// A copy in the temporary folder. Another process writes it: one that this process writes is busy while
/// other tests start programs.
fn install(program: &str, mode: &str) -> PathBuf {
    let copy = std::env::temp_dir().join(unique_name("program"));
    let install = ["-m", mode, "-o", "root", program];
    let mut command = Command::new("install");
    assert!(command.args(install).arg(&copy).status().unwrap().success());
    copy
}

/// Needs root, to make a program that becomes root.
#[test]
fn a_command_that_has_become_root_is_told_at_once() {
    if !geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let program = install("/usr/bin/setpriv", "4755");
    let own = install(env!("CARGO_BIN_EXE_pglock"), "755");
    let ((name, key), mut oracle, proxy) = (unique(), Oracle::new(), Proxy::start());
    let mut command = Command::new(&own);
    command
        .args([
            "run",
            &name,
            "--url",
            &proxy.url(),
            "--grace",
            "100ms",
            "--",
        ])
        .arg(&program)
        .args(["--reuid", "0", "--regid", "0", "--clear-groups"])
        .args(["sh", "-c", "echo $$; exec sleep 1000 2>/dev/null >&2"])
        .uid(65534)
        .gid(65534);
    let mut running = Running::begin(&mut command);
    let root = Pid::from_raw(running.line().parse().unwrap()).unwrap();
    let mut said = BufReader::new(running.0.stderr.take().unwrap());
    running.signal(Signal::TERM);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("may not send it signals"), "{line}");

    let server = oracle.holder(&key);
    oracle.terminate(server);
    let (status, _) = running.end();
    let mut stderr = String::new();
    said.read_to_string(&mut stderr).unwrap();
    kill_process(root, Signal::KILL).unwrap();
    fs::remove_file(program).unwrap();
    fs::remove_file(own).unwrap();
    assert_eq!(status.code(), Some(77), "{stderr}");
    let told = format!("process {}", root.as_raw_nonzero());
    assert!(stderr.contains(&told), "{stderr}");
}
