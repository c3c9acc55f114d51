//! A server for one test, for what the shared server must not suffer.

#![allow(dead_code)] // no test that includes it uses all of it

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A cluster in a temporary folder, on a socket only. Stopped and removed on drop.
pub struct Server {
    dir: PathBuf,
    environment: Vec<(String, String)>,
}

impl Server {
    /// Creates the cluster, but does not start it yet.
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("pglock-{name}-{}", std::process::id()));
        let server = Self {
            dir,
            environment: Vec::new(),
        };
        // The server's user owns all of it, since root may not run a server.
        run(server.command("mkdir").arg(&server.dir));
        let data = server.dir.join("data");
        run(server.program("initdb").arg("-D").arg(data).args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]));
        server.configure(&format!(
            "listen_addresses = ''\nport = 5432\nunix_socket_directories = '{}'\nfsync = off\n",
            server.dir.display()
        ));
        server
    }

    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// Adds to `postgresql.conf`.
    pub fn configure(&self, settings: &str) {
        let path = self.dir.join("data/postgresql.conf");
        let text = fs::read_to_string(&path).unwrap() + settings;
        fs::write(path, text).unwrap();
    }

    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn start(&self) {
        let log = self.dir.join("log");
        let data = self.dir.join("data");
        run(self
            .program("pg_ctl")
            .arg("start")
            .arg("-s")
            .arg("-D")
            .arg(data)
            .arg("-l")
            .arg(log));
    }

    /// Stops it at once, as a crash does.
    pub fn crash(&self) {
        self.end("immediate");
    }

    fn end(&self, mode: &str) {
        let data = self.dir.join("data");
        let stop = ["stop", "-s", "-m", mode, "-D"];
        run(self.program("pg_ctl").args(stop).arg(data));
    }

    pub fn url(&self) -> String {
        self.url_at(5432)
    }

    /// The same by the socket of another port, on which something in front of the server listens.
    pub fn url_at(&self, port: u16) -> String {
        let socket = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}:{port}/postgres")
    }

    /// Becomes a copy of another server, which must be stopped, and will follow it as a standby.
    pub fn follow(&self, primary: &Self) {
        let data = self.dir.join("data");
        run(self.command("rm").arg("-r").arg(&data));
        let copy = primary.dir.join("data");
        run(self.command("cp").arg("-r").arg(copy).arg(&data));
        let socket = |server: &Self| server.dir.display().to_string();
        self.configure(&format!(
            "unix_socket_directories = '{}'\nprimary_conninfo = 'host={} user=postgres'\n",
            socket(self),
            socket(primary)
        ));
        run(self.command("touch").arg(data.join("standby.signal")));
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        let data = self.dir.join("data");
        run(self
            .program("pg_ctl")
            .args(["promote", "-s", "-w", "-D"])
            .arg(data));
    }

    /// Stops it in good order.
    pub fn stop(&self) {
        self.end("fast");
    }

    fn program(&self, name: &str) -> Command {
        let bin = std::env::var_os("PGBINDIR").map_or_else(pg_config_bindir, PathBuf::from);
        self.command(bin.join(name))
    }

    /// A command as the server's user, in a folder that is open to it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir("/")
            .env_remove("PGDATA")
            .env_remove("PGHOST")
            .env_remove("PGPORT");
        command.envs(self.environment.iter().cloned());
        if let Some((user, group)) = servers_user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.dir.join("data");
        let _ = self
            .program("pg_ctl")
            .args(["stop", "-s", "-m", "immediate", "-D"])
            .arg(data)
            .output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn pg_config_bindir() -> PathBuf {
    let output = Command::new("pg_config").arg("--bindir").output();
    let output = output.expect("PGBINDIR is not set, and there is no pg_config");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// The user and group that run the server, if this is root.
fn servers_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let user = if id(&["-u", "postgres"]).is_some() {
        "postgres"
    } else {
        "nobody"
    };
    Some((id(&["-u", user])?, id(&["-g", user])?))
}

pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}
