//! What a pool must never get back, and what pooled locks can do.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "support/oracle.rs"]
mod oracle;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use oracle::{Oracle, connect, unique_key, unique_name, url};
use pglock::driver::Session;
use pglock::{
    Error, Key, Lock, LockBackend, LockGuard, QueuedPool, with_lock, with_transaction_lock,
};
use r2d2::{ManageConnection, Pool};

/// A manager of each driver, and a hand-written one. Each calls itself by a name under which the
/// server shows its sessions.
macro_rules! with_each_manager {
    ($function:ident) => {
        mod $function {
            #[cfg(feature = "postgres")]
            #[test]
            fn r2d2_postgres() {
                let name = super::unique_name("app");
                let mut config: postgres::Config = super::url().parse().unwrap();
                config.application_name(&name);
                let manager =
                    r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls);
                super::$function(manager, &name);
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn diesel() {
                let name = super::unique_name("app");
                let url = format!("{}?application_name={name}", super::url());
                let manager = diesel::r2d2::ConnectionManager::<diesel::PgConnection>::new(url);
                super::$function(manager, &name);
            }

            #[cfg(feature = "postgres")]
            #[test]
            fn hand_written() {
                let name = super::unique_name("app");
                super::$function(super::HandWritten { name: name.clone() }, &name);
            }
        }
    };
}

#[cfg(feature = "postgres")]
struct HandWritten {
    name: String,
}

#[cfg(feature = "postgres")]
impl ManageConnection for HandWritten {
    type Connection = postgres::Client;
    type Error = postgres::Error;

    fn connect(&self) -> Result<postgres::Client, postgres::Error> {
        let mut config: postgres::Config = url().parse()?;
        config.application_name(&self.name).connect(postgres::NoTls)
    }

    fn is_valid(&self, client: &mut postgres::Client) -> Result<(), postgres::Error> {
        client.batch_execute("")
    }

    fn has_broken(&self, client: &mut postgres::Client) -> bool {
        client.is_closed()
    }
}

fn pool<M: ManageConnection>(manager: M, size: u32) -> Pool<M> {
    let timeout = Duration::from_secs(30);
    Pool::builder()
        .max_size(size)
        .connection_timeout(timeout)
        .build(manager)
        .unwrap()
}

/// How many advisory locks the sessions of an application hold.
fn held_by(application: &str) -> i64 {
    let query = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                 WHERE locktype = 'advisory' AND granted AND application_name = $1";
    connect().query_one(query, &[&application]).unwrap().get(0)
}

with_each_manager!(the_pool_never_gets_a_lock_back);

/// After each way to end badly, all connections are taken out of the pool, so that each of them is
/// one that it would hand out, and none holds anything.
fn the_pool_never_gets_a_lock_back<M>(manager: M, application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    const SIZE: u32 = 2;
    let pool = pool(manager, SIZE);
    let queued = QueuedPool::new(pool.clone());
    let (mut oracle, key, taken) = (Oracle::new(), unique_key(), unique_key());
    oracle.lock(&taken);

    let run = |queues: bool, body: &mut dyn FnMut(&mut M::Connection) -> Result<(), Error>| {
        let _ = catch_unwind(AssertUnwindSafe(|| match queues {
            false => with_lock(&mut &pool, &key, |conn| body(conn)),
            true => with_lock(&mut &queued, &key, |conn| body(conn)),
        }));
    };
    let mut kill = Oracle::new();
    let (break_release, mend_release) = broken_release();
    type Body<'b, C> = Box<dyn FnMut(&mut C) -> Result<(), Error> + 'b>;
    let endings: Vec<(&str, Body<'_, M::Connection>)> = vec![
        ("an error", Box::new(|_| Err(Error::body("no")))),
        ("a panic", Box::new(|_| resume_unwind(Box::new("no")))),
        (
            "a failed statement",
            Box::new(|conn| swallow(conn.send("SELECT 1 / 0"))),
        ),
        (
            "a transaction",
            Box::new(|conn| swallow(conn.send("BEGIN"))),
        ),
        (
            "an aborted transaction",
            Box::new(|conn| swallow(conn.send("BEGIN; SELECT 1 / 0"))),
        ),
        (
            "a panic in a transaction",
            Box::new(|conn| {
                let _ = conn.send("BEGIN");
                resume_unwind(Box::new("no"))
            }),
        ),
        (
            "a killed session",
            Box::new(|_| {
                let pid = kill.holder(&key);
                kill.terminate(pid);
                Ok(())
            }),
        ),
        (
            "a failed unlock",
            Box::new(|conn| swallow(conn.send("SELECT pg_advisory_unlock_all()"))),
        ),
        (
            "a release that the server refuses",
            Box::new(|conn| swallow(conn.send(&break_release))),
        ),
        (
            "a timeout",
            Box::new(|conn| {
                Lock::new(conn, &taken)
                    .timeout(Duration::from_millis(5))
                    .run(|_| Ok(()))
            }),
        ),
    ];
    for (ending, mut body) in endings {
        for queues in [false, true] {
            run(queues, &mut *body);
            let all: Vec<_> = (0..SIZE).map(|_| pool.get().unwrap()).collect();
            assert_eq!(held_by(application), 0, "after {ending}");
            oracle.assert_free(&key);
            drop(all);
            run(queues, &mut |_| Ok(()));
            assert_eq!(held_by(application), 0, "in the pool, after {ending}");
        }
    }
    connect().batch_execute(&mend_release).unwrap();
}

