//! A TCP proxy in front of the server of `DATABASE_URL`. It counts round trips, can add the delay of a
//! network, and can act at a chosen point of a conversation, such as cut it.

#![allow(dead_code)] // no test that includes it uses all of it

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};

/// Runs until it is dropped, which also cuts the connections through it: let it outlive its
/// clients.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    server: Config,
    one_way: Duration,
    round_trips: AtomicUsize,
    /// A clone of every socket, for cutting it; `None` once the proxy is closed.
    sockets: Mutex<Option<Vec<TcpStream>>>,
    fault: Mutex<Option<Fault>>,
    /// Whether requests, and whether replies, are held back.
    frozen: Mutex<[bool; 2]>,
    thawed: Condvar,
    /// Whether it answers in place of a server that has ended the session.
    stands_in: AtomicBool,
}

/// Where in a conversation a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The server has not seen the request.
    Before,
    /// The server has answered, and the client has not seen it.
    After,
    /// The client has seen half of the reply.
    MidReply,
}

/// How a conversation goes on after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// As if nothing had happened.
    GoOn,
    /// Not at all: both sides see the connection closed.
    Cut,
}

const REQUESTS: usize = 0;
const REPLIES: usize = 1;

struct Fault {
    marker: String,
    point: Point,
    act: Box<dyn FnOnce() -> Then + Send>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        Self::with_delay(Duration::ZERO)
    }

    /// Makes a round trip take that much longer, half of it each way.
    pub(crate) fn with_delay(round_trip: Duration) -> Self {
        Self::in_front_of(server(), round_trip)
    }

    /// The same for another server.
    pub(crate) fn in_front_of(server: Config, round_trip: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound listener").port();
        let shared = Arc::new(Shared {
            server,
            one_way: round_trip / 2,
            round_trips: AtomicUsize::new(0),
            sockets: Mutex::new(Some(Vec::new())),
            fault: Mutex::new(None),
            frozen: Mutex::new([false; 2]),
            thawed: Condvar::new(),
            stands_in: AtomicBool::new(false),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self {
            port,
            shared,
            accepting: Some(accepting),
        }
    }

    /// How to connect through the proxy with the `postgres` crate.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .ssl_mode(SslMode::Disable);
        let server = &self.shared.server;
        server.get_user().map(|user| config.user(user));
        server.get_dbname().map(|name| config.dbname(name));
        server.get_password().map(|word| config.password(word));
        config
    }

    /// The same for libpq, as its `keyword='value'` text.
    pub(crate) fn url(&self) -> String {
        let server = &self.shared.server;
        let password = server.get_password().map(String::from_utf8_lossy);
        let given = [
            ("user", server.get_user()),
            ("dbname", server.get_dbname()),
            ("password", password.as_deref()),
        ];
        let mut url = format!(
            "host=127.0.0.1 port={} sslmode=disable gssencmode=disable",
            self.port
        );
        for (keyword, value) in given {
            if let Some(value) = value {
                let value = value.replace('\\', r"\\").replace('\'', r"\'");
                url += &format!(" {keyword}='{value}'");
            }
        }
        url
    }

    pub(crate) fn client(&self) -> Client {
        self.config().connect(NoTls).expect("a way to the server")
    }

    /// Calls `act`, once, when the next request whose text contains `marker` is at that point. To stall
    /// the conversation, `act` takes its time.
    pub(crate) fn at(
        &self,
        marker: &str,
        point: Point,
        act: impl FnOnce() -> Then + Send + 'static,
    ) {
        *self.shared.fault.lock().unwrap() = Some(Fault {
            marker: marker.to_owned(),
            point,
            act: Box::new(act),
        });
    }

    /// Whether the fault that was last set is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.shared.fault.lock().unwrap().is_some()
    }

    /// Holds back requests, replies or both, until it is called again. If a side closes its connection
    /// meanwhile, the other side does not notice.
    pub(crate) fn freeze(&self, requests: bool, replies: bool) {
        *self.shared.frozen.lock().unwrap() = [requests, replies];
        self.shared.thawed.notify_all();
    }

    /// From now on it keeps a client whose session the server has ended, and answers each request with an error, as
    /// some poolers do.
    pub(crate) fn stand_in(&self) {
        self.shared.stands_in.store(true, Ordering::SeqCst);
    }

    /// Cuts every present connection.
    pub(crate) fn cut(&self) {
        for sockets in self.shared.sockets.lock().unwrap().iter_mut() {
            for socket in sockets.drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// The round trips of all clients so far, without those for connecting.
    pub(crate) fn round_trips(&self) -> usize {
        self.shared.round_trips.load(Ordering::SeqCst)
    }

    /// The round trips that `work` makes.
    pub(crate) fn count(&self, work: impl FnOnce()) -> usize {
        let before = self.round_trips();
        work();
        self.round_trips() - before
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.freeze(false, false);
        let sockets = self.shared.sockets.lock().unwrap().take();
        for socket in sockets.into_iter().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)); // wakes the accept
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

/// The server itself, for what must not go through the proxy.
pub(crate) fn server() -> Config {
    let url = std::env::var("DATABASE_URL")
        .expect("DATABASE_URL: run the tests under scripts/with-postgres");
    url.parse().expect("DATABASE_URL names a server")
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        let Ok(server) = shared.connect() else {
            continue; // the client sees its connection closed
        };
        if !shared.keep(&client) || !shared.keep(&server) {
            break;
        }
        let (from_client, to_client) = (client.try_clone().unwrap(), client);
        let (from_server, to_server) = (server.try_clone().unwrap(), server);
        let (up, down) = (Arc::clone(shared), Arc::clone(shared));
        // The fault for the next reply on this connection.
        let next = Arc::new(Mutex::new(None));
        let next_reply = Arc::clone(&next);
        let gone = Arc::new(AtomicBool::new(false));
        let is_gone = Arc::clone(&gone);
        threads.push(thread::spawn(move || {
            let _ = up.requests(from_client, &to_server, &next, &is_gone);
            up.pass(REQUESTS);
            let _ = to_server.shutdown(Shutdown::Both);
        }));
        threads.push(thread::spawn(move || {
            let _ = down.replies(from_server, &to_client, &next_reply);
            down.pass(REPLIES);
            match down.stands_in.load(Ordering::SeqCst) {
                true => gone.store(true, Ordering::SeqCst),
                false => drop(to_client.shutdown(Shutdown::Both)),
            }
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

impl Shared {
    fn connect(&self) -> io::Result<TcpStream> {
        let port = self.server.get_ports().first().copied().unwrap_or(5432);
        match &self.server.get_hosts()[0] {
            Host::Tcp(host) => TcpStream::connect((host.as_str(), port)),
            // Reads, writes and shuts down as any other stream socket does.
            Host::Unix(directory) => {
                UnixStream::connect(directory.join(format!(".s.PGSQL.{port}")))
                    .map(|socket| TcpStream::from(OwnedFd::from(socket)))
            }
        }
    }

    /// False when the proxy is closed.
    fn keep(&self, socket: &TcpStream) -> bool {
        let _ = socket.set_nodelay(true); // a unix socket has no such option
        let mut sockets = self.sockets.lock().unwrap();
        let kept = sockets.as_mut().zip(socket.try_clone().ok());
        kept.map(|(sockets, socket)| sockets.push(socket)).is_some()
    }

    /// From client to server, message by message. A request is counted before it is passed on, so once
    /// the client has the reply, the request is counted.
    fn requests(
        &self,
        client: TcpStream,
        mut server: &TcpStream,
        next_reply: &Mutex<Option<Fault>>,
        is_gone: &AtomicBool,
    ) -> io::Result<()> {
        let mut to_client = client.try_clone()?;
        let mut client = BufReader::new(client);
        let (mut started, mut flight) = (false, Vec::new());
        let (mut prepared, mut before) = (HashMap::new(), 0);
        loop {
            // The messages up to the startup message have no type:
            // https://www.postgresql.org/docs/current/protocol-message-formats.html
            let start = flight.len();
            let header = if started { 5 } else { 4 };
            flight.resize(start + header, 0);
            client.read_exact(&mut flight[start..])?;
            let length = u32::from_be_bytes(*flight.last_chunk().unwrap()) as usize;
            let body = flight.len();
            flight.resize(body - 4 + length, 0);
            client.read_exact(&mut flight[body..])?;
            if !started {
                started = flight[body..].starts_with(&[0, 3]); // a request for TLS has 1234 there
            } else if awaits_reply(flight[start]) && before != b'P' {
                // A Parse with nothing but a Sync behind it prepares a statement, once a connection.
                self.round_trips.fetch_add(1, Ordering::SeqCst);
            }
            if is_gone.load(Ordering::SeqCst) {
                if awaits_reply(flight[start]) {
                    to_client.write_all(GONE)?;
                }
                flight.clear();
                continue;
            }
            before = if started { flight[start] } else { 0 };
            let text = statement(flight[start], &flight[body..], &mut prepared);
            match self.fault_of(&text) {
                Some(fault) if fault.point == Point::Before => go_on((fault.act)())?,
                Some(fault) => *next_reply.lock().unwrap() = Some(fault),
                None => {}
            }
            if client.buffer().is_empty() {
                self.pass(REQUESTS);
                thread::sleep(self.one_way);
                server.write_all(&flight)?;
                flight.clear();
            }
        }
    }

    /// Waits until a direction is not frozen.
    fn pass(&self, direction: usize) {
        let frozen = self.frozen.lock().unwrap();
        let _open = self.thawed.wait_while(frozen, |frozen| frozen[direction]);
    }

    /// Takes the fault, if it is for this message.
    fn fault_of(&self, text: &str) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        fault.take_if(|fault| text.contains(&fault.marker))
    }

    fn replies(
        &self,
        mut server: TcpStream,
        mut client: &TcpStream,
        next: &Mutex<Option<Fault>>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = server.read(&mut buffer)?;
            let is_end = buffer[..length].windows(6).any(|word| word == b"SFATAL");
            if length == 0 || is_end && self.stands_in.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.pass(REPLIES);
            thread::sleep(self.one_way);
            let mut passed = 0;
            if let Some(fault) = next.lock().unwrap().take() {
                if fault.point == Point::MidReply {
                    passed = length / 2;
                    client.write_all(&buffer[..passed])?;
                }
                go_on((fault.act)())?;
            }
            client.write_all(&buffer[passed..length])?;
        }
    }
}

/// An error, and that the next request may come.
const GONE: &[u8] =
    b"E\0\0\0\x35SERROR\0VERROR\0C58000\0Mserver connection is down\0\0Z\0\0\0\x05I";

/// What a message is to execute. A statement that is prepared by the protocol stands at its Bind, one that is
/// prepared by SQL at its EXECUTE too.
fn statement(kind: u8, body: &[u8], prepared: &mut HashMap<String, String>) -> String {
    let mut texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    match (kind, texts.next(), texts.next()) {
        (b'P', Some(name), Some(text)) => {
            prepared.insert(name.into(), text.into());
            String::new()
        }
        (b'B', Some(_), Some(name)) => prepared.get(&*name).cloned().unwrap_or_default(),
        (_, Some(text), _) => {
            let mut whole = text.to_string();
            for (verb, known) in [("PREPARE ", false), ("EXECUTE ", true)] {
                for (at, _) in text.match_indices(verb) {
                    let Some((name, rest)) = text[at + verb.len()..].split_once('(') else {
                        continue;
                    };
                    match known {
                        false => drop(prepared.insert(name.to_owned(), rest.to_owned())),
                        true => whole += prepared.get(name).map_or("", String::as_str),
                    }
                }
            }
            whole
        }
        _ => String::new(),
    }
}

/// An error ends the connection's thread, and with it both directions.
fn go_on(then: Then) -> io::Result<()> {
    match then {
        Then::GoOn => Ok(()),
        Then::Cut => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Query, Sync, FunctionCall and Flush: after these a client waits. (The `postgres` crate does not wait
/// after the Sync with which it closes a prepared statement; it counts all the same.)
fn awaits_reply(message: u8) -> bool {
    matches!(message, b'Q' | b'S' | b'F' | b'H')
}
