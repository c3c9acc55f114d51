//! The processes, each behind a network of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::Table;

use crate::network::Network;
use crate::tally::Tally;

pub struct Fleet {
    pub members: Vec<Member>,
    lease: Duration,
    at_once: bool,
    tally: Arc<Mutex<Tally>>,
}

pub struct Member {
    pub network: Network,
    child: Child,
}

/// A member leads if it has reported so no longer ago than this.
const RECENT: Duration = Duration::from_millis(100);

impl Fleet {
    pub fn start(url: &str, lease: Duration, at_once: bool, size: usize) -> anyhow::Result<Self> {
        let mut fleet = Self {
            members: Vec::new(),
            lease,
            at_once,
            tally: Arc::new(Mutex::new(Tally::new(size))),
        };
        for number in 0..size {
            let network = Network::start(url)?;
            let child = fleet.spawn(&network, number)?;
            fleet.members.push(Member { network, child });
        }
        Ok(fleet)
    }

    fn spawn(&self, network: &Network, number: usize) -> anyhow::Result<Child> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--url", &network.url(), "--member", &number.to_string()])
            .args(["--lease", &self.lease.as_secs_f64().to_string()])
            .args(self.at_once.then_some("--at-once"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let tally = Arc::clone(&self.tally);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.hear(number, &line);
            }
        });
        Ok(child)
    }

    /// A new process in place of one that is gone.
    pub fn restart(&mut self, member: usize) -> anyhow::Result<()> {
        self.members[member].child = self.spawn(&self.members[member].network, member)?;
        Ok(())
    }

    pub fn wait_for_leader(&self) -> anyhow::Result<usize> {
        self.wait(None, || ())
    }

    pub fn wait_for_another(&self, last: usize, frame: impl FnMut()) -> anyhow::Result<usize> {
        self.wait(Some(last), frame)
    }

    fn wait(&self, last: Option<usize>, mut frame: impl FnMut()) -> anyhow::Result<usize> {
        let start = Instant::now();
        while start.elapsed() < self.lease * 10 + Duration::from_secs(10) {
            if let Some(leader) = self.tally().leader(RECENT, last) {
                return Ok(leader);
            }
            frame();
            thread::sleep(Duration::from_millis(1));
        }
        bail!("nobody leads")
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn table(&self) -> Table {
        self.tally().table(RECENT)
    }

    /// Ends the processes.
    pub fn end(mut self) -> Tally {
        for member in &mut self.members {
            let _ = member.kill();
        }
        std::mem::replace(&mut *self.tally(), Tally::new(0))
    }
}

impl Member {
    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let kill = format!("kill -{signal} {}", self.child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status()?;
        if !killed.success() {
            bail!("{kill} failed");
        }
        Ok(())
    }

    pub fn resign(&mut self) -> anyhow::Result<()> {
        writeln!(self.child.stdin.as_ref().context("its input")?, "resign")?;
        Ok(())
    }
}
