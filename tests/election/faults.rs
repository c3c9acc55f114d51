//! Processes are candidates in one election, and things break: no two of them ever lead at a time, each by
//! its own clock, and there is always another term.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::fleet::{Fleet, MEMBERS, send_signal};
use crate::harness::Database;
use crate::oracle::unique_name;
use crate::server::Server;

const LEASE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

/// Breaks the leader, waits for the next one, and repairs what was broken.
fn survive(mut fault: impl FnMut(&mut Fleet, usize, i32), mut heal: impl FnMut(&mut Fleet, usize)) {
    let database = Database::new();
    let mut fleet = Fleet::start(&database.url(), LEASE);
    for _ in 0..ROUNDS {
        let (leader, pid) = fleet.wait_for_leader();
        let terms = fleet.count();
        fault(&mut fleet, leader, pid);
        fleet.wait_for_next(terms);
        heal(&mut fleet, leader);
    }
    fleet.wait_for_leader();
    fleet.assert_no_overlap();
}

fn terminate(database: &str, pid: i32) {
    let mut client = Client::connect(database, NoTls).unwrap();
    client
        .execute("SELECT pg_terminate_backend($1)", &[&pid])
        .unwrap();
}

#[test]
fn a_leader_is_killed() {
    survive(|fleet, leader, _| fleet.kill(leader), Fleet::replace);
}

#[test]
fn a_leader_is_stopped_for_longer_than_its_lease() {
    survive(
        |fleet, leader, _| fleet.signal(leader, "STOP"),
        |fleet, leader| fleet.signal(leader, "CONT"),
    );
}

#[test]
fn a_leaders_requests_are_swallowed() {
    survive(
        |fleet, leader, _| fleet.members[leader].proxy.freeze(true, false),
        |fleet, leader| fleet.members[leader].proxy.freeze(false, false),
    );
}

#[test]
fn a_leaders_replies_are_swallowed() {
    survive(
        |fleet, leader, _| fleet.members[leader].proxy.freeze(false, true),
        |fleet, leader| fleet.members[leader].proxy.freeze(false, false),
    );
}

#[test]
fn a_leaders_network_is_frozen() {
    survive(
        |fleet, leader, _| fleet.members[leader].proxy.freeze(true, true),
        |fleet, leader| fleet.members[leader].proxy.freeze(false, false),
    );
}

#[test]
fn a_leaders_connection_is_cut() {
    survive(
        |fleet, leader, _| fleet.members[leader].proxy.cut(),
        |_, _| (),
    );
}

#[test]
fn a_leaders_session_is_terminated() {
    survive(|fleet, _, pid| terminate(&fleet.server, pid), |_, _| ());
}

/// The leader cannot notice that before its term ends by its own clock.
#[test]
fn the_session_of_a_frozen_leader_is_terminated() {
    survive(
        |fleet, leader, pid| {
            fleet.members[leader].proxy.freeze(true, true);
            terminate(&fleet.server, pid);
        },
        |fleet, leader| fleet.members[leader].proxy.freeze(false, false),
    );
}

/// SIGCONT comes while its term, by its own clock, still lasts.
#[test]
fn the_session_of_a_stopped_leader_is_terminated() {
    survive(
        |fleet, leader, pid| {
            fleet.signal(leader, "STOP");
            terminate(&fleet.server, pid);
            thread::sleep(LEASE / 2);
            fleet.signal(leader, "CONT");
        },
        |_, _| (),
    );
}

/// The server is there, but the answer to a question takes longer than a lease.
#[test]
fn a_server_is_slow() {
    survive(
        |_, _, pid| {
            send_signal("STOP", pid.unsigned_abs());
            thread::sleep(LEASE * 3 / 2);
            send_signal("CONT", pid.unsigned_abs());
        },
        |_, _| (),
    );
}

#[test]
fn a_server_crashes_and_comes_back() {
    let server = Server::new(&unique_name("fleet-crash"));
    server.start();
    let mut fleet = Fleet::start(&server.url(), LEASE * 2);
    for round in 0..ROUNDS {
        let (leader, _) = fleet.wait_for_leader();
        let terms = fleet.count();
        if round == 1 {
            fleet.members[leader].proxy.freeze(true, true); // it cannot see that
        }
        server.crash();
        server.start();
        fleet.wait_for_next(terms);
        fleet.members[leader].proxy.freeze(false, false);
    }
    fleet.wait_for_leader();
    fleet.assert_no_overlap();
    fleet.replace(0);
}

/// Any fault at any time. The faults may leave nobody who can lead, so all of them are repaired from time to
/// time.
#[test]
fn whatever_breaks() {
    let database = Database::new();
    let mut fleet = Fleet::start(&database.url(), LEASE);
    let random = |limit: usize| RandomState::new().hash_one(0) as usize % limit;
    for _ in 0..4 {
        fleet.wait_for_leader();
        for _ in 0..12 {
            let leader = fleet.leader();
            let member = match leader {
                Some((leader, _)) if random(2) == 0 => leader,
                _ => random(MEMBERS),
            };
            match random(8) {
                0 => fleet.replace(member),
                1 => fleet.signal(member, "STOP"),
                2 | 3 => fleet.signal(member, "CONT"),
                4 => fleet.members[member].proxy.cut(),
                5 => leader.map_or((), |(_, pid)| terminate(&database.url(), pid)),
                _ => fleet.members[member]
                    .proxy
                    .freeze(random(2) == 0, random(2) == 0),
            }
            thread::sleep(Duration::from_millis(random(300) as u64));
        }
        for member in 0..MEMBERS {
            fleet.signal(member, "CONT");
            fleet.members[member].proxy.freeze(false, false);
        }
        let (leader, _) = fleet.wait_for_leader();
        let terms = fleet.count();
        fleet.replace(leader);
        fleet.wait_for_next(terms);
    }
    fleet.assert_no_overlap();
}
