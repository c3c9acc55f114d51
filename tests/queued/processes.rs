//! Two processes: this test program, started twice more.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, Key, with_lock};
use r2d2::ManageConnection;

use crate::oracle::{Oracle, unique_key};
use crate::queued;

/// Tells the child what to do: the driver, what the sections are for, how many, and the key.
const CHILD: &str = "PGLOCK_TEST_CHILD";

const DRIVERS: &[&str] = &[
    #[cfg(feature = "postgres")]
    "postgres",
    #[cfg(feature = "diesel")]
    "diesel",
];

const THREADS: usize = 16;

/// In each section, the process waits until the other one waits at the server; then it is the other one's
/// turn.
#[test]
fn two_processes_take_turns() {
    for driver in DRIVERS {
        let [most, least] = shares(driver, "turns", 200);
        assert_eq!(least, most - 1, "{driver}");
    }
}

/// The sections are empty. The scheduler decides how many sections make a turn, and whether the other
/// process is back at the server by then, but neither process is shut out.
#[test]
fn two_processes_make_progress() {
    for driver in DRIVERS {
        let [most, least] = shares(driver, "progress", 2_000);
        assert!(least > 0, "{driver}: {most} and {least}");
    }
}

/// How many sections each process has run when one of them has run that many.
fn shares(driver: &str, sections: &str, count: u32) -> [u32; 2] {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    let (counts, counted) = channel();
    let mut children = [0, 1].map(|number| {
        let task = format!("{driver}|{sections}|{count}|{}", key.name().unwrap());
        start(&task, number, counts.clone())
    });
    // They start at the same time, when both have asked the server.
    oracle.wait_for_waiters(&key, 2);
    oracle.unlock(&key);
    let next = || counted.recv_timeout(Duration::from_secs(60)).unwrap();
    let (first, most) = next();
    // It holds the lock until its input ends, so the other one's number does not change.
    writeln!(children[1 - first].1, "how many?").unwrap();
    let (_, least) = next();
    for mut child in children.map(|(child, _input)| child) {
        assert!(child.wait().unwrap().success());
    }
    [most, least]
}

/// Sends on each number that the child prints.
fn start(task: &str, number: usize, counts: Sender<(usize, u32)>) -> (Child, ChildStdin) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--ignored", "--nocapture"])
        .env(CHILD, task)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            match line.parse() {
                Ok(count) => drop(counts.send((number, count))),
                Err(_) => eprintln!("{line}"),
            }
        }
    });
    let input = child.stdin.take().unwrap();
    (child, input)
}

#[test]
#[ignore = "is what the other tests here start"]
fn child() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let task: Vec<_> = task.split('|').collect();
    let [driver, sections, count, key] = task[..] else {
        panic!("{task:?}")
    };
    let (in_turn, count) = (sections == "turns", count.parse().unwrap());
    match driver {
        #[cfg(feature = "postgres")]
        "postgres" => contend(crate::postgres_manager(), in_turn, count, &key.into()),
        #[cfg(feature = "diesel")]
        "diesel" => contend(crate::diesel_manager(), in_turn, count, &key.into()),
        driver => panic!("no driver {driver}"),
    }
}

/// Runs sections until the input ends. The section that reaches the full number prints it, and lasts until
/// then; each line of the input asks for the number.
fn contend<M>(manager: M, in_turn: bool, full: u32, key: &Key)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager, 2);
    let (number, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let (goes_on, all_here, oracle) = (
        Mutex::new(()),
        Barrier::new(THREADS),
        Mutex::new(Oracle::new()),
    );
    let section = || {
        if in_turn {
            let mut oracle = oracle.lock().unwrap();
            while !over.load(SeqCst) && oracle.rows(key).len() < 2 {
                thread::sleep(Duration::from_millis(1)); // between two looks
            }
        }
        if number.fetch_add(1, SeqCst) + 1 == full {
            eprintln!("{full}");
            drop(goes_on.lock());
        }
    };
    thread::scope(|threads| {
        let input = goes_on.lock().unwrap();
        for _ in 0..THREADS {
            threads.spawn(|| {
                all_here.wait();
                while !over.load(SeqCst) {
                    let section = |_: &mut M::Connection| {
                        section();
                        Ok::<_, Error>(())
                    };
                    with_lock(&mut &pool, key, section).unwrap();
                }
            });
        }
        for _question in std::io::stdin().lines() {
            eprintln!("{}", number.load(SeqCst));
        }
        over.store(true, SeqCst);
        drop(input);
    });
}
