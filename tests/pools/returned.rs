//! What a pool gets back.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, Lock, LockGuard, QueuedPool, with_lock};
use r2d2::ManageConnection;

use crate::oracle::{Oracle, connect, unique_key, unique_name};
use crate::{held_by, pool};

with_each_manager!(the_pool_never_gets_a_lock_back);

/// After each bad end, the test takes all connections out of the pool: none of those that the pool would
/// hand out may hold anything.
fn the_pool_never_gets_a_lock_back<M>(manager: M, application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    const SIZE: u32 = 2;
    // The right to release is the whole server's: one manager's test at a time takes it away.
    static RIGHT: Mutex<()> = Mutex::new(());
    let _right = RIGHT.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Takes the right to release away, so that no release can succeed: only the end of the session frees the
/// lock.
fn broken_release() -> (String, String) {
    let role = unique_name("role");
    let function = "EXECUTE ON FUNCTION pg_catalog.pg_advisory_unlock(bigint)";
    let create = format!(
        "DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role}; END IF; END$$; \
         REVOKE {function} FROM PUBLIC; SET ROLE {role}"
    );
    (
        create,
        format!("GRANT {function} TO PUBLIC; DROP ROLE {role}"),
    )
}

fn swallow<E>(_: Result<(), E>) -> Result<(), Error> {
    Ok(())
}

/// The section was begun outside the runtime, and the guard is dropped in a task: the `postgres` crate panics
/// where it is used inside a runtime.
#[cfg(feature = "postgres")]
#[test]
fn a_guard_that_is_dropped_in_a_task_gives_the_lock_back() {
    let config: postgres::Config = crate::oracle::url().parse().unwrap();
    let manager = r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls);
    let (pool, mut oracle, key) = (pool(manager, 1), Oracle::new(), unique_key());
    for drops in [false, true] {
        let guard = Lock::new(pool.clone(), &key).acquire_owned().unwrap();
        oracle.holder(&key);
        in_a_task(|| match drops {
            true => drop(guard),
            false => LockGuard::release(guard).unwrap(),
        });
        oracle.wait_until_free(&key);
        let mut lock = Lock::new(QueuedPool::new(pool.clone()), &key);
        let guard = lock.acquire().unwrap();
        oracle.holder(&key);
        in_a_task(|| match drops {
            true => drop(guard),
            false => LockGuard::release(guard).unwrap(),
        });
        drop(lock);
        oracle.wait_until_free(&key);
        with_lock(&mut pool.clone(), &key, |_| Ok::<_, Error>(())).unwrap();
    }
}

#[cfg(feature = "postgres")]
fn in_a_task(work: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async { work() });
}
