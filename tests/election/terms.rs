//! Terms, as their leaders see them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pglock::Error;
use pglock::election::{Election, Term, leader};

use crate::harness::{Case, Driver, LEADERS, on_every_driver};
use crate::oracle::{PATIENCE, url};

on_every_driver!(
    a_term_is_on_until_it_is_resigned,
    a_term_that_is_dropped_is_resigned,
    a_body_runs_within_a_term,
    a_term_ends_with_its_session,
    a_term_can_be_shared_among_threads,
    the_leader_is_named,
);

fn a_term_is_on_until_it_is_resigned<D: Driver>() {
    let case = Case::new();
    let term = D::election(&url(), &case.name).campaign().unwrap();
    assert_eq!(term.lease(), Duration::from_secs(10));
    assert!(!term.is_over());
    assert!(term.left() > Duration::ZERO && term.left() <= term.lease() / 2);
    assert!(!term.wait(Duration::from_millis(50)), "it is on");
    assert_eq!(case.locks(), LEADERS);
    let (lost, is_told) = channel();
    term.on_loss(move |why| lost.send(why.to_string()).unwrap());
    term.resign().unwrap();
    assert!(is_told.recv().is_err(), "it was not lost");
    case.assert_nothing_left::<D>();
}

fn a_term_that_is_dropped_is_resigned<D: Driver>() {
    let case = Case::new();
    let election = case.election::<D>();
    drop(election.campaign().unwrap());
    case.assert_nothing_left::<D>();
}

fn a_body_runs_within_a_term<D: Driver>() {
    let case = Case::new();
    let election = case.election::<D>();
    let led = |term: &Term| {
        assert!(!term.is_over());
        case.oracle().holder(&case.lock);
    };
    let value = election.run(|term| {
        led(term);
        Ok::<_, Error>(42)
    });
    assert_eq!(value.unwrap(), 42);
    case.assert_nothing_left::<D>();

    let value = election.try_run(|term| {
        led(term);
        let second = election.try_run(|_| -> Result<(), Error> { panic!("two lead") })?;
        assert!(second.is_none());
        Ok::<_, Error>(42)
    });
    assert_eq!(value.unwrap(), Some(42));
    case.assert_nothing_left::<D>();

    let failed = election.run(|term| {
        led(term);
        Err::<(), _>(Error::body("the body's own"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "the body's own");
    case.assert_nothing_left::<D>();

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        election.run(|term| -> Result<(), Error> {
            led(term);
            panic!("in the body")
        })
    }));
    assert_eq!(
        *panicked.unwrap_err().downcast::<&str>().unwrap(),
        "in the body"
    );
    case.assert_nothing_left::<D>();
}

/// The leader notices without asking: its next question is ten minutes away.
fn a_term_ends_with_its_session<D: Driver>() {
    let case = Case::new();
    let election = case.election::<D>();
    let election = election.lease(Duration::from_secs(3_600)).at_once();
    let outcome = election.run(|term| {
        let pid = case.leader();
        thread::scope(|threads| {
            threads.spawn(|| case.oracle().terminate(pid));
            assert!(term.wait(PATIENCE), "the term ends");
        });
        assert!(term.is_over() && term.left().is_zero());
        Ok::<_, Error>(())
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error:?}");
    let term = election.try_campaign().unwrap().expect("nobody leads");
    assert!(!term.is_over());
    let pid = case.leader();
    let (lost, is_told) = channel();
    term.on_loss(move |why| lost.send(why.to_string()).unwrap());
    case.oracle().terminate(pid);
    let why = is_told.recv_timeout(PATIENCE).unwrap();
    assert!(why.contains("was lost before its release"), "{why}");
    assert!(term.is_over());
    let error = term.resign().unwrap_err();
    assert!(error.is_lock_lost(), "{error:?}");
    case.assert_nothing_left::<D>();
}

fn a_term_can_be_shared_among_threads<D: Driver>() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    let case = Case::new();
    let election = case.election::<D>();
    is_shared::<Election>(&election);
    let term = election.campaign().unwrap();
    is_shared(&term);
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| assert!(!term.wait(Duration::from_millis(1)) && !term.is_over()));
        }
    });
}

fn the_leader_is_named<D: Driver>() {
    let case = Case::new();
    let mut conn = D::connect(&url());
    assert_eq!(leader(&mut conn, &case.name).unwrap(), None);
    let election = case.election::<D>();
    let term = election.campaign().unwrap();
    thread::scope(|threads| {
        let other = threads.spawn(|| election.campaign().unwrap());
        case.wait_for_candidate();
        let claim = leader(&mut conn, &case.name).unwrap().unwrap();
        assert_eq!(claim.pid, Some(case.leader()));
        assert_eq!(claim.application.as_deref(), Some(&*case.name));
        term.resign().unwrap();
        let _other = other.join().unwrap();
        let next = leader(&mut conn, &case.name).unwrap().unwrap();
        assert_eq!(next.pid, Some(case.leader()));
        assert!(D::POOLED || next.pid != claim.pid);
    });
    assert_eq!(leader(&mut conn, &case.name).unwrap(), None);
}
