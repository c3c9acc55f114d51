//! How a candidate is elected, or is not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pglock::election::Election;
use pglock::{Error, StopToken};

use crate::harness::{AnyDriver, Case, Driver, LEADERS, LEASE, on_every_driver};
use crate::oracle::url;

on_every_driver!(
    one_leads_and_the_next_is_elected_when_it_resigns,
    an_attempt_does_not_wait,
    a_campaign_can_be_stopped,
    a_leader_is_told_to_stop,
    a_candidate_whose_connection_is_lost_comes_again,
    a_lease_that_cannot_be_held_is_refused,
    a_shorter_timeout_of_the_servers_shortens_the_lease,
    a_candidate_that_panics_is_no_candidate,
);

fn one_leads_and_the_next_is_elected_when_it_resigns<D: Driver>() {
    let case = Case::new();
    let election = case.election::<D>();
    let leading = AtomicU32::new(0);
    let mut tokens = Vec::new();
    thread::scope(|threads| {
        let mut term = election.campaign().unwrap();
        for _ in 0..5 {
            let next = threads.spawn(|| {
                let term = election.campaign().unwrap();
                assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0, "two lead");
                term
            });
            case.wait_for_candidate();
            tokens.push(term.token());
            leading.store(0, Ordering::SeqCst);
            term.resign().unwrap();
            term = next.join().unwrap();
        }
        tokens.push(term.token());
    });
    assert!(tokens.is_sorted_by(|one, other| one < other), "{tokens:?}");
    case.assert_nothing_left::<D>();
}

fn an_attempt_does_not_wait<D: Driver>() {
    let case = Case::new();
    let election = case.election::<D>();
    let term = election.campaign().unwrap();
    assert!(election.try_campaign().unwrap().is_none());
    assert_eq!(case.locks(), LEADERS, "of the leader alone");
    term.resign().unwrap();
    let term = election.try_campaign().unwrap().expect("nobody leads");
    assert!(!term.is_over());
    term.resign().unwrap();
    case.assert_nothing_left::<D>();
}

fn a_campaign_can_be_stopped<D: Driver>() {
    let case = Case::new();
    let _term = case.election::<D>().campaign().unwrap();
    let token = StopToken::new();
    let election = case.election::<D>().stop_on(&token);
    thread::scope(|threads| {
        let waiting = threads.spawn(|| election.campaign());
        case.wait_for_candidate();
        token.stop();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    });
    assert_eq!(case.locks(), LEADERS, "of the leader alone");
    let again = election.try_campaign().unwrap_err();
    assert!(matches!(again, Error::Stopped { .. }), "{again:?}");
}

/// The lock stays until the leader leaves, and nothing is lost.
fn a_leader_is_told_to_stop<D: Driver>() {
    let case = Case::new();
    let token = StopToken::new();
    let election = case.election::<D>().stop_on(&token);
    let outcome = election.run(|term| {
        thread::scope(|threads| {
            threads.spawn(|| token.stop());
            assert!(term.wait(Duration::from_secs(3_600)), "it ends at once");
        });
        assert!(term.is_over());
        case.leader();
        Ok::<_, Error>(())
    });
    outcome.unwrap();
    case.assert_nothing_left::<D>();
}

fn a_candidate_whose_connection_is_lost_comes_again<D: Driver>() {
    let case = Case::new();
    let term = case.election::<D>().campaign().unwrap();
    let election = case.election::<D>();
    thread::scope(|threads| {
        let waiting = threads.spawn(|| election.campaign().unwrap());
        let first = case.wait_for_candidate();
        case.oracle().terminate(first);
        let second = case.wait_for_candidate();
        assert_ne!(first, second);
        drop(term);
        assert_eq!(waiting.join().unwrap().lease(), LEASE);
    });
    case.assert_nothing_left::<D>();
}

fn a_lease_that_cannot_be_held_is_refused<D: Driver>() {
    let case = Case::new();
    for lease in [Duration::ZERO, Duration::from_millis(1_999), Duration::MAX] {
        let error = case.election::<D>().lease(lease).campaign().unwrap_err();
        assert!(matches!(error, Error::InvalidLease { .. }), "{error:?}");
        assert!(error.to_string().contains("2 s"), "{error}");
    }
    case.assert_nothing_left::<D>();
}

fn a_shorter_timeout_of_the_servers_shortens_the_lease<D: Driver>() {
    let case = Case::new();
    let election = |millis: u32| {
        let option = format!("options=-cidle_session_timeout%3D{millis}");
        let url = format!("{}?{option}", url());
        D::election(&url, &case.name)
    };
    let term = election(1_500).campaign().unwrap();
    assert_eq!(term.lease(), Duration::from_secs(3));
    term.resign().unwrap();
    let term = election(20_000).campaign().unwrap();
    assert_eq!(term.lease(), Duration::from_secs(10));
    term.resign().unwrap();
    let error = election(500).campaign().unwrap_err();
    assert!(matches!(error, Error::InvalidLease { .. }), "{error:?}");
    assert!(
        error.to_string().contains("idle_session_timeout"),
        "{error}"
    );
    case.assert_nothing_left::<D>();
}

/// A panic of `connect` comes out of the campaign.
fn a_candidate_that_panics_is_no_candidate<D: Driver>() {
    let case = Case::new();
    let connect = || -> Result<D::Backend, Error> { panic!("no address") };
    let election = Election::new(connect, &case.name);
    let panicked = catch_unwind(AssertUnwindSafe(|| election.campaign()));
    let text = panicked.unwrap_err();
    assert_eq!(*text.downcast::<&str>().unwrap(), "no address");
}

/// The settings of a pool's connection are restored.
#[cfg(all(feature = "postgres", feature = "r2d2"))]
#[test]
fn a_pools_connection_comes_back_as_it_was() {
    let case = Case::new();
    let config = crate::harness::named(&url(), &case.name).parse().unwrap();
    let manager = r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls);
    let pool = r2d2::Pool::builder().max_size(1).build(manager).unwrap();
    let settings = || {
        let query = "SELECT pg_backend_pid()::text, current_setting('idle_session_timeout'), \
             current_setting('statement_timeout'), current_setting('tcp_user_timeout')";
        let row = pool.get().unwrap().query_one(query, &[]).unwrap();
        [0, 1, 2, 3].map(|column| row.get::<_, String>(column))
    };
    let set = "SET idle_session_timeout = '1h'; SET statement_timeout = '2min'";
    pool.get().unwrap().batch_execute(set).unwrap();
    let before = settings();
    let election = Election::new(
        {
            let pool = pool.clone();
            move || pool.get()
        },
        &case.name,
    );
    election.campaign().unwrap().resign().unwrap();
    assert_eq!(settings(), before);
    assert_eq!(case.locks(), 0);
}

#[test]
fn a_first_connection_that_fails_is_reported() {
    let case = Case::new();
    let connect = || Err::<<AnyDriver as Driver>::Backend, _>("no such server");
    let error = Election::new(connect, &case.name)
        .try_campaign()
        .unwrap_err();
    assert!(matches!(error, Error::Checkout { .. }), "{error:?}");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "no such server");
}
