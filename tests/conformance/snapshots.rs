//! No body begins with a snapshot of pglock's: it would hold up vacuum, and a body that builds an index
//! concurrently (even over another connection) would wait for itself.

use std::time::Duration;

use pglock::driver::TransactionBackend;
use pglock::{
    Error, FirstFree, IntoTarget, Key, KeyRange, Lock, LockBackend, LockGuard, Mode, Row,
    Semaphore, Table as TableLock, transaction_lock, try_transaction_lock, try_with_lock,
    with_lock,
};

use crate::harness::{Harness, InTransaction, on, sql};
use crate::oracle::{Oracle, Table, unique_key, unique_name};
use crate::slices::wait_for_second_slice;

/// Looks at one session from another one.
struct Witness {
    name: String,
    oracle: Oracle,
}

impl Witness {
    fn of<B: LockBackend + ?Sized>(backend: &mut B) -> Self {
        let name = unique_name("snapshot");
        on(backend, &format!("SET application_name = '{name}'")).unwrap();
        let oracle = Oracle::new();
        Self { name, oracle }
    }

    /// The session has nothing to do, and no snapshot.
    #[track_caller]
    fn sees_none(&mut self, body: &str) {
        let query = "SELECT state LIKE 'idle%', backend_xmin::text FROM pg_stat_activity \
                     WHERE application_name = $1";
        let row = self.oracle.client.query_one(query, &[&self.name]).unwrap();
        let (idle, snapshot): (bool, Option<String>) = (row.get(0), row.get(1));
        assert_eq!((idle, snapshot), (true, None), "{body}");
    }

    /// The same as the body of a section.
    #[track_caller]
    fn body(&mut self, name: &str) -> Result<(), Error> {
        self.sees_none(name);
        Ok(())
    }
}

pub fn no_section_begins_with_a_snapshot<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        let mut witness = Witness::of(backend);
        let mut sees = |body| witness.body(body);
        with_lock(backend, &key, |_| sees("with_lock")).unwrap();
        try_with_lock(backend, &key, |_| sees("try_with_lock")).unwrap();
        for mode in [Mode::Exclusive, Mode::Shared] {
            let mut lock = Lock::new(&mut *backend, &key)
                .mode(mode)
                .timeout(Duration::from_secs(60))
                .labelled(true);
            lock.run(|_| sees("run")).unwrap();
            let mut guard = lock.acquire().unwrap();
            sees("acquire").unwrap();
            assert!(LockGuard::is_held(&mut guard).unwrap());
            sees("is_held").unwrap();
            LockGuard::release(guard).unwrap();
        }
        let mut range = Lock::new(&mut *backend, KeyRange::new(&key, 3..9));
        range.run(|_| sees("a range")).unwrap();
        let mut slots = Semaphore::new(&mut *backend, unique_name("slots"), 3);
        slots.run(|_| sees("a slot")).unwrap();
    });
}

pub fn no_transaction_begins_with_a_snapshot<H: Harness>() {
    let table = Table::new();
    H::with(|backend| {
        on(backend, &table.insert()).unwrap();
        let witness = &mut Witness::of(backend);
        transactions(backend, witness, "a key", unique_key());
        transactions(backend, witness, "a row", Row::new(&*table.name, "n", 1));
        transactions(backend, witness, "a table", TableLock::new(&*table.name));
        let mut keys = Lock::new(&mut *backend, [unique_key(), unique_key()]);
        keys.run_in_transaction(|_| witness.body("keys")).unwrap();
        let free = FirstFree::new(&*table.name, "n");
        let found =
            free.run_in_transaction(backend, |_, _: i32| witness.body("the first free row"));
        assert_eq!(found.unwrap(), Some(()));
    });
}

fn transactions<B: LockBackend, T: IntoTarget + Clone>(
    backend: &mut B,
    witness: &mut Witness,
    name: &str,
    target: T,
) {
    let mut sees = || witness.body(name);
    let mut lock = Lock::new(&mut *backend, target.clone());
    lock.run_in_transaction(|_| sees()).unwrap();
    lock.try_run_in_transaction(|_| sees()).unwrap();
    let mut lock = Lock::new(&mut *backend, target)
        .timeout(Duration::from_secs(60))
        .rollback_on_error(false);
    lock.run_in_transaction(|_| sees()).unwrap();
}

