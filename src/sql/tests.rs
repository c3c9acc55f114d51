use std::time::Duration;

use super::*;
use crate::request::Request;

/// Every statement that takes a lock, for one key and for several.
fn acquires() -> Vec<String> {
    let mut statements = Vec::new();
    for keys in [vec![Key::from(1)], vec![Key::from(1), Key::from((2, 3))]] {
        for timeout in [None, Some(Duration::ZERO), Some(Duration::from_secs(1))] {
            let mut request = Request::on_keys(keys.clone());
            request.timeout = timeout;
            let (lock, wait) = (&request.lock, request.wait());
            statements.push(session::lock_by_rows(lock, wait));
            statements.push(session::lock_by_errors(lock, wait));
            statements.push(session::all_unlocked(lock));
            for answers in [Answers::Rows, Answers::Errors] {
                statements.push(acquire_in_transaction(lock, wait, answers));
                statements.push(acquire_at_begin(lock, wait, answers));
            }
        }
    }
    statements
}

proptest::proptest! {
    /// Statements for two names differ in the digits of the keys and in nothing else.
    #[test]
    fn only_digits_of_a_name_reach_the_sql(one: String, other: String, space: String) {
        let text = |name: &str| {
            let keys = vec![Key::from(name), Key::namespaced(space.clone(), name.to_owned())];
            let lock = Request::on_keys(keys).lock;
            let digits = |c: char| c.is_ascii_digit() || c == '-';
            [
                session::lock_by_errors(&lock, Wait::Session),
                acquire_in_transaction(&lock, Wait::Millis(7), Answers::Rows),
                session::lock_by_rows(&lock, Wait::Millis(7)),
                held(&lock, Answers::Rows),
            ]
            .map(|statement| statement.replace(digits, ""))
        };
        proptest::prop_assert_eq!(text(&one), text(&other));
    }
}

#[test]
fn lock_calls_have_no_from_clause() {
    for statement in acquires() {
        let statement = statement.replace("extract(epoch FROM", "");
        assert!(statement.contains("pg_"), "{statement}");
        assert!(!statement.contains("FROM"), "{statement}");
    }
}
