//! The server, which speaks correctly until the script begins.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::reply::{End, Item, Reply, Text};

pub struct Server {
    port: u16,
    script: Arc<Mutex<Log>>,
}

/// What one script has sent.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    begun: bool,
    replies: Vec<Reply>,
}

impl Log {
    /// From now on the server follows the script.
    pub fn begin(&self) {
        self.0.lock().unwrap().begun = true;
    }

    /// How many messages have been answered.
    pub fn answered(&self) -> usize {
        self.0.lock().unwrap().replies.len()
    }

    /// Whether a message from that number on was granted.
    pub fn is_granted_from(&self, from: usize, is_refusal: fn(&str) -> bool, libpq: bool) -> bool {
        let state = self.0.lock().unwrap();
        let mut replies = state.replies.iter().skip(from);
        replies.any(|reply| reply.grants(is_refusal, libpq))
    }

    fn next(&self) -> Option<Reply> {
        let mut state = self.0.lock().unwrap();
        if !state.begun {
            return Some(Reply {
                items: vec![Item::Complete(b"SET".to_vec())],
                end: End::Ready(b'I'),
                columns: (1, 25),
            });
        }
        let reply = state.script.pop_front()?;
        state.replies.push(reply.clone());
        Some(reply)
    }
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::<Mutex<Log>>::default();
        let current = Arc::clone(&script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = current.lock().unwrap().clone();
                // An error means that the client has ended.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &log)));
            }
        });
        Self { port, script }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives the next connection this script, once its log begins.
    pub fn follow(&self, script: &[Reply]) -> Log {
        let log = Log::default();
        log.0.lock().unwrap().script = script.iter().cloned().collect();
        *self.script.lock().unwrap() = log.clone();
        log
    }
}

fn serve(mut stream: TcpStream, log: &Log) -> io::Result<()> {
    stream.set_nodelay(true)?;
    read_body(&mut stream)?; // the start-up packet
    stream.write_all(&greeting())?;
    let (mut prepares, mut statement) = (Vec::new(), Vec::new());
    loop {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let body = read_body(&mut stream)?;
        match kind[0] {
            b'D' if body.first() == Some(&b'P') => prepares.push(PORTAL),
            b'P' | b'B' | b'D' | b'C' => prepares.push(kind[0]),
            b'E' | b'd' | b'H' => {}
            b'Q' | b'S' | b'f' | b'c' => {
                statement = if kind[0] == b'Q' { body } else { statement };
                let Some(reply) = log.next() else { break };
                let mut bytes = preamble(&std::mem::take(&mut prepares), reply.columns);
                let go_on = write(&reply, &statement, &mut bytes);
                stream.write_all(&bytes)?;
                if !go_on {
                    break;
                }
            }
            _ => break, // Terminate
        }
    }
    stream.shutdown(Shutdown::Both)
}

fn read_body(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn greeting() -> Vec<u8> {
    let mut bytes = message(b'R', &[&[0, 0, 0, 0]]);
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("server_version", "15.4"),
        ("standard_conforming_strings", "on"),
    ] {
        bytes.extend(message(
            b'S',
            &[name.as_bytes(), &[0], value.as_bytes(), &[0]],
        ));
    }
    bytes.extend(message(b'K', &[&[0, 0, 0, 1, 0, 0, 0, 2]]));
    bytes.extend(message(b'Z', &[b"I"]));
    bytes
}

/// The description of a portal, which has no parameters any more.
const PORTAL: u8 = b'p';

/// The well-formed beginning of the reply to messages of the extended protocol.
fn preamble(prepares: &[u8], (columns, kind): (u16, u32)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for prepare in prepares {
        match prepare {
            b'P' => bytes.extend(message(b'1', &[])),
            b'B' => bytes.extend(message(b'2', &[])),
            b'C' => bytes.extend(message(b'3', &[])),
            &PORTAL => bytes.extend(description(columns, kind)),
            _ => {
                bytes.extend(message(b't', &[&[0, 0]]));
                bytes.extend(description(columns, kind));
            }
        }
    }
    bytes
}

