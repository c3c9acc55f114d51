//! A member's network: what it sends and receives passes through here, until it is frozen.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Config;
use postgres::config::Host;

pub struct Network {
    port: u16,
    config: Config,
    frozen: Arc<AtomicBool>,
}

impl Network {
    pub fn start(url: &str) -> anyhow::Result<Self> {
        let config: Config = url.parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let network = Self {
            port: listener.local_addr()?.port(),
            config: config.clone(),
            frozen: Arc::default(),
        };
        let frozen = Arc::clone(&network.frozen);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = join(client, &config, &frozen);
            }
        });
        Ok(network)
    }

    /// Holds everything back, or lets it through again.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    /// The URL that leads through it.
    pub fn url(&self) -> String {
        let user = self.config.get_user().unwrap_or("postgres");
        let database = self.config.get_dbname().unwrap_or(user);
        let password = self.config.get_password().map(String::from_utf8_lossy);
        let password = password.map_or(String::new(), |word| format!(":{word}"));
        format!(
            "postgres://{user}{password}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }
}

fn join(client: TcpStream, config: &Config, frozen: &Arc<AtomicBool>) -> std::io::Result<()> {
    let server = connect(config)?;
    let ways = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (from, to) in ways {
        let frozen = Arc::clone(frozen);
        thread::spawn(move || pass(from, to, &frozen));
    }
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, frozen: &AtomicBool) {
    let mut buffer = [0; 8192];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        while frozen.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn connect(config: &Config) -> std::io::Result<TcpStream> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        // Reads, writes and shuts down as any other stream socket does.
        Some(Host::Unix(directory)) => {
            let socket = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}")))?;
            Ok(TcpStream::from(OwnedFd::from(socket)))
        }
        Some(Host::Tcp(host)) => TcpStream::connect((host.as_str(), port)),
        None => TcpStream::connect((Ipv4Addr::LOCALHOST, port)),
    }
}
