//! A server whose clock stands still, ticks, or jumps.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use pglock::{Error, Key, Lock, LockBackend, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};

use super::{granted_on, has_waiter, never, server::Server};

struct Clock {
    file: File,
    server: Server,
}

impl Clock {
    /// A server, unless this machine has no C compiler: the clock is a library that replaces libc's.
    fn of_server(name: &str) -> Option<Self> {
        let mut server = Server::new(name);
        let library = server.dir().join("clock.so");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args(["-ldl"])
            .status();
        if !cfg!(target_os = "linux") || !compiled.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no C compiler, or no Linux");
            return None;
        }
        let path = server.dir().join("clock");
        fs::write(&path, [0; 24]).unwrap();
        server.set_environment("CLOCK", path.to_str().unwrap());
        server.set_environment("LD_PRELOAD", library.to_str().unwrap());
        server.start();
        let file = File::options().write(true).open(path).unwrap();
        Some(Self { file, server })
    }

    /// In microseconds: how far it is off, in which steps it goes, and where it stands still.
    fn set(&self, off: i64, step: i64, still: i64) {
        let numbers = [off, step, still].map(i64::to_ne_bytes).concat();
        self.file.write_all_at(&numbers, 0).unwrap();
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

#[test]
fn a_clock_that_hardly_moves_commits_all_the_same() {
    let Some(clock) = Clock::of_server("still") else {
        return;
    };
    Client::connect(&clock.server.url(), NoTls)
        .unwrap()
        .batch_execute("CREATE TABLE work ()")
        .unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    for (step, still) in [(0, micros(now.unwrap())), (15_625, 0)] {
        clock.set(0, step, still);
        on_every_driver!(commits(&clock.server.url()));
    }
}

fn commits<B: LockBackend>(backend: &mut B, url: &str) {
    let rows = |client: &mut Client| -> i64 {
        let count = client.query_one("SELECT count(*) FROM work", &[]);
        count.unwrap().get(0)
    };
    let mut client = Client::connect(url, NoTls).unwrap();
    let before = rows(&mut client);
    for _ in 0..100 {
        with_transaction_lock(backend, "key", |tx| {
            pglock::driver::Session::send(tx, "INSERT INTO work DEFAULT VALUES")?;
            Ok::<_, Error>(())
        })
        .unwrap();
        with_lock(backend, "key", |_| {
            assert_eq!(granted_on(url), 1);
            Ok::<_, Error>(())
        })
        .unwrap();
    }
    assert_eq!(rows(&mut client) - before, 100);
    assert_eq!(granted_on(url), 0);
}

#[test]
fn a_clock_that_jumps_leaves_a_timeout_a_timeout() {
    let Some(clock) = Clock::of_server("jump") else {
        return;
    };
    const HOUR: Duration = Duration::from_secs(3_600);
    for jump in [micros(HOUR), -micros(HOUR), micros(HOUR * 24 * 30)] {
        let jumps = Jumps {
            clock: &clock,
            jump,
        };
        #[cfg(feature = "postgres")]
        jumps.while_waiting(&mut Client::connect(&clock.server.url(), NoTls).unwrap());
        #[cfg(feature = "diesel")]
        jumps.while_waiting(
            &mut <diesel::PgConnection as diesel::Connection>::establish(&clock.server.url())
                .unwrap(),
        );
    }
}

struct Jumps<'c> {
    clock: &'c Clock,
    jump: i64,
}

impl Jumps<'_> {
    /// Three keys under one timeout, the first and the last of which are taken. The clock jumps before the
    /// second.
    fn while_waiting<B: LockBackend>(&self, backend: &mut B) {
        let url = self.clock.server.url();
        self.clock.set(0, 0, 0);
        let mut other = Client::connect(&url, NoTls).unwrap();
        other
            .batch_execute("SELECT pg_advisory_lock(1), pg_advisory_lock(3)")
            .unwrap();
        let refused = std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut looker = Client::connect(&url, NoTls).unwrap();
                while !has_waiter(&mut looker) {}
                self.clock.set(self.jump, 0, 0);
                other.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
            });
            Lock::new(backend, [Key::from(1), Key::from(2), Key::from(3)])
                .timeout(Duration::from_secs(2))
                .run(never)
        });
        assert!(
            matches!(refused, Err(Error::Timeout { .. })),
            "{}: {refused:?}",
            self.jump
        );
        drop(other);
        while granted_on(&url) > 0 {}
    }
}
