//! Whether a new term may begin: the last leader has said so, or a whole silence has passed. The leases are an
//! hour long, so whoever has to wait for a silence is not elected in a test.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pglock::Error;
use pglock::election::{Election, Term, leader};

use crate::harness::{
    AnyDriver, Case, Driver, LEASE, Leader, as_user, colliding, on_every_driver, through,
};
use crate::oracle::{Oracle, unique_name, url, wait_until};
use crate::proxy::{Point, Proxy, Then};

const HOUR: Duration = Duration::from_secs(3_600);

on_every_driver!(
    a_leader_that_resigns_is_followed_at_once,
    a_head_that_has_not_looked_yet_is_waited_for,
    a_leader_that_is_gone_is_not_followed_before_the_silence,
    a_number_without_its_sign_is_no_sign,
    a_sign_that_came_before_the_head_is_none,
    who_began_at_once_gives_no_sign_before_the_silence,
    who_begins_at_once_begins_beside_anybody,
    an_attempt_finds_another_candidate,
    a_stop_late_in_the_silence_leaves_nothing,
    who_sees_another_lease_is_refused,
    two_elections_with_the_same_class_have_nothing_to_do_with_each_other,
);

fn election<D: Driver>(case: &Case) -> Election {
    case.election::<D>().lease(HOUR)
}

/// Runs a candidate that will be stopped unless it is elected.
fn with_candidate<D: Driver>(case: &Case, test: impl FnOnce() -> bool) {
    let stop = pglock::StopToken::new();
    let election = election::<D>(case).stop_on(&stop);
    thread::scope(|threads| {
        let candidate = threads.spawn(|| election.campaign());
        if test() {
            assert!(!candidate.join().unwrap().unwrap().is_over());
        } else {
            stop.stop();
            let error = candidate.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
        }
    });
    case.assert_nothing_left::<D>();
}

fn a_leader_that_resigns_is_followed_at_once<D: Driver>() {
    let case = Case::new();
    let mut last = Leader::of(&case, HOUR);
    with_candidate::<D>(&case, || {
        case.wait_for_candidate();
        last.resign(true);
        true
    });
}

/// The term is so short that the head has not listened for a sign of it when it ends.
fn a_head_that_has_not_looked_yet_is_waited_for<D: Driver>() {
    const RESIGNS: &str = "SELECT FROM pg_stat_activity WHERE application_name = $1 \
        AND query LIKE 'SELECT (NOT (pg_catalog.pg_try_advisory_lock_shared(%'";
    let case = Case::new();
    let mut last = Leader::of(&case, HOUR);
    let first = election::<D>(&case);
    let term = thread::scope(|threads| {
        let first = threads.spawn(|| first.campaign().unwrap());
        case.wait_for_candidate();
        last.resign(true);
        first.join().unwrap()
    });
    let (name, (waits, is_head)) = (case.name.clone(), channel());
    let proxy = Proxy::start();
    let listens = "SELECT pg_catalog.pg_try_advisory_lock_shared(";
    proxy.at(listens, Point::Before, move || {
        waits.send(()).unwrap();
        let mut oracle = Oracle::new();
        wait_until("a leader that resigns", || {
            oracle.client.query_opt(RESIGNS, &[&name]).unwrap()
        });
        Then::GoOn
    });
    let next = D::election(&through(&proxy), &case.name).lease(HOUR);
    thread::scope(|threads| {
        let next = threads.spawn(|| next.campaign().unwrap());
        is_head.recv().unwrap();
        term.resign().unwrap();
        assert!(!next.join().unwrap().is_over());
    });
}

fn a_leader_that_is_gone_is_not_followed_before_the_silence<D: Driver>() {
    let case = Case::new();
    let last = Leader::of(&case, HOUR);
    with_candidate::<D>(&case, || {
        case.wait_for_candidate();
        drop(last);
        case.wait_for_silence();
        false
    });
}

fn a_number_without_its_sign_is_no_sign<D: Driver>() {
    let case = Case::new();
    let mut last = Leader::of(&case, HOUR);
    with_candidate::<D>(&case, || {
        case.wait_for_candidate();
        last.resign(false);
        case.wait_for_silence();
        false
    });
}

/// Somebody else may have led since.
fn a_sign_that_came_before_the_head_is_none<D: Driver>() {
    let case = Case::new();
    let mut last = Leader::of(&case, HOUR);
    last.resign(true);
    with_candidate::<D>(&case, || {
        case.wait_for_silence();
        false
    });
}

/// It may have begun beside the last leader, whom it did not wait for.
fn who_began_at_once_gives_no_sign_before_the_silence<D: Driver>() {
    let case = Case::new();
    let term = election::<D>(&case).at_once().campaign().unwrap();
    with_candidate::<D>(&case, || {
        case.wait_for_candidate();
        term.resign().unwrap();
        case.wait_for_silence();
        false
    });
}

