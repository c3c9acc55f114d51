//! `pglock run --slots`: up to N at a time.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use pglock::Slots;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::oracle::{Oracle, unique_name, wait_until};
use crate::process::{Running, assert_fails, output, pglock, signal, stdout};

/// Prints its slot, and then that it has started.
const SAY: &str = "echo $PGLOCK_SLOT; echo started; read -r _; exit 4";

fn run<'a>(name: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let run = [&["run", name, "--slots", "3"], options];
    [&run.concat()[..], &["--", "sh", "-c", SAY]].concat()
}

/// A run, and its slot.
fn start(name: &str) -> (Running, u32) {
    let mut running = Running::begin(&mut pglock(&run(name, &[])));
    let slot = running.line().parse().unwrap();
    assert_eq!(running.line(), "started");
    (running, slot)
}

fn held(oracle: &mut Oracle, slots: &Slots) -> Vec<bool> {
    let keys = slots.keys().iter();
    keys.map(|key| !oracle.held(key).is_empty()).collect()
}

#[test]
fn so_many_run_at_a_time_and_the_next_one_waits() {
    let (name, mut oracle) = (unique_name("cli"), Oracle::new());
    let slots = Slots::new(&name, 3);
    let mut runs = [(); 3].map(|()| start(&name));
    let numbers: BTreeSet<_> = runs.iter().map(|(_, slot)| *slot).collect();
    assert_eq!(numbers, BTreeSet::from([0, 1, 2]));
    assert_eq!(held(&mut oracle, &slots), [true; 3]);

    assert_fails(&run(&name, &["--try"]), 75, "is held by pid ");
    assert_fails(&run(&name, &["--timeout", "50ms"]), 75, &name);

    let mut fourth = Running::begin(&mut pglock(&run(&name, &["-q"])));
    oracle.wait_for_holder(slots.queue());
    let (first, slot) = &mut runs[1];
    first.0.stdin.take();
    assert_eq!(fourth.line(), slot.to_string());
    assert_eq!(fourth.line(), "started");
    fourth.0.stdin.take();
    let (status, stderr) = fourth.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(4), ""));
    let left: Vec<_> = (0..3).map(|number| number != *slot).collect();
    assert_eq!(held(&mut oracle, &slots), left);
}

#[test]
fn a_killed_pglock_frees_its_slot() {
    let (name, mut oracle) = (unique_name("cli"), Oracle::new());
    let mut runs = [(); 3].map(|()| start(&name));
    let (killed, slot) = &mut runs[2];
    killed.signal(Signal::KILL);
    killed.0.wait().unwrap();
    let (fourth, next) = start(&name);
    assert_eq!(next, *slot);

    // Losing the slot ends the command.
    let slots = Slots::new(&name, 3);
    let pid = oracle.holder(&slots.keys()[next as usize]);
    oracle.terminate(pid);
    let (status, stderr) = fourth.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
}

#[test]
fn a_wait_for_a_slot_ends_with_a_signal() {
    let (name, mut oracle) = (unique_name("cli"), Oracle::new());
    let slots = Slots::new(&name, 3);
    let _runs = [(); 3].map(|()| start(&name));
    let mut waiting = pglock(&run(&name, &[]))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    oracle.wait_for_holder(slots.queue());
    signal(Signal::TERM, &waiting);
    let status = wait_until("the end of the wait", || waiting.try_wait().unwrap());
    assert_eq!(status.signal(), Some(15));
    oracle.wait_until_free(slots.queue());
}

#[test]
fn slots_are_shown_as_such() {
    let name = unique_name("cli");
    let who = ["who", &name, "--slots", "3"];
    assert_fails(&who, 1, "nobody holds semaphore");
    let (running, slot) = start(&name);
    let shown = format!("semaphore \"{name}\", 1 of 3");
    let table = stdout(&who);
    assert!(table.starts_with(&shown), "{table}");
    assert!(table.contains(&format!("  slot {slot}  ")), "{table}");
    let table = wait_until("a label", || {
        Some(stdout(&["ls"])).filter(|table| table.contains(&shown))
    });
    assert!(table.contains("pglock: sh"), "{table}");

    let slots = Slots::new(&name, 3);
    let key = &slots.keys()[slot as usize];
    for arguments in [
        &["ls", "--json"][..],
        &["who", &name, "--slots", "3", "--json"],
    ] {
        let json: Value = serde_json::from_slice(&output(arguments).stdout).unwrap();
        let mut claims = json.as_array().unwrap().iter();
        let number = key.as_i64().unwrap().to_string();
        let claim = claims.find(|claim| claim["key"] == number);
        let claim = claim.unwrap_or_else(|| panic!("{json}"));
        let told = ["name", "slot", "slots"].map(|field| claim[field].clone());
        assert_eq!(Value::from(told.to_vec()), json!([name, slot, 3]));
    }
    drop(running);
}

#[test]
fn those_who_hold_a_slot_are_ended() {
    let (name, mut oracle) = (unique_name("cli"), Oracle::new());
    let kill = ["kill", &name, "--slots", "3", "--yes"];
    assert_fails(&kill, 1, "nobody holds semaphore");
    let runs = [start(&name).0, start(&name).0];
    let ended = stdout(&kill);
    assert_eq!(ended.matches("ended pid ").count(), 2, "{ended}");
    for run in runs {
        assert_eq!(run.end().0.code(), Some(76));
    }
    assert_eq!(held(&mut oracle, &Slots::new(&name, 3)), [false; 3]);
}

#[test]
fn what_slots_do_not_go_with_is_refused() {
    for (options, message) in [
        (&["--slots", "0"][..], "1..=1000"),
        (&["--slots", "1001"], "1..=1000"),
        (&["--slots", "2", "--shared"], "cannot be used with"),
        (
            &["--slots", "2", "--scope", "transaction"],
            "cannot be used with",
        ),
        (&["--slots", "2", "--namespace", "n"], "cannot be used with"),
    ] {
        let arguments = [&["run", "x"], options, &["--", "true"]].concat();
        assert_fails(&arguments, 64, message);
    }
    assert_fails(
        &["run", "--int", "5", "--slots", "2", "--", "true"],
        64,
        "cannot be used with",
    );
}

/// A command that itself runs pglock.
#[test]
fn a_lock_has_no_slot() {
    let name = unique_name("cli");
    let inner = format!("{} run {name}-inner -- env", env!("CARGO_BIN_EXE_pglock"));
    let run = ["run", &name, "--slots", "2", "--", "sh", "-c", &inner];
    let environment = stdout(&run);
    assert!(!environment.contains("PGLOCK_SLOT"), "{environment}");
}
