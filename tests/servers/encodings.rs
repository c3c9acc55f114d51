//! Who holds a lock is told whatever bytes a name has: roles belong to all databases, and have the bytes
//! that the database of their creation gave them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, FirstFree, Lock, LockBackend, inspect};
use postgres::{Client, NoTls};

use super::{never, server::Server};

/// A session that holds the key 1, after a statement of any bytes.
struct Holder {
    _socket: UnixStream,
}

impl Holder {
    fn new(server: &Server, database: &str, comment: &[u8]) -> Self {
        let mut socket = UnixStream::connect(server.dir().join(".s.PGSQL.5432")).unwrap();
        let parameters =
            format!("user\0holder\0database\0{database}\0client_encoding\0SQL_ASCII\0\0");
        let version = 0x0003_0000_u32.to_be_bytes();
        send(&mut socket, &[], &[&version, parameters.as_bytes()]);
        let statement = b"SELECT pg_advisory_lock(1)\0";
        send(
            &mut socket,
            b"Q",
            &[b"/*pglock key ", comment, b"*/", statement],
        );
        Self { _socket: socket }
    }
}

/// Sends a message, and waits until the server is ready for the next.
fn send(socket: &mut UnixStream, kind: &[u8], parts: &[&[u8]]) {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    socket.write_all(&[kind, &length, &body].concat()).unwrap();
    loop {
        let mut header = [0; 5];
        socket.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; length as usize - 4];
        socket.read_exact(&mut body).unwrap();
        match header[0] {
            b'Z' => return,
            b'E' => panic!("{}", String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
}

/// A database, the bytes of the role and of the comment, and what they show.
type Case<'c> = (&'c str, &'c str, &'c [u8], &'c str, &'c str);

const CASES: [Case<'static>; 9] = [
    (
        "ascii",
        r"caf\xe9",
        b"caf\xe9 \xff",
        r"caf\xe9",
        r"caf\xe9 \xff",
    ),
    ("ascii", r"caf\xc3\xa9", b"caf\xc3\xa9", "café", "café"),
    ("postgres", r"caf\xe9", b"plain", r"caf\xe9", "plain"),
    (
        "postgres",
        r"caf\xc3\xa9\xc3",
        "\u{1F512}".as_bytes(),
        r"café\xc3",
        "\u{1F512}",
    ),
    (
        "postgres",
        r#"it''s "" \\ {1} \x1f\x1e"#,
        b"it's \" \\ \x1e\x1f''",
        r#"it's " \ {1} \u{1f}\u{1e}"#,
        r#"it's " \ \u{1e}\u{1f}''"#,
    ),
    (
        "postgres",
        r"\x1b[2J\n\x7f\xc2\x9b\xe2\x80\xae",
        "\u{1b}[2J\r\u{9b}\u{202e}\u{2066}".as_bytes(),
        r"\u{1b}[2J\n\u{7f}\u{9b}\u{202e}",
        r"\u{1b}[2J\r\u{9b}\u{202e}\u{2066}",
    ),
    ("latin1", r"caf\xe9", b"caf\xe9", "café", "café"),
    (
        "latin1",
        r"caf\xc3\xa9\x9b",
        b"plain",
        r"cafÃ©\u{9b}",
        "plain",
    ),
    ("japanese", r"caf\xe9", b"plain", r"caf\xe9", "plain"),
];

#[test]
fn a_name_of_any_bytes_hides_nobody() {
    let server = Server::new("encodings");
    server.start();
    let mut admin = Client::connect(&server.url(), NoTls).unwrap();
    admin.batch_execute("CREATE ROLE holder LOGIN").unwrap();
    for (database, encoding) in [
        ("ascii", "SQL_ASCII"),
        ("latin1", "LATIN1"),
        ("japanese", "EUC_JP"),
    ] {
        let create = format!(
            "CREATE DATABASE {database} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        admin.batch_execute(&create).unwrap();
    }
    let in_database = |name: &str| [server.url().trim_end_matches("postgres"), name].concat();
    let mut anything = Client::connect(&in_database("ascii"), NoTls).unwrap();
    anything
        .batch_execute("SET client_encoding = 'SQL_ASCII'")
        .unwrap();
    for (database, role, comment, user, label) in CASES {
        let holder = Holder::new(&server, database, comment);
        rename(&mut anything, "holder", role);
        let told = Told { user, label };
        on_every_driver!(is_told(&in_database(database), &told));
        rename(&mut anything, role, "holder");
        drop(holder);
        while super::granted_on(&in_database(database)) > 0 {}
    }
}

/// A driver that drops what it cannot read must not make it a queue without work.
#[test]
fn an_id_of_any_bytes_is_never_no_row() {
    let server = Server::new("encodings-ids");
    server.start();
    let mut admin = Client::connect(&server.url(), NoTls).unwrap();
    let create =
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    admin.batch_execute(create).unwrap();
    let url = [server.url().trim_end_matches("postgres"), "ascii"].concat();
    let mut client = Client::connect(&url, NoTls).unwrap();
    let create = r"CREATE TABLE job (id text); INSERT INTO job VALUES ('plain'), (E'caf\xe9')";
    client.batch_execute(create).unwrap();
    on_every_driver!(is_never_no_row(&url));
}

fn is_never_no_row<B: LockBackend>(backend: &mut B, _: &str) {
    let jobs = || FirstFree::new("job", "id").order_by_desc("id");
    for encoding in ["UTF8", "SQL_ASCII"] {
        let set = format!("SET client_encoding = '{encoding}'");
        Session::send(&mut *backend.session().unwrap(), &set).unwrap();
        let one = jobs().filter("id <> 'plain'");
        let one = one.run_in_transaction(&mut *backend, |_, id: String| -> Result<(), Error> {
            panic!("{id:?}")
        });
        let two = jobs().up_to(2);
        let two = two
            .run_in_transaction(&mut *backend, |_, ids: Vec<String>| -> Result<(), Error> {
                panic!("{ids:?}")
            });
        for error in [one.unwrap_err(), two.unwrap_err()] {
            assert!(
                matches!(error, Error::Database { .. }),
                "{encoding}: {error:?}"
            );
        }
        let plain = jobs().filter("id = 'plain'");
        let plain = plain.run_in_transaction(&mut *backend, |_, id: String| Ok::<_, Error>(id));
        assert_eq!(plain.unwrap().as_deref(), Some("plain"));
    }
}

/// Names with the escapes of a literal.
fn rename(client: &mut Client, from: &str, to: &str) {
    let rename = format!(
        r#"DO $$ BEGIN EXECUTE format(E'ALTER ROLE "%s" RENAME TO "%s"', E'{from}', E'{to}'); END $$"#
    );
    client.batch_execute(&rename).unwrap();
}

struct Told<'t> {
    user: &'t str,
    label: &'t str,
}

fn is_told<B: LockBackend>(backend: &mut B, told: &Told<'_>) {
    for encoding in ["UTF8", "LATIN1", "SJIS"] {
        let set = format!("SET client_encoding = '{encoding}'");
        let set = Session::send(&mut *backend.session().unwrap(), &set);
        if encoding != "UTF8" && set.is_err() {
            continue; // no conversion from this database's
        }
        let mut claims = inspect::holders(backend, 1).unwrap();
        claims.extend(inspect::locks(backend).unwrap());
        let mut lock = Lock::new(&mut *backend, 1).timeout(Duration::from_millis(5));
        for result in [lock.run(never), lock.run_in_transaction(|_| never(&mut ()))] {
            let Err(Error::Timeout { holders, .. }) = result else {
                panic!("no timeout: {result:?}")
            };
            claims.extend(holders);
        }
        let seen: Vec<_> = claims
            .iter()
            .map(|claim| (claim.user.as_deref(), claim.label.as_deref()))
            .collect();
        assert_eq!(seen, [(Some(told.user), Some(told.label)); 4], "{encoding}");
    }
}
