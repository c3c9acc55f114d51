//! `literal`: what goes in comes out.

use std::cell::RefCell;

use pglock::{Lock, literal};
use postgres::Client;
use postgres::SimpleQueryMessage::Row;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::of_statements;
use crate::oracle::{Table, connect, unique_key};

fn comes_out(client: &mut Client, text: &str) -> Option<String> {
    let query = format!("SELECT {}::text", literal(text));
    let messages = Lock::new(client, unique_key())
        .simple_query(&query)
        .unwrap();
    messages.iter().find_map(|message| match message {
        Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

#[test]
fn what_goes_in_comes_out() {
    let mut client = connect();
    let mut runner = TestRunner::new(Config::with_cases(200));
    let parts = prop_oneof![
        "[^\0]{0,6}",
        Just(r"\".to_owned()),
        Just("'".to_owned()),
        Just("$$".to_owned()),
        Just("$pglock$".to_owned()),
        Just(r"\x24 \n \u0041".to_owned()),
        Just("\r\n-- */ /* ;commit;".to_owned()),
    ];
    let texts = proptest::collection::vec(parts, 0..6).prop_map(|parts| parts.concat());
    for setting in ["on", "off"] {
        client
            .batch_execute(&format!(
                "SET standard_conforming_strings = {setting}; SET backslash_quote = off"
            ))
            .unwrap();
        let client = RefCell::new(&mut client);
        let result = runner.run(&texts, |text| {
            prop_assert_eq!(comes_out(&mut client.borrow_mut(), &text), Some(text));
            Ok(())
        });
        result.unwrap();
    }
}

#[test]
fn a_literal_stands_in_a_dollar_quoted_body() {
    let mut client = connect();
    for text in ["$$", "$body$; SELECT 1 / 0", r"\$$'"] {
        let check = format!(
            "DO $body$ BEGIN ASSERT {} = {}; END $body$",
            literal(text),
            literal(text)
        );
        Lock::new(&mut client, unique_key())
            .batch_execute(&check)
            .unwrap();
    }
}

#[test]
fn a_literal_is_of_the_type_that_is_needed() {
    let mut client = connect();
    let check = format!(
        "CREATE TEMP TABLE typed (i int, b bool, d date); \
         INSERT INTO typed VALUES ({}, {}, {}); SELECT 1 / (i = 42 AND b)::int FROM typed",
        literal(42),
        literal(true),
        literal("2026-11-21")
    );
    Lock::new(&mut client, unique_key())
        .batch_execute(&check)
        .unwrap();
}

/// Nothing runs.
#[test]
fn what_the_encoding_does_not_have_is_an_error() {
    let (key, table) = (unique_key(), Table::new());
    let mut client = connect();
    let text = format!("{}; SELECT {}", table.insert(), literal("\u{1F512}"));
    client
        .batch_execute("SET client_encoding = 'SQL_ASCII'")
        .unwrap();
    // The bytes are UTF-8, whatever encoding the session has.
    Lock::new(&mut client, &key).batch_execute(&text).unwrap();
    client
        .batch_execute("SET client_encoding = 'EUC_JP'")
        .unwrap();
    of_statements(
        Lock::new(&mut client, &key)
            .batch_execute(&text)
            .unwrap_err(),
    );
    assert_eq!(table.rows(), 1);
}
