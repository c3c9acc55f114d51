//! Processes that are candidates in one election, each behind a network of its own, and what they did by
//! their own clocks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use pglock::election::{Election, Term};

use crate::harness::{AnyDriver, Driver, through};
use crate::oracle::{unique_name, wait_until};
use crate::proxy::Proxy;

/// Tells a child what to do: its driver, its server, the election, its lease, its
/// journal, its number.
const TASK: &str = "PGLOCK_TEST_CANDIDATE";

const DRIVERS: &[&str] = &[
    #[cfg(feature = "postgres")]
    "postgres",
    #[cfg(feature = "diesel")]
    "diesel",
];

pub const MEMBERS: usize = 3;

pub struct Fleet {
    pub members: Vec<Member>,
    pub server: String,
    name: String,
    lease: Duration,
    journal: PathBuf,
}

pub struct Member {
    pub proxy: Proxy,
    child: Child,
}

/// A term by its leader's clock.
#[derive(Debug, Clone, Copy)]
struct Journal {
    from: u64,
    to: u64,
}

impl Fleet {
    pub fn start(server: &str, lease: Duration) -> Self {
        let name = unique_name("fleet");
        let journal = std::env::temp_dir().join(&name);
        fs::create_dir(&journal).unwrap();
        let mut fleet = Self {
            members: Vec::new(),
            server: server.to_owned(),
            name,
            lease,
            journal,
        };
        for number in 0..MEMBERS {
            let proxy = Proxy::in_front_of(server.parse().unwrap(), Duration::ZERO);
            let child = fleet.spawn(&proxy, number);
            fleet.members.push(Member { proxy, child });
        }
        fleet
    }

    fn spawn(&self, proxy: &Proxy, number: usize) -> Child {
        let task = [
            DRIVERS[number % DRIVERS.len()],
            &through(proxy),
            &self.name,
            &self.lease.as_millis().to_string(),
            self.journal.to_str().unwrap(),
            &number.to_string(),
        ];
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fleet::member", "--ignored", "--nocapture"])
            .env(TASK, task.join("|"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// SIGKILL, and a new process in its place.
    pub fn replace(&mut self, member: usize) {
        let child = self.spawn(&self.members[member].proxy, member);
        let mut old = std::mem::replace(&mut self.members[member].child, child);
        old.kill().unwrap();
        old.wait().unwrap();
    }

    pub fn kill(&mut self, member: usize) {
        self.members[member].child.kill().unwrap();
        self.members[member].child.wait().unwrap();
    }

    pub fn signal(&self, member: usize, signal: &str) {
        send_signal(signal, self.members[member].child.id());
    }

    /// The member that leads, and the server process of its lock, according to the server.
    pub fn leader(&self) -> Option<(usize, i32)> {
        let mut client = AnyDriver::try_connect(&self.server).ok()?;
        let claim = pglock::election::leader(&mut client, &self.name).ok()??;
        let number = claim.application?.rsplit_once('-')?.1.parse().ok()?;
        Some((number, claim.pid?))
    }

    /// Waits until somebody leads, and knows it.
    pub fn wait_for_leader(&self) -> (usize, i32) {
        wait_until("a leader", || {
            let terms = self.terms().len();
            let leader = self.leader()?;
            (self.terms().len() == terms && self.is_on()).then_some(leader)
        })
    }

    /// Waits until another term has begun.
    pub fn wait_for_next(&self, terms: usize) {
        wait_until("another term", || {
            (self.terms().len() > terms).then_some(())
        });
    }

    fn is_on(&self) -> bool {
        let last = self.terms().last().map_or(0, |(_, term)| term.to);
        now().saturating_sub(last) < 100_000_000
    }

    /// The terms so far, in order.
    fn terms(&self) -> Vec<((u32, u64), Journal)> {
        let mut terms: Vec<_> = fs::read_dir(&self.journal)
            .unwrap()
            .filter_map(|entry| Journal::read(&entry.unwrap().path()))
            .collect();
        terms.sort_by_key(|(token, _)| *token);
        terms
    }

    pub fn count(&self) -> usize {
        self.terms().len()
    }

    /// No term began before the last one was over, each by its leader's clock.
    #[track_caller]
    pub fn assert_no_overlap(&self) {
        for pair in self.terms().windows(2) {
            let [(_, one), (_, next)] = pair else {
                unreachable!("windows of two")
            };
            let overlap = Duration::from_nanos(one.to.saturating_sub(next.from));
            assert!(overlap.is_zero(), "two led for {overlap:?}: {pair:?}");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
        let _ = fs::remove_dir_all(&self.journal);
    }
}

impl Journal {
    /// Named by its token, so that the next one's is greater.
    fn read(path: &Path) -> Option<((u32, u64), Self)> {
        let (timeline, transaction) = path.file_name()?.to_str()?.split_once('-')?;
        let token = (timeline.parse().ok()?, transaction.parse().ok()?);
        let bytes: [u8; 16] = fs::read(path).ok()?.try_into().ok()?;
        let [from, to] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
        Some((token, Self { from, to }))
    }
}

/// By the shell, where `kill` is built in.
pub fn send_signal(signal: &str, pid: u32) {
    let kill = format!("kill -{signal} {pid}");
    let killed = Command::new("sh").args(["-c", &kill]).status();
    assert!(killed.unwrap().success());
}

/// The same clock for all processes, which are on one machine.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_nanos()).unwrap()
}

#[test]
#[ignore = "is what Fleet starts"]
fn member() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let task: Vec<_> = task.split('|').collect();
    let &[driver, url, name, lease, journal, number] = task.as_slice() else {
        panic!("{task:?}")
    };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0); // the parent is gone
    });
    let application = format!("{name}-{number}");
    let election = match driver {
        #[cfg(feature = "postgres")]
        "postgres" => candidate::<crate::harness::Postgres>(url, &application, name),
        #[cfg(feature = "diesel")]
        "diesel" => candidate::<crate::harness::Diesel>(url, &application, name),
        driver => panic!("no driver {driver}"),
    };
    let election = election.lease(Duration::from_millis(lease.parse().unwrap()));
    loop {
        match election.campaign() {
            Ok(term) => serve(&term, Path::new(journal)),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn candidate<D: Driver>(url: &str, application: &str, name: &str) -> Election {
    let url = crate::harness::named(url, application);
    Election::new(move || D::try_connect(&url), name)
}

/// Records until when the term lasted. It reads the clock before it checks the term.
fn serve(term: &Term, journal: &Path) {
    let file = File::create(journal.join(term.token().to_string())).unwrap();
    let from = now();
    let mut to = from;
    loop {
        file.write_all_at(&[from.to_le_bytes(), to.to_le_bytes()].concat(), 0)
            .unwrap();
        std::thread::sleep(Duration::from_millis(1));
        to = now();
        if term.is_over() {
            return;
        }
    }
}