/// Hides `pg_advisory_unlock` behind a function that fails, so that no release can succeed: only
/// the end of the session frees the lock.
fn broken_release() -> (String, String) {
    let schema = unique_name("schema");
    let create = format!(
        "CREATE SCHEMA {schema}; CREATE FUNCTION {schema}.pg_advisory_unlock(bigint) \
         RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'broken'; END$$; \
         SET search_path = {schema}, pg_catalog"
    );
    (create, format!("DROP SCHEMA {schema} CASCADE"))
}

fn swallow<E>(_: Result<(), E>) -> Result<(), Error> {
    Ok(())
}

with_each_manager!(a_lock_owns_its_pool_and_its_guards_move_to_other_threads);

fn a_lock_owns_its_pool_and_its_guards_move_to_other_threads<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = pool(manager, 2);
    a_lock_owns(&QueuedPool::new(pool.clone()));
    a_lock_owns(&pool);
}

fn a_lock_owns<B>(pool: &B)
where
    B: LockBackend + Clone,
    for<'h> B::Handle<'h>: Send + 'static,
{
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let mut lock = Lock::new(pool.clone(), &key);
    for _ in 0..3 {
        lock.run(|conn| conn.send("SELECT 1").map_err(|_| Error::body("no")))
            .unwrap();
        with_transaction_lock(&mut pool.clone(), &key, |_| Ok::<_, Error>(())).unwrap();
    }
    let guard = lock.acquire().unwrap();
    drop(lock);
    oracle.holder(&key);
    let release = move || LockGuard::release(guard);
    std::thread::spawn(release).join().unwrap().unwrap();
    oracle.assert_free(&key);
}

with_each_manager!(no_connection_to_be_had_is_an_error_and_no_hang);

fn no_connection_to_be_had_is_an_error_and_no_hang<M>(manager: M, application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let timeout = Duration::from_millis(100);
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(timeout)
        .build(manager)
        .unwrap();
    let key = Key::from("no connection");
    let _only = pool.get().unwrap();
    let refused = [
        with_lock(&mut pool.clone(), &key, |_| Ok::<_, Error>(())),
        Lock::new(pool.clone(), &key)
            .timeout(Duration::ZERO)
            .run(|_| Ok(())),
        with_transaction_lock(&mut pool.clone(), &key, |_| Ok(())),
    ];
    for result in refused {
        let Err(error @ Error::Checkout { .. }) = result else {
            panic!("{result:?}")
        };
        assert!(error.to_string().contains("\"no connection\""), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(!error.is_contention());
    }
    assert_eq!(held_by(application), 0);
}

with_each_manager!(waiters_that_use_the_pool_up_are_told_and_end);

/// The holder needs a second connection, and the waiters have the rest: an error within the pool's
/// timeout, after which the waiters go on.
fn waiters_that_use_the_pool_up_are_told_and_end<M>(manager: M, application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = Pool::builder()
        .max_size(3)
        .connection_timeout(Duration::from_secs(1))
        .build(manager)
        .unwrap();
    let (mut oracle, key) = (Oracle::new(), unique_key());
    std::thread::scope(|threads| {
        let held = with_lock(&mut &pool, &key, |_| {
            let wait = || with_lock(&mut &pool, &key, |_| Ok::<_, Error>(()));
            let waiters = [threads.spawn(wait), threads.spawn(wait)];
            oracle.wait_for_waiters(&key, waiters.len());
            let refused = with_lock(&mut &pool, unique_key(), |_| Ok::<_, Error>(()));
            assert!(
                matches!(refused, Err(Error::Checkout { .. })),
                "{refused:?}"
            );
            Ok::<_, Error>(waiters)
        });
        for waiter in held.unwrap() {
            waiter.join().unwrap().unwrap();
        }
    });
    assert_eq!(held_by(application), 0);
}

/// diesel's pooled connections are connections themselves, and stand in transactions.
#[cfg(feature = "diesel")]
#[test]
fn a_pooled_diesel_connection_locks_in_its_own_transaction() {
    use diesel::{Connection, RunQueryDsl};

    let (mut oracle, key) = (Oracle::new(), unique_key());
    let manager = diesel::r2d2::ConnectionManager::<diesel::PgConnection>::new(url());
    let mut connection = pool(manager, 1).get().unwrap();
    connection
        .transaction(|conn| {
            pglock::transaction_lock(conn, &key)?;
            oracle.holder(&key);
            diesel::sql_query("SELECT 1").execute(conn)?;
            Ok::<_, diesel::result::Error>(())
        })
        .unwrap();
    oracle.assert_free(&key);
}