/// The questions between two slices leave none either.
pub fn a_wait_leaves_no_snapshot<H: Harness>() {
    let (mut holder, key) = (Oracle::new(), unique_key());
    H::with(|backend| {
        let mut witness = Witness::of(backend);
        for in_transaction in [false, true] {
            after_a_wait(&mut holder, &key, || {
                let mut lock = Lock::new(&mut *backend, &key);
                let mut sees = || witness.body("after a wait");
                match in_transaction {
                    false => lock.run(|_| sees()),
                    true => lock.run_in_transaction(|_| sees()),
                }
                .unwrap();
            });
        }
    });
}

fn after_a_wait(holder: &mut Oracle, key: &Key, wait: impl FnOnce()) {
    holder.lock(key);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            wait_for_second_slice(holder, key);
            holder.unlock(key);
        });
        wait();
    });
}

/// A statement of the body's has a snapshot itself: it must be the oldest of the session.
const HAS_NO_OLDER: &str = "SELECT 1 / (backend_xmin::text::bigint >= \
     pg_snapshot_xmin(pg_current_snapshot())::text::bigint % 4294967296)::int \
     FROM pg_stat_activity WHERE pid = pg_backend_pid()";

pub fn no_message_begins_with_a_snapshot<H: Harness>() {
    let (mut holder, key, table) = (Oracle::new(), unique_key(), Table::new());
    H::with(|backend| {
        for _ in 0..2 {
            // A transaction ends during the wait, so an older snapshot can be told.
            holder.write_when_waited_for(&key, &table, || {
                Lock::new(&mut *backend, &key)
                    .batch_execute(HAS_NO_OLDER)
                    .unwrap();
            });
        }
    });
}

pub fn no_lock_leaves_a_snapshot_in_the_callers_transaction<H: InTransaction>() {
    let table = Table::new();
    let mut holder = Oracle::new();
    holder.client.batch_execute(&table.insert()).unwrap();
    H::with(|backend| {
        let mut witness = Witness::of(backend);
        witness.sees_none("the caller's transaction");
        inside(backend, &mut witness, "a key", unique_key());
        let row = Row::new(&*table.name, "n", 1);
        inside(backend, &mut witness, "a row", row);
        let whole = TableLock::new(&*table.name);
        inside(backend, &mut witness, "a table", whole);
        with_lock(backend, unique_key(), |tx| {
            witness.sees_none("with_lock");
            sql(tx, "SELECT 1")
        })
        .unwrap();
        let mut lock = Lock::new(&mut *backend, unique_key());
        let mut guard = lock.acquire().unwrap();
        witness.sees_none("acquire");
        assert!(LockGuard::is_held(&mut guard).unwrap());
        witness.sees_none("is_held");
        drop(guard);
        let free = FirstFree::new(&*table.name, "n");
        free.run_in_transaction(backend, |_, _: i32| witness.body("the first free row"))
            .unwrap();

        let key = unique_key();
        after_a_wait(&mut holder, &key, || {
            transaction_lock(backend, &key).unwrap();
            witness.sees_none("after a wait");
        });
        let key = unique_key();
        holder.lock(&key);
        assert!(!try_transaction_lock(backend, &key).unwrap());
        witness.sees_none("after a refusal");
    });
}

fn inside<B: TransactionBackend, T: IntoTarget + Clone>(
    backend: &mut B,
    witness: &mut Witness,
    name: &str,
    target: T,
) {
    transaction_lock(backend, target.clone()).unwrap();
    witness.sees_none(name);
    assert!(try_transaction_lock(backend, target.clone()).unwrap());
    witness.sees_none(name);
    Lock::new(&mut *backend, target)
        .timeout(Duration::from_secs(60))
        .run_in_transaction(|_| witness.body(name))
        .unwrap();
}
