//! A queued pool lets the server queue.

use std::thread;

use pglock::{Error, Lock, QueuedPool, with_lock};
use postgres::NoTls;
use r2d2_postgres::PostgresConnectionManager;

use crate::oracle::{Oracle, Table, unique_key, url};

fn pool() -> QueuedPool<PostgresConnectionManager<NoTls>> {
    let manager = PostgresConnectionManager::new(url().parse().unwrap(), NoTls);
    QueuedPool::new(r2d2::Pool::builder().max_size(2).build(manager).unwrap())
}

#[test]
fn all_wait_at_the_server() {
    let (pool, key, table, mut oracle) = (pool(), unique_key(), Table::new(), Oracle::new());
    oracle.lock(&key);
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut lock = Lock::new(&pool, &key);
                lock.batch_execute(&table.insert()).unwrap();
            });
        }
        oracle.wait_for_waiters(&key, 2);
        assert_eq!(pool.waiting(), 0);
        oracle.unlock(&key);
    });
    assert_eq!(table.rows(), 2);
    assert_eq!(pool.pool().state().idle_connections, 2);
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    let (pool, key) = (pool(), unique_key());
    let error = with_lock(&mut &pool, &key, |_| {
        Lock::new(&pool, &key).batch_execute("")
    });
    let error = error.unwrap_err();
    assert!(matches!(error, Error::AlreadyHeld { .. }), "{error:?}");
    Lock::new(&pool, &key).batch_execute("").unwrap();
}
