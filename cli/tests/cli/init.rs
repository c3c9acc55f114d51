//! `pglock run` as PID 1 of a container. Needs root or user namespaces, and says so where it is skipped.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::oracle::{Oracle, wait_until};
use crate::process::Running;
use crate::unique;

const UNSHARE: [&str; 3] = ["--pid", "--fork", "--mount-proc"];

/// `None`: this system does not allow it.
fn unshare(arguments: &[&str]) -> Option<Command> {
    let mut probe = Command::new("unshare");
    let allowed = probe.args(UNSHARE).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: no PID namespaces here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(env!("CARGO_BIN_EXE_pglock"));
    command.args(arguments).stdin(Stdio::null());
    Some(command)
}

fn children(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
    let children: Vec<_> = of_task.map(Result::unwrap).collect();
    let children = children.iter().flat_map(|line| line.split_whitespace());
    children.map(|pid| pid.parse().unwrap()).collect()
}

/// PID 1, by its number outside.
fn pglock(running: &Running) -> Pid {
    Pid::from_raw(children(running.0.id())[0]).unwrap()
}

/// Leaves an orphan to PID 1, as a command in a container does that `docker exec` has started.
fn leave_an_orphan(pglock: Pid) {
    let target = pglock.as_raw_nonzero().to_string();
    let orphan = ["-t", &target, "-p", "sh", "-c", "true & exit 0"];
    let left = Command::new("nsenter").args(orphan).status().unwrap();
    assert!(left.success());
}

#[test]
fn pid_1_ends_on_term_while_it_waits_and_buries_orphans() {
    let ((name, key), mut holder) = (unique(), Oracle::new());
    holder.lock(&key);
    let Some(mut command) = unshare(&["run", &name, "--", "true"]) else {
        return;
    };
    let running = Running::begin(&mut command);
    holder.wait_for_waiter(&key);
    let pglock = pglock(&running);
    leave_an_orphan(pglock);
    wait_until("no zombie", || {
        let id = u32::try_from(pglock.as_raw_nonzero().get()).unwrap();
        children(id).is_empty().then_some(())
    });
    kill_process(pglock, Signal::TERM).unwrap();
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(128 + 15), ""));
}

#[test]
fn pid_1_passes_signals_on_and_buries_orphans_while_the_command_runs() {
    let (name, _) = unique();
    let script = "trap 'exit 5' TERM; (true &); echo started; read -r _";
    let Some(mut command) = unshare(&["run", &name, "--", "sh", "-c", script]) else {
        return;
    };
    let running = Running::of(&mut command);
    let pglock = pglock(&running);
    leave_an_orphan(pglock);
    wait_until("no zombie", || {
        let id = u32::try_from(pglock.as_raw_nonzero().get()).unwrap();
        (children(id).len() == 1).then_some(()) // the warden
    });
    kill_process(pglock, Signal::TERM).unwrap();
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(5), ""));
}
