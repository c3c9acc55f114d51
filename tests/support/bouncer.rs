//! PgBouncer in front of a server for one test.

#![allow(dead_code)] // no test that includes it uses all of it

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::server::Server;

const PORT: u16 = 6432;

/// A PgBouncer in front of a server of its own, on a socket beside the server's.
pub struct Bouncer {
    pub server: Server,
    process: Child,
}

impl Bouncer {
    /// `None` where PgBouncer is not installed.
    pub fn start(name: &str) -> Option<Self> {
        Self::start_with(name, "pool_mode = transaction\n")
    }

    /// The same with other settings.
    pub fn start_with(name: &str, settings: &str) -> Option<Self> {
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
             logfile = {dir}/pgbouncer.log\n\
             {settings}"
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

    pub fn url(&self) -> String {
        self.server.url_at(PORT)
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.url(), NoTls).unwrap()
    }

    /// Whether one server process holds so many advisory locks, looked up without the pooler.
    pub fn holder_of_all(&self, locks: i64) -> bool {
        let mut client = Client::connect(&self.server.url(), NoTls).unwrap();
        let query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted GROUP BY pid HAVING count(*) = $1";
        client.query(query, &[&locks]).unwrap().len() == 1
    }

    /// The server process that holds an advisory lock, looked up without the pooler.
    pub fn holder(&self) -> Option<i32> {
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
