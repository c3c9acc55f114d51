//! A label is a comment, whatever the name, and nothing else of the message is.

use pglock::{Error, Lock, quote_literal};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Harness, InTransaction, holds};
use crate::oracle::{Oracle, Table, unique_name};

/// Names of all characters, and of those that begin and end comments, cut at any place.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        "(?s:.){0,150}",
        "a{0,150}[*/]{1,4}",
        "[*/\"'\\\\$\0\u{e9}\u{1F512}]{0,150}",
    ]
}

fn check(mut holds: impl FnMut(&str)) {
    let own = unique_name("l");
    for length in 0..150 {
        holds(&format!("{own}{}/", "a".repeat(length)));
    }
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(50)
    });
    let holds = std::cell::RefCell::new(holds);
    let result = runner.run(&names(), |name| {
        holds.borrow_mut()(&format!("{own}{name}"));
        Ok(())
    });
    result.unwrap();
}

pub fn a_label_swallows_nothing<H: Harness>() {
    let mut oracle = Oracle::new();
    H::with(|backend| {
        check(|name| {
            let mut lock = Lock::new(&mut *backend, name).labelled(true);
            lock.run(|_| {
                oracle.holder(&name.into());
                Ok::<_, Error>(())
            })
            .unwrap();
        });
    });
}

/// The end of a comment in a value, which would begin behind a lock that was swallowed.
pub fn nothing_runs_without_the_lock_behind_a_label<H: Harness>() {
    let (mut oracle, table) = (Oracle::new(), Table::new());
    let value = quote_literal(format!("*/ */; {}; --", table.insert()));
    let text = format!("SELECT {value}; {}", table.insert());
    H::with(|backend| {
        let mut rows = 0;
        check(|name| {
            let key = name.into();
            oracle.lock(&key);
            let mut lock = Lock::new(&mut *backend, name).labelled(true);
            assert!(!lock.try_batch_execute(&text).unwrap(), "{name:?}");
            oracle.unlock(&key);
            lock.batch_execute(&text).unwrap();
            rows += 1;
            assert_eq!(oracle.count(&table.name), rows, "{name:?}");
        });
    });
}

pub fn a_label_swallows_nothing_in_a_transaction<H: InTransaction>() {
    let mut oracle = Oracle::new();
    H::with(|backend| {
        check(|name| {
            let mut lock = Lock::new(&mut *backend, name).labelled(true);
            drop(lock.acquire().unwrap());
            oracle.holder(&name.into());
        });
        assert!(holds(backend, "true"));
    });
}
