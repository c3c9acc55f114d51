use super::*;
use crate::request::Request;

const TIMES: [WaitTime; 5] = [
    WaitTime::No,
    WaitTime::InPlace(None),
    WaitTime::InPlace(Some(7)),
    WaitTime::Slice(700),
    WaitTime::OwnSlice(700),
];

/// Every statement on keys, of which those that wait for a turn of their own are left out.
fn statements(lock: &LockInfo) -> Vec<String> {
    let mut statements = Vec::new();
    for replies in [Replies::Rows, Replies::Errors] {
        for time in TIMES {
            statements.push(acquire_for_session(lock, time, Client::Own, replies));
            statements.push(acquire_in_transaction(lock, time, replies));
            for before_begin in [true, false] {
                statements.push(acquire_at_begin(lock, time, "x", before_begin, replies));
            }
        }
        statements.push(release(lock, replies));
        statements.push(roll_back_and_release(lock, replies));
        statements.push(held_by_session(lock, replies));
        statements.push(change_mode(lock, WaitTime::InPlace(Some(7)), replies));
    }
    statements.extend(of_a_semaphore(lock, 0));
    statements
}

/// What acquires one of the keys of a lock, of which some may be held.
fn of_a_semaphore(lock: &LockInfo, held: usize) -> Vec<String> {
    let queue = Key::from(7);
    let slots = semaphore::Slots {
        lock,
        order: lock.keys(),
        held: &lock.keys()[..held],
        queue: &queue,
    };
    let mut statements = Vec::new();
    for replies in [Replies::Rows, Replies::Errors] {
        statements.push(slots.attempt(Client::Own, replies));
        for time in &TIMES[1..] {
            statements.push(slots.wait(*time, Client::Own, replies));
        }
    }
    statements
}

/// What is taken for a session is taken by the last statement of a message, which has no row.
#[test]
fn nothing_comes_after_a_slot_is_taken_for_the_session() {
    let lock = Request::on_keys(vec![Key::from(1), Key::from(2)]).lock;
    for statement in [of_a_semaphore(&lock, 0), of_a_semaphore(&lock, 1)].concat() {
        let (before, last) = statement.rsplit_once("; ").unwrap();
        let taken = last.matches("pg_advisory_lock(").count();
        assert!(taken == 1 && last.ends_with(" IS NOT TRUE"), "{statement}");
        for for_session in ["pg_advisory_lock", "pg_try_advisory_lock"] {
            assert!(!before.contains(for_session), "{statement}");
        }
    }
}

proptest::proptest! {
    /// Statements for two names differ in the digits of the keys and in nothing else.
    #[test]
    fn only_digits_of_a_name_reach_the_sql(one: String, other: String, space: String) {
        let text = |name: &str| {
            let keys = vec![Key::from(name), Key::namespaced(space.clone(), name.to_owned())];
            let lock = Request::on_keys(keys).lock;
            let digits = |c: char| c.is_ascii_digit() || c == '-';
            let mut statements = statements(&lock);
            statements.push(held(&lock, Replies::Rows));
            statements.push(between_slices(&lock));
            statements.push(acquire_for_session(&lock, WaitTime::No, Client::Other, Replies::Rows));
            statements.into_iter().map(|statement| statement.replace(digits, "")).collect::<Vec<_>>()
        };
        proptest::prop_assert_eq!(text(&one), text(&other));
    }
}

#[test]
fn lock_calls_have_no_from_clause() {
    for keys in [vec![Key::from(1)], vec![Key::from(1), Key::from((2, 3))]] {
        for statement in statements(&Request::on_keys(keys).lock) {
            let statement = statement
                .replace("extract(epoch FROM", "")
                .replace("DISTINCT FROM", "");
            assert!(statement.contains("pg_"), "{statement}");
            assert!(!statement.contains("FROM"), "{statement}");
        }
    }
}

/// Before the first lock on a session, and before each lock of a transaction.
#[test]
fn a_server_that_is_not_postgres_is_asked_for() {
    let lock = Request::on_keys(vec![Key::from(1)]).lock;
    for replies in [Replies::Rows, Replies::Errors] {
        for statement in [
            acquire_for_session(&lock, WaitTime::No, Client::Own, replies),
            acquire_for_session(&lock, WaitTime::No, Client::Other, replies),
            acquire_in_transaction(&lock, WaitTime::No, replies),
            acquire_at_begin(&lock, WaitTime::No, "x", true, replies),
        ] {
            assert!(
                statement.contains("current_setting('crdb_version', true)"),
                "{statement}"
            );
        }
    }
}
