use super::time::WaitTime;
use super::*;
use crate::request::Request;

const TIMES: [WaitTime; 5] = [
    WaitTime::No,
    WaitTime::InPlace(None),
    WaitTime::InPlace(Some(7)),
    WaitTime::Slice(700),
    WaitTime::OwnSlice(700),
];

/// Every statement on keys, but those that look at `pg_locks`.
fn statements(lock: &LockInfo) -> Vec<Statement> {
    let mut statements = Vec::new();
    for time in TIMES {
        for line in [Line::Respect, Line::Pass] {
            statements.push(acquire_for_session(lock, time, Client::Own, line));
        }
        for inside in [Inside::Transaction, Inside::Waited, Inside::Message] {
            for named in [
                None,
                Some(Named::Transaction("x")),
                Some(Named::Message("x")),
            ] {
                let client = Client::Own;
                statements.push(acquire_in_transaction(lock, time, inside, client, named));
            }
        }
    }
    statements.push(release(lock));
    statements.push(held_by_session(lock));
    statements.push(change_mode(lock, WaitTime::InPlace(Some(7))));
    statements.extend(of_a_semaphore(lock, 0));
    statements
}

/// What acquires one of the keys of a lock, of which some may be held.
fn of_a_semaphore(lock: &LockInfo, held: usize) -> Vec<Statement> {
    let queue = Key::from(7);
    let slots = semaphore::Slots {
        lock,
        order: lock.keys(),
        held: &lock.keys()[..held],
        queue: &queue,
    };
    [false, true]
        .map(|at_head| slots.attempt(Client::Own, at_head))
        .into()
}

fn looking(lock: &LockInfo) -> Vec<Statement> {
    let mut statements = of_a_semaphore(lock, 1);
    let other = Client::Other;
    statements.push(acquire_for_session(
        lock,
        WaitTime::No,
        other,
        Line::Respect,
    ));
    statements.push(acquire_in_transaction(
        lock,
        WaitTime::No,
        Inside::Transaction,
        other,
        None,
    ));
    statements
}

/// A statement is planned once a session, and stands once in `pg_stat_statements`, whatever it locks.
#[test]
fn a_prepared_statement_is_the_same_for_all_keys() {
    let of = |one: i64, other: i64| {
        let lock = Request::new(vec![Key::from(one), Key::from((1, other as i32))].into()).lock;
        statements(&lock)
            .iter()
            .map(Statement::id)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(1, 2), of(i64::MIN, -3));
}

proptest::proptest! {
    /// Statements for two names differ in the digits of the keys and in nothing else.
    #[test]
    fn only_digits_of_a_name_reach_the_sql(one: String, other: String, space: String) {
        let text = |name: &str| {
            let keys = vec![Key::from(name), Key::namespaced(space.clone(), name.to_owned())];
            let lock = Request::new(keys.into()).lock;
            let digits = |c: char| c.is_ascii_digit() || c == '-';
            let statements = [statements(&lock), looking(&lock)].concat();
            let mut texts: Vec<_> = statements.iter().map(Statement::text).collect();
            let wait = Wait::new(&lock);
            texts.extend([held(&lock), held_in_any_mode(&lock), all_slots_wait_for_us(&lock)]);
            texts.extend([wait.in_line(1, 2, true), wait.in_queue(3), wait.leave()]);
            texts.extend([wait.try_all(), wait.exactly(WaitTime::No, true)]);
            // Each wait has a word of its own, which begins with the process's.
            let texts = texts.into_iter().map(|text| text.replace(crate::process::word(), ""));
            texts.map(|text| text.replace(digits, "")).collect::<Vec<_>>()
        };
        proptest::prop_assert_eq!(text(&one), text(&other));
    }
}

/// In the extended protocol a transaction is younger than its statement, whether or not it was open before.
#[test]
fn no_extended_statement_compares_the_transactions_time_with_its_own() {
    let lock = Request::new(vec![Key::from(1)].into()).lock;
    for statement in [statements(&lock), looking(&lock)].concat() {
        for statement in [statement.clone(), statement.brief()] {
            let text = statement.extended();
            for compared in ["now() = pg_catalog.st", "now() <> pg_catalog.st"] {
                assert!(!text.contains(compared), "{text}");
            }
        }
    }
}

/// The planner may call a function behind a FROM more than once, or for rows that are filtered out.
#[test]
fn lock_calls_have_no_from_clause() {
    for keys in [vec![Key::from(1)], vec![Key::from(1), Key::from((2, 3))]] {
        for statement in statements(&Request::new(keys.into()).lock) {
            let text = statement
                .text()
                .replace("extract(epoch FROM", "")
                .replace("DISTINCT FROM", "");
            assert!(text.contains("pg_"), "{text}");
            assert!(!text.contains("FROM"), "{text}");
        }
    }
}

/// With each lock: a pooler may carry a session's settings to another server.
#[test]
fn a_server_that_is_not_postgres_is_asked_for() {
    let lock = Request::new(vec![Key::from(1)].into()).lock;
    let mut statements = looking(&lock);
    for time in TIMES {
        statements.push(acquire_for_session(&lock, time, Client::Own, Line::Pass));
        for inside in [Inside::Transaction, Inside::Waited, Inside::Message] {
            let client = Client::Own;
            statements.push(acquire_in_transaction(&lock, time, inside, client, None));
        }
    }
    for statement in statements {
        let text = statement.text();
        assert!(
            text.contains("current_setting('crdb_version', true)"),
            "{text}"
        );
        assert!(text.contains("pg_is_in_recovery()"), "{text}");
    }
}

/// A function of the same name in an earlier schema of the `search_path` would say yes, and lock nothing.
#[test]
fn every_function_has_its_schema() {
    const KEYWORDS: [&str; 11] = [
        "coalesce", "least", "greatest", "extract", "EXISTS", "IN", "AND", "OR", "WHERE", "NOT",
        "ARRAY",
    ];
    let lock = Request::new(vec![Key::from(1), Key::from((2, 3))].into()).lock;
    for statement in [statements(&lock), looking(&lock)].concat() {
        for text in [statement.text(), statement.clone().raising().text()] {
            for (at, _) in text.match_indices('(') {
                let before = &text[..at];
                let word = before
                    .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .map_or(before, |start| &before[start + 1..]);
                let known = word.is_empty() || KEYWORDS.contains(&word);
                let schema = before.strip_suffix(word).unwrap_or_default();
                assert!(known || schema.ends_with("pg_catalog."), "{word}: {text}");
            }
        }
    }
}
