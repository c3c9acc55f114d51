//! Many elections in one process, which leave nothing behind.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use pglock::Error;
use pglock::election::Election;
use postgres::{Client, NoTls};

use crate::harness::*;
use crate::oracle::{unique_name, wait_until};
use crate::server::Server;

const ELECTIONS: usize = 200;

/// Tells the child process where the server is.
const TASK: &str = "PGLOCK_TEST_MANY";

on_both_drivers!(two_hundred_elections_in_one_process);

/// In a process of its own, so that its threads can be counted.
fn two_hundred_elections_in_one_process<D: Driver>() {
    let server = Server::new(&unique_name("many"));
    server.configure("max_connections = 250\n");
    server.start();
    let child = if std::any::type_name::<D>().contains("Diesel") {
        "diesel"
    } else {
        "postgres"
    };
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("many::{child}"), "--ignored"])
        .env(TASK, server.url())
        .stdout(Stdio::null())
        .status();
    assert!(ended.unwrap().success());
}

#[cfg(feature = "postgres")]
#[test]
#[ignore = "is what two_hundred_elections_in_one_process starts"]
fn postgres() {
    lead_all::<Postgres>();
}

#[cfg(feature = "diesel")]
#[test]
#[ignore = "is what two_hundred_elections_in_one_process starts"]
fn diesel() {
    lead_all::<Diesel>();
}

fn lead_all<D: Driver>() {
    let Ok(url) = std::env::var(TASK) else {
        return;
    };
    let mut oracle = Client::connect(&url, NoTls).unwrap();
    let mut sessions = || -> i64 {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'many-%'";
        oracle.query_one(query, &[]).unwrap().get(0)
    };
    let before = threads();
    let election = |number| D::election(&url, &format!("many-{number}"));
    let elections: Vec<_> = (0..ELECTIONS).map(election).collect();
    let terms: Vec<_> = thread::scope(|threads| {
        let campaigns: Vec<_> = elections
            .iter()
            .map(|election| threads.spawn(|| election.campaign().unwrap()))
            .collect();
        campaigns
            .into_iter()
            .map(|campaign| campaign.join().unwrap())
            .collect()
    });
    assert_eq!(sessions(), ELECTIONS as i64);
    assert!(
        terms
            .iter()
            .all(|term| !term.wait(Duration::from_millis(5)))
    );
    drop(terms);
    wait_until("the end of the sessions", || {
        (sessions() == 0).then_some(())
    });

    // One attempt does not win, one fails, one is stopped.
    let leader = elections[0].campaign().unwrap();
    assert!(elections[0].try_campaign().unwrap().is_none());
    let connect = || Err::<D::Backend, _>("no server");
    Election::new(connect, "many-none")
        .try_campaign()
        .unwrap_err();
    let token = pglock::StopToken::new();
    let stopped = election(0).stop_on(&token);
    thread::scope(|threads| {
        let waiting = threads.spawn(|| stopped.campaign().unwrap_err());
        thread::sleep(Duration::from_millis(20));
        token.stop();
        assert!(matches!(waiting.join().unwrap(), Error::Stopped { .. }));
    });
    leader.resign().unwrap();
    wait_until("the end of the sessions", || {
        (sessions() == 0).then_some(())
    });
    assert_eq!(threads(), before);
}

/// Of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
