//! In a transaction that the caller opened: the lock is held until the transaction ends, and whatever
//! happens to the acquire, the transaction goes on as it was.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use pglock::{Error, Lock, LockGuard, Scope, transaction_lock, try_transaction_lock, with_lock};

use crate::harness::{InTransaction, Refusal, holds, on, sql};
use crate::oracle::{Oracle, Table, unique_key};

const SHORT: Duration = Duration::from_millis(20);

/// Work done before the lock: it must survive all that follows.
fn work<B: pglock::LockBackend + ?Sized>(backend: &mut B) {
    on(
        backend,
        "CREATE TEMP TABLE work (n int) ON COMMIT DROP; INSERT INTO work VALUES (1)",
    )
    .unwrap();
}

fn work_is_there<B: pglock::LockBackend + ?Sized>(backend: &mut B, rows: u32) {
    assert!(holds(
        backend,
        &format!("(SELECT count(*) = {rows} FROM work)")
    ));
}

pub fn a_lock_is_held_until_the_transaction_ends<H: InTransaction>() {
    let mut oracle = Oracle::new();
    let keys = [unique_key(), unique_key(), unique_key(), unique_key()];
    H::with(|backend| {
        with_lock(backend, &keys[0], |_| Ok::<_, Error>(())).unwrap();
        transaction_lock(backend, &keys[1]).unwrap();
        assert!(try_transaction_lock(backend, &keys[2]).unwrap());
        let mut lock = Lock::new(&mut *backend, &keys[3]).shared();
        let mut guard = lock.acquire().unwrap();
        assert_eq!(LockGuard::scope(&guard), Scope::Transaction);
        assert!(LockGuard::is_held(&mut guard).unwrap());
        LockGuard::release(guard).unwrap();
        for key in &keys {
            oracle.holder(key);
        }
        assert_eq!(oracle.held(&keys[3]), ["ShareLock"]);
    });
    for key in &keys {
        oracle.assert_free(key);
    }
}

/// As the documentation says: that is the server's doing.
pub fn a_savepoint_that_is_rolled_back_takes_its_locks_with_it<H: InTransaction>() {
    let mut oracle = Oracle::new();
    let [before, one, other] = [unique_key(), unique_key(), unique_key()];
    H::with(|backend| {
        transaction_lock(backend, &before).unwrap();
        on(backend, "SAVEPOINT theirs").unwrap();
        transaction_lock(backend, &one).unwrap();
        let mut lock = Lock::new(&mut *backend, &other);
        let mut guard = lock.acquire().unwrap();
        oracle.holder(&one);
        oracle.holder(&other);
        sql(&mut *guard, "ROLLBACK TO SAVEPOINT theirs").unwrap();
        assert!(!LockGuard::is_held(&mut guard).unwrap());
        LockGuard::release(guard).unwrap();
        oracle.assert_free(&one);
        oracle.assert_free(&other);
        oracle.holder(&before);
    });
}

/// Even if the transaction has read before it waited.
pub fn a_transaction_that_waited_sees_what_was_committed<H: InTransaction>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        on(backend, &table.assert_rows(0)).unwrap();
        oracle.write_when_waited_for(&key, &table, || transaction_lock(backend, &key).unwrap());
        on(backend, &table.assert_rows(1)).unwrap();
    });
}

pub fn a_refused_acquire_leaves_the_transaction_as_it_was<H: InTransaction>() {
    let (mut oracle, key, free) = (Oracle::new(), unique_key(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        work(backend);
        for setting in ["1234ms", "2min", "0"] {
            on(backend, &format!("SET LOCAL lock_timeout = '{setting}'")).unwrap();
            let is_kept = format!("current_setting('lock_timeout') = '{setting}'");

            assert!(!try_transaction_lock(backend, &key).unwrap());
            let mut both = Lock::new(&mut *backend, [&key, &free]);
            assert!(both.try_acquire().unwrap().is_none());
            let mut both = Lock::new(&mut *backend, [&key, &free]).timeout(SHORT);
            let error = both.acquire().unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error:?}");

            assert_eq!(oracle.rows(&key).len(), 1);
            oracle.assert_free(&free);
            assert!(holds(backend, &is_kept), "after a failure: {setting}");

            let mut lock = Lock::new(&mut *backend, unique_key()).timeout(SHORT);
            lock.run(|_| Ok::<_, Error>(())).unwrap();
            assert!(holds(backend, &is_kept), "after a success: {setting}");
        }
        work_is_there(backend, 1);
    });
}

pub fn other_ends_of_the_wait_leave_the_transaction_usable<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        work(backend);
        on(backend, "SET LOCAL lock_timeout = '20ms'").unwrap();
        let error = transaction_lock(backend, &key).unwrap_err();
        assert!(
            matches!(error, Error::Timeout { timeout: None, .. }),
            "{error:?}"
        );
        on(backend, "SET LOCAL lock_timeout = 0").unwrap();

        std::thread::scope(|threads| {
            threads.spawn(|| {
                let pid = oracle.wait_for_waiter(&key);
                oracle.cancel(pid);
            });
            let error = transaction_lock(backend, &key).unwrap_err();
            assert!(matches!(error, Error::Canceled { .. }), "{error:?}");
        });
        work_is_there(backend, 1);
        assert_eq!(oracle.rows(&key).len(), 1);
    });
}

