//! Every backend reports who holds and who waits, as `pg_locks` shows it.

use std::time::Duration;

use pglock::{Error, Key, Lock, Mode, inspect, with_lock};
use postgres::error::SqlState;

use crate::harness::{Harness, InTransaction, holds, on};
use crate::oracle::{Oracle, connect, unique_key, unique_name};

/// A session with an application name of its own.
fn named(application: &str) -> Oracle {
    let mut oracle = Oracle::new();
    let set = format!("SET application_name = '{application}'");
    oracle.client.batch_execute(&set).unwrap();
    oracle
}

fn pid(oracle: &mut Oracle) -> i32 {
    let row = oracle.client.query_one("SELECT pg_backend_pid()", &[]);
    row.unwrap().get(0)
}

pub fn holders_and_waiters_are_told<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let (mut holder, mut waiter) = (named("mailer"), named("reporter"));
    holder.lock_shared(&key);
    holder.client.batch_execute("BEGIN").unwrap();
    let (holding, waiting) = (pid(&mut holder), pid(&mut waiter));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            waiter.lock(&key);
        });
        oracle.wait_for_waiter(&key);
        H::with(|backend| {
            let claims = inspect::holders(backend, &key).unwrap();
            let [claim] = claims.as_slice() else {
                panic!("{claims:?}")
            };
            assert_eq!(claim.key.to_string(), key.to_string(), "the user's name");
            assert_eq!((claim.mode, claim.granted), (Mode::Shared, true));
            assert_eq!((claim.own, claim.pid), (false, Some(holding)));
            assert_eq!(claim.application.as_deref(), Some("mailer"));
            assert!(claim.user.is_some());
            assert_eq!(claim.state.as_deref(), Some("idle in transaction"));
            assert!(claim.connected_for >= claim.transaction_for);
            assert!(claim.transaction_for >= claim.state_for && claim.state_for.is_some());
            assert_eq!((claim.waiting_for, claim.blocked_by.len()), (None, 0));

            let claims = inspect::waiters(backend, &key).unwrap();
            let [claim] = claims.as_slice() else {
                panic!("{claims:?}")
            };
            assert_eq!((claim.mode, claim.granted), (Mode::Exclusive, false));
            assert_eq!(claim.pid, Some(waiting));
            assert_eq!(claim.application.as_deref(), Some("reporter"));
            assert_eq!(claim.blocked_by, [holding]);
            assert!(claim.waiting_for > Some(Duration::ZERO));
        });
        holder.unlock_shared(&key);
    });
}

pub fn every_kind_of_key_is_told_apart<H: Harness>() {
    let number = unique_key().as_i64().unwrap();
    let low = number as i32;
    let keys = [
        Key::from(number),
        Key::from(-number),
        Key::from(i64::from(low)),
        Key::from((0, low)),
        Key::from((low, 0)),
        Key::from((low, -1)),
        Key::from((i32::MIN, low)),
        unique_key(),
    ];
    let mut holder = Oracle::new();
    keys.iter().for_each(|key| holder.lock(key));
    let pid = pid(&mut holder);
    H::with(|backend| {
        let mut held = inspect::locks(backend).unwrap();
        held.retain(|claim| claim.pid == Some(pid));
        let mut held: Vec<_> = held.into_iter().map(|claim| claim.key).collect();
        held.sort();
        let mut expected = keys.to_vec();
        expected.sort();
        assert_eq!(held, expected);
        for key in &keys {
            assert_eq!(inspect::holders(backend, key).unwrap().len(), 1, "{key}");
        }
    });
}

pub fn a_key_that_nobody_holds_has_no_holders<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        assert_eq!(inspect::holders(backend, &key).unwrap(), []);
        assert_eq!(inspect::waiters(backend, &key).unwrap(), []);
    });
}

pub fn a_session_sees_its_own_locks<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        let held = with_lock(backend, &key, |conn| inspect::holders(conn, &key)).unwrap();
        assert_eq!(held.len(), 1);
        assert!(held[0].own);
    });
}

pub fn other_databases_are_left_out<H: Harness>() {
    let (key, name) = (unique_key(), unique_name("database"));
    let mut admin = connect();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    admin.batch_execute(&create).unwrap();
    let mut config: postgres::Config = crate::oracle::url().parse().unwrap();
    let mut elsewhere = config.dbname(&name).connect(postgres::NoTls).unwrap();
    let lock = format!("SELECT pg_advisory_lock('{}')", key.as_i64().unwrap());
    elsewhere.batch_execute(&lock).unwrap();
    H::with(|backend| assert_eq!(inspect::holders(backend, &key).unwrap(), []));
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    admin.batch_execute(&drop).unwrap();
}

pub fn what_may_not_be_seen_is_none<H: Harness>() {
    let (mut holder, key) = (named("secretive"), unique_key());
    holder.lock(&key);
    let pid = pid(&mut holder);
    let role = unique_name("role");
    let mut admin = connect();
    admin.batch_execute(&format!("CREATE ROLE {role}")).unwrap();
    H::with(|backend| {
        on(backend, &format!("SET ROLE {role}")).unwrap();
        let claims = inspect::holders(backend, &key).unwrap();
        assert_eq!(claims[0].pid, Some(pid));
        assert_eq!((&claims[0].state, claims[0].state_for), (&None, None));
        let error = inspect::terminate(backend, &claims[0]).unwrap_err();
        assert!(matches!(error, Error::Inspect { .. }), "{error:?}");
    });
    admin.batch_execute(&format!("DROP ROLE {role}")).unwrap();
    assert_eq!(holder.holder(&key), pid);
}

