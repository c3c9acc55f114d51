//! pgpool-II in front of a primary and its standby for one test.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use postgres::{Client, NoTls};

use crate::oracle::wait_until;
use crate::server::Server;

const PORT: u16 = 9999;

/// On a socket beside the primary's.
pub struct Pgpool {
    primary: Server,
    _standby: Server,
    process: Child,
}

impl Pgpool {
    /// With `load_balance_mode`: all reads go to the standby. `None` where it is not installed.
    pub fn start(name: &str, load_balance_mode: &str) -> Option<Self> {
        let program = [
            "/usr/sbin/pgpool",
            "/usr/bin/pgpool",
            "/usr/local/bin/pgpool",
        ];
        let Some(program) = program.into_iter().find(|path| Path::new(path).exists()) else {
            eprintln!("skipped: there is no pgpool-II (Debian: apt-get install pgpool2)");
            return None;
        };
        let (primary, standby) = (Server::new(name), Server::new(&format!("{name}-standby")));
        standby.follow(&primary);
        primary.start();
        standby.start();
        let (dir, other) = (primary.dir().display(), standby.dir().display());
        let path = primary.dir().join("pgpool.conf");
        let settings = format!(
            "backend_clustering_mode = 'streaming_replication'\n\
             listen_addresses = ''\n\
             port = {PORT}\n\
             unix_socket_directories = '{dir}'\n\
             socket_dir = '{dir}'\n\
             pcp_listen_addresses = ''\n\
             pcp_socket_dir = '{dir}'\n\
             backend_hostname0 = '{dir}'\n\
             backend_port0 = 5432\n\
             backend_weight0 = 0\n\
             backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'\n\
             backend_hostname1 = '{other}'\n\
             backend_port1 = 5432\n\
             backend_weight1 = 1\n\
             backend_flag1 = 'DISALLOW_TO_FAILOVER'\n\
             enable_pool_hba = off\n\
             num_init_children = 8\n\
             max_pool = 2\n\
             load_balance_mode = {load_balance_mode}\n\
             sr_check_period = 0\n\
             health_check_period = 0\n\
             pid_file_name = '{dir}/pgpool.pid'\n\
             logdir = '{dir}'\n\
             work_dir = '{dir}'\n\
             use_watchdog = off\n"
        );
        fs::write(&path, settings).unwrap();
        let mut command = primary.command(program);
        let command = command.arg("-n").arg("-f").arg(&path);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pgpool = Self {
            process: process.unwrap(),
            primary,
            _standby: standby,
        };
        wait_until("pgpool-II", || Client::connect(&pgpool.url(), NoTls).ok());
        Some(pgpool)
    }

    pub fn url(&self) -> String {
        self.primary.url_at(PORT)
    }
}

impl Drop for Pgpool {
    fn drop(&mut self) {
        // Its children end with it.
        crate::process::signal(rustix::process::Signal::INT, &self.process);
        let _ = self.process.wait();
    }
}
