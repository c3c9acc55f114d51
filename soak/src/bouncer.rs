//! PgBouncer in transaction mode in front of the server, which wipes out all settings behind each
//! transaction.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postgres::config::Host;
use postgres::{Config, NoTls};

use crate::bank::{application, schema};
use crate::proxy;

const PORT: u16 = 6432;

/// Its folder, by which the processes know it.
fn dir(run: i32) -> PathBuf {
    std::env::temp_dir().join(format!("pglock-soak-{run}"))
}

/// How to connect through it; `None` if there is none.
pub fn config(run: i32) -> Option<Config> {
    let dir = dir(run);
    let mut config = Config::new();
    config.host_path(&dir).port(PORT).user(&schema(run));
    config.dbname(proxy::server().get_dbname().unwrap_or("postgres"));
    config.application_name(&application(run));
    dir.exists().then_some(config)
}

/// The same for libpq.
pub fn url(run: i32) -> String {
    format!(
        "host={} port={PORT} user={} dbname={} application_name={}",
        dir(run).display(),
        schema(run),
        proxy::server().get_dbname().unwrap_or("postgres"),
        application(run)
    )
}

pub struct Bouncer {
    dir: PathBuf,
    process: Child,
}

impl Bouncer {
    /// `None` where PgBouncer is not installed, or the server is not on a socket.
    pub fn start(run: i32) -> Result<Option<Self>> {
        let server = proxy::server();
        let programs = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = programs.into_iter().find(|path| Path::new(path).exists());
        let (Some(program), Some(Host::Unix(socket))) = (program, server.get_hosts().first())
        else {
            println!("without PgBouncer (Debian: apt-get install pgbouncer)");
            return Ok(None);
        };
        let dir = dir(run);
        fs::create_dir(&dir)?;
        let mut client = server.connect(NoTls)?;
        // A role that is called as the schema finds its tables, whatever is reset.
        let role = schema(run);
        client.batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} SUPERUSER LOGIN"
        ))?;
        let path = dir.join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host={} port={} user={role}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {dir}\nauth_type = any\n\
             logfile = {dir}/log\npool_mode = transaction\ndefault_pool_size = 3\n\
             server_reset_query = RESET ALL\nserver_reset_query_always = 1\n",
            socket.display(),
            server.get_ports().first().copied().unwrap_or(5432),
            dir = dir.display(),
        );
        fs::write(&path, settings)?;
        let mut command = Command::new(program);
        // It does not run as root; the server's user may reach the server.
        if fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
            let user = fs::metadata(socket)?.uid();
            chown(&dir, Some(user), None)?;
            command.uid(user);
        }
        let process = command.arg("-q").arg(&path).stderr(Stdio::null()).spawn();
        let bouncer = Self {
            process: process.context("cannot start PgBouncer")?,
            dir,
        };
        let start = Instant::now();
        while config(run).is_some_and(|config| config.connect(NoTls).is_err()) {
            let waited = start.elapsed();
            ensure!(
                waited < Duration::from_secs(30),
                "PgBouncer does not answer"
            );
        }
        Ok(Some(bouncer))
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
