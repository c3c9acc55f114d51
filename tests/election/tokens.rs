//! Tokens grow, whatever happens to the server.

use pglock::Error;
use pglock::election::Token;
use postgres::{Client, NoTls};

use crate::harness::*;
use crate::oracle::unique_name;
use crate::server::Server;

on_both_drivers!(
    tokens_grow_over_a_crash,
    tokens_grow_over_a_failover,
    nobody_is_elected_on_a_standby,
);

fn token<D: Driver>(server: &Server) -> Token {
    let election = D::election(&server.url(), "tokens").lease(LEASE);
    let term = election.campaign().unwrap();
    let token = term.token();
    assert!(token.to_string().ends_with(&token.as_u64().to_string()));
    token
}

/// Nothing else is written that would save the transaction's number to disk.
fn tokens_grow_over_a_crash<D: Driver>() {
    let server = Server::new(&unique_name("token-crash"));
    server.configure("synchronous_commit = off\nwal_writer_delay = 10s\nautovacuum = off\n");
    let mut tokens = Vec::new();
    for _ in 0..3 {
        server.start();
        tokens.extend([token::<D>(&server), token::<D>(&server)]);
        server.crash();
    }
    assert!(tokens.is_sorted_by(|one, other| one < other), "{tokens:?}");
}

/// The standby has not seen the old primary's last transactions, and uses their numbers again.
fn tokens_grow_over_a_failover<D: Driver>() {
    let primary = Server::new(&unique_name("token-primary"));
    primary.start();
    primary.stop();
    let standby = Server::new(&unique_name("token-standby"));
    standby.follow(&primary);
    primary.start();
    let mut client = Client::connect(&primary.url(), NoTls).unwrap();
    for _ in 0..100 {
        client.execute("SELECT pg_current_xact_id()", &[]).unwrap();
    }
    let before = token::<D>(&primary);
    primary.crash();
    standby.start();
    standby.promote();
    let after = token::<D>(&standby);
    assert!(after.as_u64() < before.as_u64(), "the test's own premise");
    assert!(after > before, "{after} after {before}");
}

fn nobody_is_elected_on_a_standby<D: Driver>() {
    let primary = Server::new(&unique_name("election-primary"));
    primary.start();
    primary.stop();
    let standby = Server::new(&unique_name("election-standby"));
    standby.follow(&primary);
    standby.start();
    let election = D::election(&standby.url(), "standby");
    for outcome in [election.campaign().map(Some), election.try_campaign()] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::InRecovery { .. }), "{error:?}");
    }
}
