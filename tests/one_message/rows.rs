//! What the statements return, with `postgres`.

use pglock::{Error, Lock};
use postgres::SimpleQueryMessage::{self, CommandComplete, Row, RowDescription};

use crate::oracle::{Oracle, connect, unique_key};

fn shown(messages: &[SimpleQueryMessage]) -> Vec<String> {
    let show = |message: &SimpleQueryMessage| match message {
        Row(row) => format!("row {}", row.get(0).unwrap_or("NULL")),
        CommandComplete(rows) => format!("done {rows}"),
        RowDescription(columns) => format!("columns {}", columns.len()),
        _ => "other".to_owned(),
    };
    messages.iter().map(show).collect()
}

const TEXTS: [(&str, &[&str]); 7] = [
    ("SELECT 'busy'", &["columns 1", "row busy", "done 1"]),
    (
        "SELECT 'not held', 2 -- end",
        &["columns 2", "row not held", "done 1"],
    ),
    (
        "CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2); DROP TABLE t",
        &["done 0", "done 2", "done 0"],
    ),
    ("DO $$ BEGIN END $$", &["done 0"]),
    ("", &[]),
    ("; -- commit", &[]),
    ("SELECT 'copy'", &["columns 1", "row copy", "done 1"]),
];

#[test]
fn nothing_of_ours_is_in_the_result() {
    let mut client = connect();
    for (text, expected) in TEXTS {
        let messages = Lock::new(&mut client, unique_key())
            .simple_query(text)
            .unwrap();
        assert_eq!(shown(&messages), expected, "{text}");
        let mut transaction = client.transaction().unwrap();
        let mut lock = Lock::new(&mut transaction, unique_key());
        let messages = lock.try_simple_query(text).unwrap().unwrap();
        assert_eq!(shown(&messages), expected, "{text}, inside");
    }
}

#[test]
fn a_block_that_acquires_is_not_in_the_result_either() {
    let mut client = connect();
    for (text, expected) in TEXTS {
        let mut lock = Lock::new(&mut client, unique_key()).keep_place(true);
        assert_eq!(shown(&lock.simple_query(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn a_held_lock_gives_none() {
    let (key, mut oracle, mut client) = (unique_key(), Oracle::new(), connect());
    oracle.lock(&key);
    let mut lock = Lock::new(&mut client, &key);
    assert!(lock.try_simple_query("SELECT 1").unwrap().is_none());
    let mut lock = lock.timeout(std::time::Duration::from_millis(20));
    let error = lock.simple_query("SELECT 1").unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
}
