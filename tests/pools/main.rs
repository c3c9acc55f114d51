//! Pools: what they must never get back, the wait for their connections, and what pooled locks can do.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/timeouts.rs"]
mod timeouts;

use std::time::Duration;

use oracle::{Oracle, connect, unique_key, url};
use pglock::driver::Session;
use pglock::{Error, Lock, LockBackend, LockGuard, QueuedPool, with_transaction_lock};
use r2d2::{ManageConnection, Pool};

/// A manager of each driver, and a hand-written one. The sessions of each have an application name of
/// their own.
macro_rules! with_each_manager {
    ($function:ident) => {
        mod $function {
            #[cfg(feature = "postgres")]
            #[test]
            fn r2d2_postgres() {
                let name = crate::oracle::unique_name("app");
                let mut config: postgres::Config = crate::oracle::url().parse().unwrap();
                config.application_name(&name);
                let manager =
                    r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls);
                super::$function(manager, &name);
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn diesel() {
                let name = crate::oracle::unique_name("app");
                let url = format!("{}?application_name={name}", crate::oracle::url());
                let manager = diesel::r2d2::ConnectionManager::<diesel::PgConnection>::new(url);
                super::$function(manager, &name);
            }

            #[cfg(feature = "postgres")]
            #[test]
            fn hand_written() {
                let name = crate::oracle::unique_name("app");
                super::$function(crate::HandWritten { name: name.clone() }, &name);
            }
        }
    };
}

mod attempts;
mod checkouts;
mod nesting;
mod returned;

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

fn never<T, S: ?Sized>(_: &mut S) -> Result<T, Error> {
    panic!("the body must not run")
}

/// How many advisory locks the sessions of an application hold.
fn held_by(application: &str) -> i64 {
    let query = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                 WHERE locktype = 'advisory' AND granted AND application_name = $1";
    connect().query_one(query, &[&application]).unwrap().get(0)
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

/// diesel's pooled connections are connections themselves, and can be in transactions.
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