pub fn a_connection_that_dies_while_waiting_is_told<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let pid = oracle.wait_for_waiter(&key);
                oracle.terminate(pid);
            });
            for _ in ["while waiting", "and afterwards"] {
                let lost = transaction_lock(backend, &key);
                assert!(
                    matches!(lost, Err(Error::ConnectionLost { .. })),
                    "{lost:?}"
                );
            }
        });
        assert_eq!(oracle.rows(&key).len(), 1);
    });
}

pub fn a_deadlock_leaves_the_transaction_usable<H: InTransaction>() {
    let (mut oracle, mut other) = (Oracle::new(), Oracle::new());
    let (ours, theirs) = (unique_key(), unique_key());
    other
        .client
        .batch_execute("SET deadlock_timeout = '10min'")
        .unwrap();
    other.lock(&theirs);
    std::thread::scope(|threads| {
        H::with(|backend| {
            work(backend);
            transaction_lock(backend, &ours).unwrap();
            threads.spawn(|| other.lock(&ours));
            oracle.wait_for_waiter(&ours);
            let error = transaction_lock(backend, &theirs).unwrap_err();
            assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
            work_is_there(backend, 1);
        });
    });
}

pub fn the_session_scope_is_refused<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let mut lock = Lock::new(&mut *backend, &key).scope(Scope::Session);
        let refused = lock.run(|_| -> Result<(), Error> { panic!("the body must not run") });
        assert!(
            matches!(refused, Err(Error::InTransaction { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
        assert!(holds(backend, "true"));
    });
}

pub fn a_stale_snapshot_is_refused<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        on(backend, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap();
        let refused = transaction_lock(backend, &key);
        assert!(
            matches!(refused, Err(Error::StaleSnapshot { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
        assert!(holds(backend, "true"), "the transaction goes on");
    });
}

pub fn an_aborted_transaction_is_told<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        on(backend, "SELECT 1 / 0").unwrap_err();
        let refused = transaction_lock(backend, &key);
        assert!(
            matches!(refused, Err(Error::TransactionAborted { .. })),
            "{refused:?}"
        );
        oracle.assert_free(&key);
    });
}

pub fn an_error_rolls_back_to_the_lock_and_no_further<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        work(backend);
        let mut lock = Lock::new(&mut *backend, &key);
        for statement in ["SELECT 1", "SELECT 1 / 0"] {
            let error = lock.run_in_transaction(|tx| {
                sql(tx, "INSERT INTO work VALUES (2)")?;
                let _ = sql(tx, statement);
                Err::<(), _>(Refusal::Body)
            });
            assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
        }
        let nested = lock.run_in_transaction(|tx| {
            sql(tx, "INSERT INTO work VALUES (2)")?;
            Lock::new(tx, &key).run_in_transaction(|_| Err::<(), _>(Refusal::Body))
        });
        assert!(matches!(nested, Err(Refusal::Body)), "{nested:?}");
        work_is_there(backend, 1);
        let mut lock = Lock::new(&mut *backend, &key);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            lock.run_in_transaction(|tx| -> Result<(), Error> {
                sql(tx, "INSERT INTO work VALUES (3)")?;
                resume_unwind(Box::new("of the body"))
            })
        }));
        panic.unwrap_err();
        let swallowed = lock.run_in_transaction(|tx| {
            let _ = sql(tx, "SELECT 1 / 0");
            Ok::<_, Error>(())
        });
        assert!(
            matches!(swallowed, Err(Error::NotCommitted { .. })),
            "{swallowed:?}"
        );
        work_is_there(backend, 1);
        oracle.holder(&key);

        Lock::new(&mut *backend, &key)
            .run_in_transaction(|tx| sql(tx, "INSERT INTO work VALUES (4)"))
            .unwrap();
        let mut keep = Lock::new(&mut *backend, &key).rollback_on_error(false);
        let error = keep.run_in_transaction(|tx| {
            sql(tx, "INSERT INTO work VALUES (5)")?;
            Err::<(), _>(Refusal::Body)
        });
        assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
        work_is_there(backend, 3);
    });
}

pub fn the_bodys_error_is_the_callers_to_handle<H: InTransaction>() {
    let key = unique_key();
    H::with(|backend| {
        work(backend);
        let error = with_lock(backend, &key, |conn| {
            sql(conn, "INSERT INTO work VALUES (2)")?;
            Err::<(), _>(Refusal::Body)
        });
        assert!(matches!(error, Err(Refusal::Body)), "{error:?}");
        work_is_there(backend, 2);
    });
}
