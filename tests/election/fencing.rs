//! Fenced transactions, one by one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::election::Term;
use pglock::{Error, Key, LockBackend};

use crate::harness::{Case, Database, Driver, LEADERS, LEASE, named, on_every_driver, through};
use crate::oracle::{Oracle, Table, unique_name, url, wait_until};

on_every_driver!(
    a_fenced_transaction_commits_within_its_term,
    a_fenced_transaction_begins_without_a_snapshot,
    a_fenced_transaction_fails_as_any_other,
    a_term_that_has_ended_commits_nothing,
    a_term_whose_end_is_not_known_commits_nothing,
    a_successor_waits_for_a_transaction_that_has_begun,
    a_successor_waits_for_the_locks_of_earlier_terms,
    a_transaction_that_idles_does_not_keep_the_successor_out,
    another_database_is_none_of_the_terms,
);

fn insert<B: LockBackend>(term: &Term, conn: &mut B, table: &Table) -> Result<u32, Error> {
    term.fenced(conn, |tx| {
        tx.send(&table.insert()).unwrap();
        Ok(42)
    })
}

fn a_fenced_transaction_commits_within_its_term<D: Driver>() {
    let (case, table, mut conn) = (Case::new(), Table::new(), D::connect(&url()));
    let term = case.election::<D>().campaign().unwrap();
    for rows in 1..=3 {
        assert_eq!(insert(&term, &mut conn, &table).unwrap(), 42);
        assert_eq!(table.rows(), rows);
    }
    // Several fenced transactions at once.
    thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| insert(&term, &mut D::connect(&url()), &table).unwrap());
        }
    });
    assert_eq!(table.rows(), 6);
    assert_eq!(case.locks(), LEADERS, "the leader's alone are left");
}

fn a_fenced_transaction_begins_without_a_snapshot<D: Driver>() {
    let (case, name, mut oracle) = (Case::new(), unique_name("fenced"), Oracle::new());
    let term = case.election::<D>().campaign().unwrap();
    let mut conn = D::connect(&named(&url(), &name));
    let query = "SELECT backend_xmin::text FROM pg_stat_activity WHERE application_name = $1 \
                 AND state = 'idle in transaction'";
    let snapshot = term.fenced(&mut conn, |_| {
        let row = oracle.client.query_one(query, &[&name]).unwrap();
        Ok::<_, Error>(row.get::<_, Option<String>>(0))
    });
    assert_eq!(snapshot.unwrap(), None);
}