fn who_begins_at_once_begins_beside_anybody<D: Driver>() {
    let case = Case::new();
    let term = election::<D>(&case).at_once().campaign().unwrap();
    let leader = case.leader();
    case.oracle().terminate(leader);
    let next = election::<D>(&case).at_once().try_campaign().unwrap();
    assert!(next.unwrap().token() > term.token());
}

fn an_attempt_finds_another_candidate<D: Driver>() {
    let case = Case::new();
    with_candidate::<D>(&case, || {
        case.wait_for_silence();
        assert!(election::<D>(&case).try_campaign().unwrap().is_none());
        let once = election::<D>(&case).at_once();
        assert!(once.try_campaign().unwrap().is_none());
        false
    });
}

/// The server has said nothing for a while, since it was not asked.
fn a_stop_late_in_the_silence_leaves_nothing<D: Driver>() {
    let case = Case::new();
    with_candidate::<D>(&case, || {
        case.wait_for_silence();
        let query = "SELECT FROM pg_stat_activity WHERE application_name = $1 \
             AND clock_timestamp() - state_change > interval '2.1 s'";
        let mut oracle = case.oracle();
        wait_until("a while", || {
            oracle
                .client
                .query_opt(query, &[&case.name])
                .unwrap()
                .map(drop)
        });
        false
    });
}

fn who_sees_another_lease_is_refused<D: Driver>() {
    let case = Case::new();
    let _last = Leader::of(&case, HOUR);
    for outcome in [
        case.election::<D>().campaign().map(Some),
        case.election::<D>().try_campaign(),
        case.election::<D>().at_once().try_campaign(),
    ] {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, Error::OtherLease { other: HOUR, .. }),
            "{error:?}"
        );
    }
    assert_eq!(case.locks(), 0);
}

fn two_elections_with_the_same_class_have_nothing_to_do_with_each_other<D: Driver>() {
    let names = colliding(&unique_name("tenant"));
    let campaign = |name: &str| -> Term {
        let election = D::election(&url(), name).lease(HOUR).at_once();
        election.try_campaign().unwrap().expect("nobody leads")
    };
    let mut conn = D::connect(&url());
    let first = campaign(&names[0]);
    assert_eq!(leader(&mut conn, &names[1]).unwrap(), None);
    let second = campaign(&names[1]);
    let [one, two] = names.map(|name| leader(&mut conn, name).unwrap().unwrap().pid);
    assert!(one.is_some() && one != two, "{one:?} {two:?}");
    assert!(!first.is_over() && !second.is_over());
}

/// Nobody of them may see what the others' sessions do.
#[test]
fn leader_and_candidate_are_different_ordinary_users() {
    let case = Case::new();
    let users = ["one", "two"].map(|user| format!("{}_{user}", case.name));
    for user in &users {
        let create = format!("CREATE ROLE {user} LOGIN");
        case.oracle().client.batch_execute(&create).unwrap();
    }
    let [one, two] = users.each_ref().map(|user| {
        let url = as_user(&url(), user);
        AnyDriver::election(&url, &case.name).lease(LEASE)
    });
    let term = one.campaign().unwrap();
    thread::scope(|threads| {
        let next = threads.spawn(|| two.campaign().unwrap());
        case.wait_for_candidate();
        let mut other = AnyDriver::connect(&as_user(&url(), &users[1]));
        let seen = leader(&mut other, &case.name).unwrap().unwrap();
        assert_eq!(seen.pid, Some(case.leader()));
        term.resign().unwrap();
        drop(next.join().unwrap());
    });
    for user in &users {
        let drop = format!("DROP ROLE {user}");
        case.oracle().client.batch_execute(&drop).unwrap();
    }
}

/// Waits, so that each change is seen.
#[test]
fn an_observer_sees_each_change() {
    let case = Case::new();
    let election = case.election::<AnyDriver>().at_once();
    let mut observed = pglock::election::observe(AnyDriver::connect(&url()), &case.name);
    let mut next = || observed.next().unwrap().unwrap().map(|leader| leader.pid);
    assert_eq!(next(), None);
    for _ in 0..2 {
        let term = election.campaign().unwrap();
        assert_eq!(next(), Some(Some(case.leader())));
        term.resign().unwrap();
        assert_eq!(next(), None);
    }
    let first = election.campaign().unwrap();
    assert_eq!(next(), Some(Some(case.leader())));
    let pid = case.leader();
    thread::scope(|threads| {
        let second = threads.spawn(|| election.campaign().unwrap());
        case.wait_for_candidate();
        case.oracle().terminate(pid);
        let _second = second.join().unwrap();
        let seen = wait_until("the second leader", next);
        assert_eq!(seen, Some(case.leader()));
    });
    drop(first);
}
