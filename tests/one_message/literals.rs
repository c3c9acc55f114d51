//! `literal`: what goes in comes out.

use std::cell::RefCell;

use pglock::{Error, Lock, LockBackend, quote_literal};
use postgres::Client;
use postgres::SimpleQueryMessage::Row;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{DieselConnection, Harness, PostgresClient, on};
use crate::oracle::{Table, connect, unique_key};

fn comes_out(client: &mut Client, text: &str) -> Option<String> {
    let query = format!("SELECT {}::text", quote_literal(text));
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
            quote_literal(text),
            quote_literal(text)
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
        quote_literal(42),
        quote_literal(true),
        quote_literal("2026-11-21")
    );
    Lock::new(&mut client, unique_key())
        .batch_execute(&check)
        .unwrap();
}

/// Those in which a character may have a byte of ASCII in it, such as a backslash.
const UNSAFE: [&str; 5] = ["SJIS", "BIG5", "GBK", "GB18030", "UHC"];

/// Fails unless a text arrives, byte by byte.
fn arrives<B: LockBackend>(backend: &mut B, text: &str) -> Result<(), Error> {
    let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let check = format!(
        "SELECT 1 / (encode(convert_to({}, 'UTF8'), 'hex') = '{bytes}')::int",
        quote_literal(text)
    );
    Lock::new(backend, unique_key()).batch_execute(&check)
}

fn set<B: LockBackend>(backend: &mut B, encoding: &str, standard: &str) {
    let settings = format!(
        "SET backslash_quote = on; SET escape_string_warning = on; \
         SET client_encoding = '{encoding}'; SET standard_conforming_strings = {standard}"
    );
    on(backend, &settings).unwrap();
}

/// In SJIS, the last byte of the first character and the backslash are one character.
pub fn what_a_value_says_does_not_run<H: Harness>() {
    let table = Table::new();
    let value = format!("\u{101}\\'; {}; --", table.insert());
    H::with(|backend| {
        for encoding in UNSAFE {
            set(backend, encoding, "on");
            let select = format!("SELECT {}", quote_literal(&value));
            let result = Lock::new(&mut *backend, unique_key()).batch_execute(&select);
            assert_eq!(table.rows(), 0, "{encoding}: {result:?}");
        }
    });
}

fn every_character_arrives<H: Harness>() {
    let rare = ('\u{10000}'..=char::MAX).step_by(61);
    let all: Vec<_> = ('\u{1}'..='\u{ffff}').chain(rare).collect();
    H::with(|backend| {
        for encoding in UNSAFE {
            set(backend, encoding, "on");
            // The backslash and the quote are what a first byte may swallow.
            for text in all.chunks(10_000) {
                let text: String = text.iter().flat_map(|c| [*c, '\\', *c, '\'']).collect();
                arrives(backend, &text).unwrap_or_else(|error| panic!("{encoding}: {error}"));
            }
        }
    });
}

#[test]
fn every_character_arrives_in_every_encoding() {
    every_character_arrives::<PostgresClient>();
    every_character_arrives::<DieselConnection>();
}

pub fn no_text_leaves_its_literal<H: Harness>() {
    let texts = prop_oneof![
        "([^\0]|['\\\\$]){0,8}",
        "[^\0]{0,3}\\\\?'; SELECT 1 / 0; --"
    ];
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(60)
    });
    H::with(|backend| {
        for (encoding, standard) in UNSAFE.iter().flat_map(|e| [(e, "on"), (e, "off")]) {
            set(backend, encoding, standard);
            let backend = RefCell::new(&mut *backend);
            let result = runner.run(&texts, |text| {
                let arrived = arrives(*backend.borrow_mut(), &text);
                prop_assert!(arrived.is_ok(), "{encoding}: {:?}", arrived);
                Ok(())
            });
            result.unwrap();
        }
    });
}

#[test]
fn what_the_clients_encoding_does_not_have_arrives_too() {
    let mut client = connect();
    for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
        set(&mut client, encoding, "on");
        arrives(&mut client, "\u{1F512}\u{e9}").unwrap();
    }
}