fn a_fenced_transaction_fails_as_any_other<D: Driver>() {
    let (case, table, mut conn) = (Case::new(), Table::new(), D::connect(&url()));
    let term = case.election::<D>().campaign().unwrap();
    let failed = term.fenced(&mut conn, |tx| {
        tx.send(&table.insert()).unwrap();
        Err::<(), _>(Error::body("the body's own"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "the body's own");
    let swallowed = term.fenced(&mut conn, |tx| {
        tx.send(&table.insert()).unwrap();
        let _ = tx.send("SELECT 1 / 0");
        Ok::<_, Error>(())
    });
    let error = swallowed.unwrap_err();
    assert!(matches!(error, Error::NotCommitted { .. }), "{error:?}");
    assert_eq!(table.rows(), 0);
    insert(&term, &mut conn, &table).unwrap();
    assert_eq!(table.rows(), 1);
}

#[track_caller]
fn assert_over(outcome: Result<u32, Error>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::TermOver { .. }), "{error:?}");
    assert!(error.is_lock_lost());
}

fn a_term_that_has_ended_commits_nothing<D: Driver>() {
    let (case, table, mut conn) = (Case::new(), Table::new(), D::connect(&url()));
    let term = case.election::<D>().campaign().unwrap();
    // The term ends in the middle of a transaction, and the leader notices.
    let outcome = term.fenced(&mut conn, |tx| {
        tx.send(&table.insert()).unwrap();
        let leader = case.leader();
        case.oracle().terminate(leader);
        wait_until("the end of the term", || term.is_over().then_some(()));
        Ok(0)
    });
    assert_over(outcome);
    assert_over(insert(&term, &mut conn, &table));
    assert_eq!(table.rows(), 0);
}

/// The leader's network is frozen, so only the server can say whether the term is over.
fn a_term_whose_end_is_not_known_commits_nothing<D: Driver>() {
    let (case, table, mut conn) = (Case::new(), Table::new(), D::connect(&url()));
    let proxy = crate::proxy::Proxy::start();
    let election = D::election(&through(&proxy), &case.name);
    let term = election
        .lease(Duration::from_secs(3_600))
        .at_once()
        .campaign()
        .unwrap();
    insert(&term, &mut conn, &table).unwrap();
    proxy.freeze(true, true);
    let leader = case.leader();
    case.oracle().terminate(leader);
    assert!(!term.is_over(), "by its own clock");
    assert_over(insert(&term, &mut conn, &table));
    // The connection is usable, and so is a transaction of the caller's.
    conn.session().unwrap().send("SELECT 1").unwrap();
    assert_eq!(table.rows(), 1);
}

/// The old leader is frozen, and so is the transaction that it has begun.
fn a_successor_waits_for_a_transaction_that_has_begun<D: Driver>() {
    let (case, table, mut conn) = (Case::new(), Table::new(), D::connect(&url()));
    let proxy = crate::proxy::Proxy::start();
    let term = D::election(&through(&proxy), &case.name)
        .lease(LEASE)
        .campaign()
        .unwrap();
    let successor = case.election::<D>();
    let (id, elected) = (case.lock.pg_locks(), AtomicBool::new(false));
    let fence = Key::namespaced("pglock.fence", format!("{}:{}:{}", id.0, id.1, id.2));
    thread::scope(|threads| {
        let outcome = term.fenced(&mut conn, |tx| {
            tx.send(&table.insert()).unwrap();
            proxy.freeze(true, true);
            threads.spawn(|| {
                let next = successor.campaign().unwrap();
                elected.store(true, Ordering::SeqCst);
                assert_eq!(table.rows(), 0, "the old term's commit was refused");
                insert(&next, &mut D::connect(&url()), &table).unwrap();
            });
            let mut oracle = Oracle::new();
            wait_until("a successor at the fence", || {
                tx.send("SELECT 'not idle'").unwrap();
                (oracle.rows(&fence).len() > 1).then_some(())
            });
            assert!(!elected.load(Ordering::SeqCst));
            assert!(term.is_over());
            Ok(0)
        });
        assert_over(outcome);
    });
    assert_eq!(table.rows(), 1);
}

/// By these locks, transactions would see that an earlier term still lasts: a session that ends frees its
/// locks one by one.
fn a_successor_waits_for_the_locks_of_earlier_terms<D: Driver>() {
    let (case, released) = (Case::new(), AtomicBool::new(false));
    let (classid, objid, objsubid) = case.lock.pg_locks();
    let class = Key::namespaced("pglock.term", format!("{classid}:{objid}:{objsubid}"));
    let term = Key::from((class.pg_locks().0 as i32, 7));
    let mut ending = Oracle::new();
    ending.lock(&term);
    let election = case.election::<D>();
    thread::scope(|threads| {
        let successor = threads.spawn(|| {
            let term = election.campaign().unwrap();
            assert!(released.load(Ordering::SeqCst), "too early");
            drop(term);
        });
        wait_until("a new term's locks", || {
            (case.locks() == LEADERS).then_some(())
        });
        thread::sleep(Duration::from_millis(50)); // enough for an election
        released.store(true, Ordering::SeqCst);
        ending.unlock(&term);
        successor.join().unwrap();
    });
}

fn a_transaction_that_idles_does_not_keep_the_successor_out<D: Driver>() {
    let (case, table, mut conn) = (Case::new(), Table::new(), D::connect(&url()));
    let election = case.election::<D>();
    let term = election.campaign().unwrap();
    let outcome = term.fenced(&mut conn, |tx| {
        tx.send(&table.insert()).unwrap();
        let leader = case.leader();
        case.oracle().terminate(leader);
        // If the server did not end this transaction, it would wait for ever.
        drop(election.campaign().unwrap());
        Ok::<_, Error>(())
    });
    assert!(outcome.is_err());
    assert_eq!(table.rows(), 0);
}

fn another_database_is_none_of_the_terms<D: Driver>() {
    let (case, database) = (Case::new(), Database::new());
    let term = case.election::<D>().campaign().unwrap();
    let outcome = term.fenced(&mut D::connect(&database.url()), |_| Ok(0));
    assert_over(outcome);
}

/// The caller's whole transaction is fenced, and stays usable if the term is over.
#[cfg(feature = "postgres")]
#[test]
fn a_transaction_of_the_callers_can_be_fenced_postgres() {
    let (case, table) = (Case::new(), Table::new());
    let mut conn = crate::oracle::connect();
    let term = case
        .election::<crate::harness::Postgres>()
        .campaign()
        .unwrap();
    let mut transaction = conn.transaction().unwrap();
    insert(&term, &mut transaction, &table).unwrap();
    transaction.commit().unwrap();
    assert_eq!(table.rows(), 1);
    let idle = "SHOW idle_in_transaction_session_timeout";
    let row = conn.query_one(idle, &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "0", "as it was");

    let leader = case.leader();
    let mut transaction = conn.transaction().unwrap();
    transaction.batch_execute(&table.insert()).unwrap();
    case.oracle().terminate(leader);
    assert_over(insert(&term, &mut transaction, &table));
    transaction.commit().unwrap();
    assert_eq!(table.rows(), 2, "what came before is the caller's");
}

#[cfg(feature = "diesel")]
#[test]
fn a_transaction_of_the_callers_can_be_fenced_diesel() {
    use crate::harness::Diesel;
    use diesel::Connection;
    use diesel::connection::SimpleConnection;

    let (case, table) = (Case::new(), Table::new());
    let mut conn = Diesel::connect(&url());
    let proxy = crate::proxy::Proxy::start();
    let election = Diesel::election(&through(&proxy), &case.name);
    let term = election
        .lease(Duration::from_secs(3_600))
        .at_once()
        .campaign()
        .unwrap();
    conn.transaction(|conn| insert(&term, conn, &table))
        .unwrap();
    assert_eq!(table.rows(), 1);

    proxy.freeze(true, true);
    let leader = case.leader();
    let kept = conn.transaction(|conn| {
        conn.batch_execute(&table.insert())?;
        case.oracle().terminate(leader);
        assert_over(insert(&term, conn, &table));
        Ok::<_, Error>(())
    });
    kept.unwrap();
    assert_eq!(table.rows(), 2, "what came before is the caller's");
}

/// Its snapshot could have been taken before the term.
#[cfg(feature = "postgres")]
#[test]
fn a_transaction_with_an_old_snapshot_is_not_fenced_postgres() {
    let (case, table) = (Case::new(), Table::new());
    let mut conn = crate::oracle::connect();
    let election = case.election::<crate::harness::Postgres>().at_once();
    let term = election.campaign().unwrap();
    let level = postgres::IsolationLevel::RepeatableRead;
    let mut transaction = conn
        .build_transaction()
        .isolation_level(level)
        .start()
        .unwrap();
    let error = insert(&term, &mut transaction, &table).unwrap_err();
    assert!(matches!(error, Error::StaleSnapshot { .. }), "{error:?}");
    transaction.batch_execute(&table.insert()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(table.rows(), 1, "the transaction stays usable");
}

#[cfg(feature = "diesel")]
#[test]
fn a_transaction_with_an_old_snapshot_is_not_fenced_diesel() {
    use crate::harness::Diesel;
    use diesel::connection::SimpleConnection;

    let (case, table) = (Case::new(), Table::new());
    let mut conn = Diesel::connect(&url());
    let election = case.election::<Diesel>().at_once();
    let term = election.campaign().unwrap();
    let kept = conn.build_transaction().serializable().run(|conn| {
        let error = insert(&term, conn, &table).unwrap_err();
        assert!(matches!(error, Error::StaleSnapshot { .. }), "{error:?}");
        conn.batch_execute(&table.insert())?;
        Ok::<_, Error>(())
    });
    kept.unwrap();
    assert_eq!(table.rows(), 1, "the transaction stays usable");
}
