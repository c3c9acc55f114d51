//! Changes of term while commits are slow: what the old leader's writers have written is there before the
//! new term begins, or never.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::election::Term;
use pglock::{Error, Key};
use postgres::{Client, NoTls};

use crate::bouncer::Bouncer;
use crate::harness::*;
use crate::oracle::{unique_name, wait_until};
use crate::proxy::Proxy;

const CHANGES: usize = 12;
const WRITERS: usize = 4;

/// A row takes up to 0.3 s to commit.
const TABLE: &str = "CREATE TABLE written (n int); \
    CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql \
    AS 'BEGIN PERFORM pg_sleep(random() * 0.3); RETURN NULL; END'; \
    CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON written \
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION take_time()";

on_both_drivers!(old_writes_come_before_the_new_term);

fn old_writes_come_before_the_new_term<D: Driver>() {
    let database = Database::new();
    change_terms::<D>(&database.url(), &database.url());
}

on_both_drivers!(old_writes_through_a_pooler_come_before_the_new_term);

fn old_writes_through_a_pooler_come_before_the_new_term<D: Driver>() {
    if let Some(bouncer) = Bouncer::start(&unique_name("election-bouncer")) {
        change_terms::<D>(&bouncer.server.url(), &bouncer.url());
    }
}

/// The leader's connection is cut, and its successor begins at once, but the commits in progress take longer.
fn change_terms<D: Driver>(server: &str, writers: &str) {
    let name = unique_name("election");
    let lock = Key::namespaced("pglock.election", name.clone());
    let mut oracle = Client::connect(server, NoTls).unwrap();
    oracle.batch_execute(TABLE).unwrap();
    let mut written = || -> i64 {
        let row = oracle.query_one("SELECT count(*) FROM written", &[]);
        row.unwrap().get(0)
    };
    let proxy = || Proxy::in_front_of(server.parse().unwrap(), Duration::ZERO);
    let proxies = [proxy(), proxy()];
    let elections = [&proxies[0], &proxies[1]]
        .map(|proxy| D::election(&through(proxy), &name).lease(LEASE).at_once());
    let mut term = elections[0].campaign().unwrap();
    for change in 1..=CHANGES {
        let (next, seen) = thread::scope(|threads| {
            let next = threads.spawn(|| elections[change % 2].campaign().unwrap());
            wait_for_waiter(server, &lock);
            for _ in 0..WRITERS {
                threads.spawn(|| write::<D>(&term, writers));
            }
            let pause = RandomState::new().hash_one(change) % 300;
            thread::sleep(Duration::from_millis(pause)); // varies how far the writers are
            proxies[(change + 1) % 2].cut();
            let next = next.join().unwrap();
            (next, written())
        });
        assert_eq!(written(), seen, "written after the new term had begun");
        term = next;
    }
    assert!(written() > 0);
}

fn write<D: Driver>(term: &Term, url: &str) {
    let mut conn = D::connect(url);
    loop {
        let written = term.fenced(&mut conn, |tx| {
            let inserted = tx.send("INSERT INTO written VALUES (1)");
            inserted.map_err(|failure| Error::body(format!("{failure:?}")))
        });
        match written {
            Ok(()) => {}
            Err(Error::TermOver { .. }) => return,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn wait_for_waiter(server: &str, lock: &Key) {
    let mut client = Client::connect(server, NoTls).unwrap();
    let (classid, objid, _) = lock.pg_locks();
    let waiting = "SELECT FROM pg_locks WHERE NOT granted AND classid = $1 AND objid = $2";
    wait_until("a candidate", || {
        client.query_opt(waiting, &[&classid, &objid]).unwrap()
    });
}
