//! A process of workers: started and killed by the parent, and what it does as a child.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use pglock::StopToken;

use crate::proxy::Proxy;
use crate::random::Random;
use crate::tally::Tally;
use crate::worker;

/// As the parent sees it.
pub struct Process {
    pub number: u64,
    child: Child,
    tally: JoinHandle<Tally>,
}

impl Process {
    pub fn start(number: u64, seed: u64, run: i32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--seed", &seed.to_string()])
            .args(["--process", &number.to_string(), &run.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        // The last line is all that is known of a killed process.
        let tally = thread::spawn(move || {
            let last = lines.map_while(Result::ok).last();
            Tally::read(&last.unwrap_or_default())
        });
        Ok(Self {
            number,
            child,
            tally,
        })
    }

    /// By SIGKILL.
    pub fn kill(&mut self) -> Result<Tally> {
        self.child.kill()?;
        self.child.wait()?;
        let tally = std::mem::replace(&mut self.tally, thread::spawn(Tally::default));
        Ok(tally.join().expect("the reader of a process"))
    }

    /// Lets it end, and returns what it did.
    pub fn stop(mut self) -> Result<Tally> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        let mut tally = self.tally.join().expect("the reader of a process");
        if !status.success() {
            tally.violation("a process ended badly");
        }
        Ok(tally)
    }
}

/// What the child does, until its input ends.
pub fn work(seed: u64, number: i32, run: i32) {
    let mut random = Random::new(seed ^ u64::from(number.unsigned_abs()));
    let proxy = Arc::new(Proxy::start());
    let stop = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let resign = StopToken::new();
    let workers = worker::start_all(&mut random, run, &proxy, &stop, &resign, &tally);

    thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let _ = std::io::stdin().read(&mut [0]);
            stop.store(true, Ordering::Relaxed);
        }
    });
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        if random.one_in(30) {
            proxy.cut();
            tally
                .lock()
                .unwrap()
                .count("faults: cuts of all connections of a process");
        }
        report(&tally, &stop);
    }
    resign.stop();
    for worker in workers {
        worker.join().expect("a worker");
    }
    report(&tally, &stop);
}

/// Reports to the parent. If the parent is gone, this process ends, too.
fn report(tally: &Mutex<Tally>, stop: &AtomicBool) {
    let line = tally.lock().unwrap().line();
    if writeln!(std::io::stdout(), "{line}").is_err() {
        stop.store(true, Ordering::Relaxed);
    }
}