fn description(columns: u16, kind: u32) -> Vec<u8> {
    let mut fields = columns.to_be_bytes().to_vec();
    for _ in 0..columns {
        fields.extend(b"line\0\0\0\0\0\0\0");
        fields.extend(kind.to_be_bytes());
        fields.extend(b"\xff\xff\xff\xff\xff\xff\0\0");
    }
    message(b'T', &[&fields])
}

/// Returns whether the conversation goes on.
fn write(reply: &Reply, statement: &[u8], bytes: &mut Vec<u8>) -> bool {
    for item in &reply.items {
        write_item(item, statement, bytes);
    }
    // A client that copies would wait for more for ever.
    let copies = |item: &Item| matches!(item, Item::CopyOut | Item::CopyIn);
    let go_on = !reply.items.iter().any(copies);
    match reply.end {
        End::Ready(status) => bytes.extend(message(b'Z', &[&[status]])),
        End::ReadyTwice(status) => {
            bytes.extend(message(b'Z', &[&[status]]));
            bytes.extend(message(b'Z', &[&[status]]));
        }
        End::Close => return false,
        End::Half => {
            bytes.extend(&message(b'C', &[b"SELECT 1\0"])[..7]);
            return false;
        }
    }
    go_on
}

fn write_item(item: &Item, statement: &[u8], bytes: &mut Vec<u8>) {
    match item {
        Item::Rows(columns, rows) => {
            bytes.extend(description(*columns, 25));
            for row in rows {
                bytes.extend(data_row(row));
            }
        }
        Item::BareRow => bytes.extend(data_row(&[Some(b"bare".to_vec())])),
        Item::Complete(tag) => bytes.extend(message(b'C', &[tag, &[0]])),
        Item::Empty => bytes.extend(message(b'I', &[])),
        Item::Error(state, text) => bytes.extend(fields(b'E', b"ERROR", state, text, statement)),
        Item::Notice(text) => bytes.extend(fields(b'N', b"WARNING", b"01000", text, statement)),
        Item::Parameter(name, value) => {
            bytes.extend(message(b'S', &[name, &[0], value, &[0]]));
        }
        Item::Notification => bytes.extend(message(b'A', &[b"\0\0\0\x01channel\0payload\0"])),
        Item::CopyOut => bytes.extend(message(b'H', &[&[0, 0, 0]])),
        Item::CopyIn => bytes.extend(message(b'G', &[&[0, 0, 0]])),
        Item::Unknown => bytes.extend(message(b'!', &[b"what?"])),
    }
}

fn data_row(row: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut fields = u16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
    for value in row {
        let length = value
            .as_ref()
            .map_or(-1, |value| i32::try_from(value.len()).unwrap());
        fields.extend(length.to_be_bytes());
        fields.extend(value.iter().flatten());
    }
    message(b'D', &[&fields])
}

fn fields(kind: u8, severity: &[u8], state: &[u8], text: &Text, statement: &[u8]) -> Vec<u8> {
    let (mark, text) = match text {
        Text::Plain(text) => (&[][..], text),
        Text::Marked(text) => (mark(statement), text),
    };
    let mut parts: Vec<&[u8]> = Vec::new();
    for (code, value) in [(b"S", severity), (b"V", severity), (b"C", state)] {
        parts.extend([code.as_slice(), value, &[0]]);
    }
    parts.extend([b"M".as_slice(), mark, text, &[0], &[0]]);
    message(kind, &parts)
}

/// The client's mark, where the statement has it: `pglock-` and sixteen digits.
fn mark(statement: &[u8]) -> &[u8] {
    const START: &[u8] = b"pglock-";
    let found = statement
        .windows(START.len())
        .position(|window| window == START);
    let rest = found.map_or(&[][..], |start| &statement[start..]);
    rest.get(..START.len() + 17).unwrap_or_default()
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(length + 4).unwrap().to_be_bytes());
    bytes.extend(parts.concat());
    bytes
}