pub fn a_waiter_can_be_canceled_and_a_holder_ended<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let mut holder = Oracle::new();
    holder.lock(&key);
    H::with(|backend| {
        std::thread::scope(|threads| {
            let number = key.as_i64().unwrap();
            let wait = format!("SELECT pg_advisory_lock('{number}')");
            let waiter = threads.spawn(move || connect().batch_execute(&wait));
            oracle.wait_for_waiter(&key);
            let claims = inspect::waiters(backend, &key).unwrap();
            assert!(inspect::cancel(backend, &claims[0]).unwrap());
            let error = waiter.join().unwrap().unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
            // It has no claim any more, so nothing else is cancelled in its place.
            assert!(!inspect::cancel(backend, &claims[0]).unwrap());
        });
        let claims = inspect::holders(backend, &key).unwrap();
        assert!(inspect::terminate(backend, &claims[0]).unwrap());
        with_lock(backend, &key, |_| Ok::<_, Error>(())).unwrap();
        assert!(!inspect::terminate(backend, &claims[0]).unwrap());
    });
    assert!(holder.client.batch_execute("SELECT 1").is_err());
}

const SHORT: Duration = Duration::from_millis(20);

/// A key held by a session "mailer", which is idle in a transaction.
fn taken_by_the_mailer() -> (Oracle, Key) {
    let (mut mailer, key) = (named("mailer"), unique_key());
    mailer.client.batch_execute("BEGIN").unwrap();
    mailer.lock(&key);
    (mailer, key)
}

fn assert_names_the_mailer(error: &Error, key: &Key, mailer: i32) {
    let Error::Timeout { holders, .. } = error else {
        panic!("{error:?}")
    };
    let pids: Vec<_> = holders.iter().map(|holder| holder.pid).collect();
    assert_eq!(pids, [Some(mailer)]);
    let text = format!(
        "timed out after 20ms waiting for {key} (exclusive): held by pid {mailer} \"mailer\", \
         connected for "
    );
    let said = error.to_string();
    assert!(said.starts_with(&text), "{said}");
    assert!(said.contains("s, in a transaction for "), "{said}");
}

fn never<S: ?Sized>(_: &mut S) -> Result<(), Error> {
    panic!("the body must not run")
}

pub fn a_timeout_names_the_holder<H: Harness>() {
    let (mut mailer, key) = taken_by_the_mailer();
    let mailer = pid(&mut mailer);
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key).timeout(SHORT);
        assert_names_the_mailer(&lock.run(never).unwrap_err(), &key, mailer);
        let mut lock = lock.name_holders(true);
        assert_names_the_mailer(&lock.run(never).unwrap_err(), &key, mailer);
        let error = lock.run_in_transaction(|tx| never(tx)).unwrap_err();
        assert_names_the_mailer(&error, &key, mailer);
        let error = lock.name_holders(false).run(never).unwrap_err();
        assert!(error.to_string().contains("another session"), "{error}");

        let mut free = Lock::new(backend, unique_key()).timeout(SHORT);
        free.run_in_transaction(|_| Ok::<_, Error>(())).unwrap();
    });
}

pub fn a_timeout_in_a_transaction_names_the_holder<H: InTransaction>() {
    let (mut mailer, key) = taken_by_the_mailer();
    let mailer = pid(&mut mailer);
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key)
            .timeout(SHORT)
            .name_holders(true);
        assert_names_the_mailer(&lock.run(never).unwrap_err(), &key, mailer);
        let error = lock.run_in_transaction(|tx| never(tx)).unwrap_err();
        assert_names_the_mailer(&error, &key, mailer);
        assert!(holds(backend, "true"), "the transaction is usable");
    });
}

/// A table in front of the view.
const HIDE: &str = "CREATE TEMPORARY TABLE pg_locks ()";

pub fn a_table_in_front_of_the_view_hides_nothing<H: Harness>() {
    let (mut mailer, key) = taken_by_the_mailer();
    let mailer = pid(&mut mailer);
    H::with(|backend| {
        on(backend, HIDE).unwrap();
        let mut lock = Lock::new(&mut *backend, &key).timeout(SHORT);
        assert_names_the_mailer(&lock.run(never).unwrap_err(), &key, mailer);
        let error = lock.run_in_transaction(|tx| never(tx)).unwrap_err();
        assert_names_the_mailer(&error, &key, mailer);
        assert!(holds(backend, "true"));
    });
}

pub fn a_table_in_front_of_the_view_hides_nothing_in_a_transaction<H: InTransaction>() {
    let (mut mailer, key) = taken_by_the_mailer();
    let mailer = pid(&mut mailer);
    H::with(|backend| {
        on(backend, HIDE).unwrap();
        let mut lock = Lock::new(&mut *backend, &key)
            .timeout(SHORT)
            .name_holders(true);
        assert_names_the_mailer(&lock.run(never).unwrap_err(), &key, mailer);
        assert!(holds(backend, "true"));
    });
}
