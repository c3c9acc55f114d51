//! Scripts with a meaning, each tested by name.

use pglock::{Error, with_lock};

use crate::reply::{End, Item, Reply, Text};
use crate::server::Server;
use crate::verbs::Calls;

fn reply(items: &[Item], end: End) -> Reply {
    Reply {
        items: items.to_vec(),
        end,
        columns: (1, 25),
    }
}

fn done() -> Item {
    Item::Complete(b"SELECT 0".to_vec())
}

fn row(columns: u16, value: &[u8]) -> Item {
    let row = vec![Some(value.to_vec()); usize::from(columns)];
    Item::Rows(columns, vec![row])
}

fn error(text: Text) -> Item {
    Item::Error(b"P0001".to_vec(), text)
}

/// The result of a section on a server that follows a script.
fn section<C: Calls>(script: &[Reply]) -> Result<(), Error> {
    let server = Server::start();
    let log = server.follow(script);
    let mut connection = C::connect(server.port());
    log.begin();
    with_lock(&mut connection, "key", |_| Ok(()))
}

/// The same for a reply to the acquire, and a good one to the release.
fn acquire<C: Calls>(items: &[Item], end: End) -> Result<(), Error> {
    let good = || reply(&[done()], End::Ready(b'I'));
    match C::LIBPQ {
        // diesel prepares each statement in a message of its own, once a connection.
        true => section::<C>(&[good(), reply(items, end), good(), good()]),
        false => section::<C>(&[reply(items, end), good()]),
    }
}

#[test]
fn a_good_reply_is_a_lock() {
    fn check<C: Calls>() {
        acquire::<C>(&[done()], End::Ready(b'I')).unwrap();
        let noise = [
            Item::Notice(Text::Plain(b"\xff busy".to_vec())),
            Item::Parameter(b"TimeZone".to_vec(), b"UTC".to_vec()),
            Item::Notification,
            done(),
        ];
        acquire::<C>(&noise, End::Ready(b'I')).unwrap();
    }
    check::<postgres::Client>();
    check::<diesel::PgConnection>();
}

#[test]
fn the_end_of_another_reply_is_no_lock() {
    fn check<C: Calls>() {
        let script = [reply(&[], End::Ready(b'I'))];
        section::<C>(&script).unwrap_err();
    }
    check::<postgres::Client>();
    check::<diesel::PgConnection>();
}

#[test]
fn half_a_reply_is_a_lost_connection() {
    fn check<C: Calls>() {
        for end in [End::Half, End::Close] {
            let lost = acquire::<C>(&[done()], end);
            assert!(
                matches!(lost, Err(Error::ConnectionLost { .. })),
                "{lost:?}"
            );
        }
    }
    check::<postgres::Client>();
    check::<diesel::PgConnection>();
}

/// The server can read the mark in the statement. With it, it can only refuse, as it always can.
#[test]
fn an_echo_of_the_mark_can_only_refuse() {
    fn check<C: Calls>() {
        for text in [
            "busy",
            "not held",
            "in recovery",
            "rows true\x1e",
            "00000 fine",
        ] {
            let echo = error(Text::Marked(text.as_bytes().to_vec()));
            acquire::<C>(&[echo], End::Ready(b'I')).unwrap_err();
        }
    }
    check::<postgres::Client>();
    check::<diesel::PgConnection>();
}

#[test]
fn an_error_in_no_encoding_is_an_error() {
    fn check<C: Calls>() {
        for text in [&b"\xff\xfe"[..], b""] {
            let failed = acquire::<C>(&[error(Text::Plain(text.to_vec()))], End::Ready(b'I'));
            // Of a driver without SQLSTATE, what a try does not meet again was a cancel.
            let canceled = C::LIBPQ && matches!(failed, Err(Error::Canceled { .. }));
            assert!(
                canceled || matches!(failed, Err(Error::Database { .. })),
                "{failed:?}"
            );
        }
    }
    check::<postgres::Client>();
    check::<diesel::PgConnection>();
}

/// Only a driver that reads rows takes a row for a refusal.
#[test]
fn rows_of_any_form_do_no_harm() {
    for strange in [row(0, b""), row(1, b"\xff"), row(3, b"granted")] {
        acquire::<postgres::Client>(&[strange, done()], End::Ready(b'I')).unwrap();
    }
    acquire::<postgres::Client>(&[row(2, b"busy"), done()], End::Ready(b'I')).unwrap_err();
}
