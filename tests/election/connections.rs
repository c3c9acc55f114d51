//! What becomes of a candidate whose connection is not there, breaks, or is silent, and of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pglock::driver::{BoxError, Session};
use pglock::election::Election;
use pglock::{Error, LockBackend, StopToken};

use crate::harness::*;
use crate::oracle::{Oracle, unique_name, url};
use crate::proxy::{Point, Proxy, Then};
use crate::server::Server;

on_every_driver!(
    a_loop_stands_again_when_its_term_is_lost,
    a_connection_that_cannot_be_made_is_tried_again,
    a_session_that_dies_before_its_first_answer_is_replaced,
    a_silent_connection_is_abandoned,
    an_attempt_on_a_silent_connection_ends,
    an_error_is_no_sign_of_the_session,
    a_connection_in_a_transaction_is_refused,
    a_cancel_leaves_nothing_on_the_connection,
);

/// As the guide has it (`src/guide/leaders.md`), with shorter pauses.
fn a_loop_stands_again_when_its_term_is_lost<D: Driver>() {
    let case = Case::new();
    let pause = Duration::from_millis(10);
    let (shutdown, mut tokens) = (StopToken::new(), Vec::new());
    let election = case.election::<D>().lease(LEASE).stop_on(&shutdown);
    let mut ends = Vec::new();
    loop {
        let led = election.run(|term| {
            let mut conn = D::connect(&url());
            tokens.push(term.token());
            while !term.wait(pause) {
                term.fenced(&mut conn, |_| Ok::<_, Error>(()))?;
                match tokens.len() {
                    1 => {
                        let leader = case.leader();
                        case.oracle().terminate(leader);
                        assert!(term.wait(LEASE));
                    }
                    _ => shutdown.stop(),
                }
            }
            Ok::<_, Error>(())
        });
        ends.push(led);
        if shutdown.wait(pause) {
            break;
        }
    }
    assert!(tokens[0] < tokens[1]);
    let [Err(error), Ok(())] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert!(error.is_lock_lost(), "{error:?}");
}

fn a_connection_that_cannot_be_made_is_tried_again<D: Driver>() {
    let case = Case::new();
    let failures = AtomicUsize::new(0);
    let connect = move || -> Result<D::Backend, BoxError> {
        match failures.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err("no such server yet".into()),
            _ => D::try_connect(&url()),
        }
    };
    let election = Election::new(connect, &case.name).lease(LEASE);
    assert!(!election.campaign().unwrap().is_over());
}

fn a_session_that_dies_before_its_first_answer_is_replaced<D: Driver>() {
    let case = Case::new();
    let proxy = Proxy::start();
    proxy.at("pglock.client", Point::Before, || Then::Cut);
    let election = D::election(&through(&proxy), &case.name).lease(LEASE);
    assert!(!election.campaign().unwrap().is_over());
    assert!(!proxy.is_armed());
}

/// Its first connection goes a way that falls silent, with the next one in line, or the head, at its end.
fn a_silent_connection_is_abandoned<D: Driver>() {
    let case = Case::new();
    let proxy = Proxy::start();
    let term = case.election::<D>().campaign().unwrap();
    let (silent, calls) = (through(&proxy), AtomicUsize::new(0));
    let connect = move || match calls.fetch_add(1, Ordering::SeqCst) {
        0 => D::try_connect(&silent),
        _ => D::try_connect(&url()),
    };
    let election = Election::new(connect, &case.name).lease(LEASE);
    thread::scope(|threads| {
        let candidate = threads.spawn(|| election.campaign().unwrap());
        case.wait_for_candidate();
        proxy.freeze(true, true);
        term.resign().unwrap();
        assert!(!candidate.join().unwrap().is_over());
    });
}

fn an_attempt_on_a_silent_connection_ends<D: Driver>() {
    let case = Case::new();
    let proxy = Arc::new(Proxy::start());
    let freezer = Arc::clone(&proxy);
    proxy.at("pglock.client", Point::Before, move || {
        freezer.freeze(true, true);
        Then::GoOn
    });
    let election = D::election(&through(&proxy), &case.name).lease(LEASE);
    let error = election.try_campaign().unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
}

/// The server has ended the leader's session, and a pooler answers in its place.
fn an_error_is_no_sign_of_the_session<D: Driver>() {
    let case = Case::new();
    let proxy = Proxy::start();
    let election = D::election(&through(&proxy), &case.name).lease(LEASE);
    let term = election.campaign().unwrap();
    proxy.stand_in();
    let leader = case.leader();
    case.oracle().terminate(leader);
    let next = case.election::<D>().campaign().unwrap();
    assert!(term.is_over(), "two lead");
    assert!(next.token() > term.token());
}

fn a_connection_in_a_transaction_is_refused<D: Driver>() {
    let case = Case::new();
    let connect = || -> Result<D::Backend, BoxError> {
        let mut connection = D::try_connect(&url())?;
        connection
            .session()?
            .send("BEGIN")
            .map_err(|failure| format!("{failure:?}"))?;
        Ok(connection)
    };
    let election = Election::new(connect, &case.name).lease(LEASE);
    for outcome in [election.campaign().map(Some), election.try_campaign()] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::InTransaction { .. }), "{error:?}");
    }
    assert_eq!(case.locks(), 0);
}

/// Cancels come as fast as they go while a leader resigns. What is left would stay for half an hour.
fn a_cancel_leaves_nothing_on_the_connection<D: Driver>() {
    let case = Case::new();
    let election = case.election::<D>().lease(LEASE * 1_800).at_once();
    let (pid, over) = (AtomicI32::new(0), AtomicBool::new(false));
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut client = Oracle::new().client;
                let cancel = client.prepare("SELECT pg_cancel_backend($1)").unwrap();
                while !over.load(Ordering::SeqCst) {
                    match pid.load(Ordering::SeqCst) {
                        0 => thread::yield_now(),
                        pid => drop(client.query(&cancel, &[&pid])),
                    }
                }
            });
        }
        let left = (0..100).any(|_| {
            let term = election.campaign().unwrap();
            pid.store(case.leader(), Ordering::SeqCst);
            drop(term);
            let looks = std::iter::repeat_with(|| thread::sleep(Duration::from_millis(10)));
            let left = looks.take(200).all(|()| case.locks() > 0); // a session may be ending
            pid.store(0, Ordering::SeqCst);
            left
        });
        over.store(true, Ordering::SeqCst);
        assert!(!left, "something is left");
    });
}

/// A day has 108,000 slices.
#[test]
fn a_candidate_that_waits_leaves_nothing_in_the_log() {
    let server = Server::new(&unique_name("election-log"));
    server.configure("log_min_messages = warning\nlog_lock_waits = on\n");
    server.start();
    let log = server.dir().join("log");
    let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
    let elections = [
        #[cfg(feature = "postgres")]
        Postgres::election(&server.url(), "log"),
        #[cfg(feature = "diesel")]
        Diesel::election(&server.url(), "log"),
    ];
    let leader = AnyDriver::election(&server.url(), "log").at_once();
    let leader = leader.campaign().unwrap();
    let before = lines();
    let stop = pglock::StopToken::new();
    thread::scope(|threads| {
        for election in elections {
            let election = election.stop_on(&stop);
            threads.spawn(move || election.campaign().map(drop).unwrap_err());
        }
        thread::sleep(Duration::from_secs(3)); // some slices
        stop.stop();
    });
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.lines().count(), before, "{log}");
    drop(leader);
}
