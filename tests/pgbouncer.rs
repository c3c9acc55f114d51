//! Behind a pooler in transaction mode: the transaction forms work, and a session lock whose release
//! lands on another server is told.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use pglock::driver::Session;
use pglock::{Error, LockBackend, try_with_transaction_lock, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};
use server::Server;

const PORT: u16 = 6432;

/// A PgBouncer in front of a server of its own, on a socket beside the server's.
struct Bouncer {
    server: Server,
    process: Child,
}

impl Bouncer {
    /// `None` where PgBouncer is not installed.
    fn start(name: &str) -> Option<Self> {
        let program = [
            "/usr/sbin/pgbouncer",
            "/usr/bin/pgbouncer",
            "/usr/local/bin/pgbouncer",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists());
        let Some(program) = program else {
            eprintln!("skipped: there is no PgBouncer (Debian: apt-get install pgbouncer)");
            return None;
        };
        let server = Server::new(name);
        server.start();
        let dir = server.dir().display();
        let path = server.dir().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n\
             postgres = host={dir} port=5432 user=postgres\n\
             [pgbouncer]\n\
             listen_addr =\n\
             listen_port = {PORT}\n\
             unix_socket_dir = {dir}\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             logfile = {dir}/pgbouncer.log\n"
        );
        fs::write(&path, settings).unwrap();
        let mut command = server.command(program);
        let process = command.arg("-q").arg(&path).stderr(Stdio::null()).spawn();
        let bouncer = Self {
            process: process.unwrap(),
            server,
        };
        let start = Instant::now();
        while Client::connect(&bouncer.url(), NoTls).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "no PgBouncer");
        }
        Some(bouncer)
    }

    fn url(&self) -> String {
        self.server.url_at(PORT)
    }

    fn client(&self) -> Client {
        Client::connect(&self.url(), NoTls).unwrap()
    }

    #[cfg(feature = "diesel")]
    fn connection(&self) -> diesel::PgConnection {
        diesel::Connection::establish(&self.url()).unwrap()
    }

    /// The server process that holds an advisory lock, asked past the pooler.
    fn holder(&self) -> Option<i32> {
        let mut client = Client::connect(&self.server.url(), NoTls).unwrap();
        let query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted";
        client.query_opt(query, &[]).unwrap().map(|row| row.get(0))
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn transaction_scope_works_through_a_pooler() {
    let Some(bouncer) = Bouncer::start("bouncer-transaction") else {
        return;
    };
    #[cfg(feature = "postgres")]
    excludes_others(|| bouncer.client());
    #[cfg(feature = "diesel")]
    excludes_others(|| bouncer.connection());
    assert_eq!(bouncer.holder(), None);
}

fn excludes_others<B: LockBackend>(connect: impl Fn() -> B + Sync) {
    with_transaction_lock(&mut connect(), "key", |_| {
        let busy = try_with_transaction_lock(&mut connect(), "key", |_| Ok::<_, Error>(()))?;
        assert!(busy.is_none());
        Ok::<_, Error>(())
    })
    .unwrap();
    // A counter that loses increments as soon as two are in at once.
    let counter = AtomicI64::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut backend = connect();
                for _ in 0..10 {
                    let counted = with_transaction_lock(&mut backend, "key", |tx| {
                        let count = counter.load(Ordering::Relaxed);
                        tx.send("SELECT pg_sleep(0.001)").unwrap();
                        counter.store(count + 1, Ordering::Relaxed);
                        Ok::<_, Error>(())
                    });
                    counted.unwrap();
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 40);
}

#[test]
fn a_session_lock_that_a_pooler_has_moved_is_told() {
    let Some(bouncer) = Bouncer::start("bouncer-session") else {
        return;
    };
    #[cfg(feature = "postgres")]
    is_told_of_the_move(&bouncer, &mut bouncer.client());
    #[cfg(feature = "diesel")]
    is_told_of_the_move(&bouncer, &mut bouncer.connection());
}

/// The server process that has the lock is given to somebody else while the section runs, so the
/// release gets another one.
fn is_told_of_the_move<B: LockBackend>(bouncer: &Bouncer, backend: &mut B) {
    let mut others: Vec<_> = (0..8).map(|_| bouncer.client()).collect();
    let mut taken = Vec::new();
    let outcome = with_lock(backend, "key", |_| {
        let holder = bouncer.holder();
        assert!(holder.is_some());
        for other in &mut others {
            let mut transaction = other.transaction().unwrap();
            let row = transaction.query_one("SELECT pg_backend_pid()", &[]);
            let pid: i32 = row.unwrap().get(0);
            taken.push(transaction);
            if Some(pid) == holder {
                return Ok::<_, Error>(());
            }
        }
        panic!("nobody got the holder's server process");
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error:?}");
    assert!(error.to_string().contains("pooler"), "{error}");

    // The pooler has kept the lock, out of reach of this client, until it ends that server process.
    let holder = bouncer.holder().expect("the pooler's server process");
    drop(taken);
    Client::connect(&bouncer.server.url(), NoTls)
        .unwrap()
        .execute("SELECT pg_terminate_backend($1)", &[&holder])
        .unwrap();
    let start = Instant::now();
    while bouncer.holder().is_some() {
        assert!(start.elapsed() < Duration::from_secs(30), "still held");
    }
}
