//! What one thread hands to the next, and what it does not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;

use pglock::driver::{Acquire, BoxError, Session, SessionHandle};
use pglock::{Error, Key, Lock, LockBackend, LockGuard, QueuedConnection, QueuedPool, with_lock};
use r2d2::ManageConnection;

use crate::oracle::{Oracle, Table, unique_key};
use crate::{ask, messages, queued, send, wait_for_waiting};

pub fn threads_are_served_in_the_order_in_which_they_came<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, checkouts) = queued(manager(), 2);
    let (mut oracle, key, served) = (Oracle::new(), unique_key(), Mutex::new(Vec::new()));
    let mut lock = Lock::new(&pool, &key);
    let guard = lock.acquire().unwrap();
    let pid = oracle.holder(&key);
    thread::scope(|threads| {
        for number in 0..8 {
            let (pool, key, served) = (&pool, &key, &served);
            threads.spawn(move || {
                with_lock(&mut &*pool, key, |conn| {
                    served.lock().unwrap().push(number);
                    assert_eq!(ask(conn, "pg_backend_pid()")?, pid.to_string());
                    assert_eq!(Oracle::new().holder(key), pid);
                    Ok::<_, Error>(())
                })
                .unwrap();
            });
            wait_for_waiting(pool, number + 1);
        }
        LockGuard::release(guard).unwrap();
    });
    assert_eq!(*served.lock().unwrap(), Vec::from_iter(0..8));
    assert_eq!(checkouts.count(), 1, "one connection for all");
    oracle.assert_free(&key);
}

/// The session counts its messages: a hand-over takes exactly one.
pub fn a_hand_over_is_one_message<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    const SECTIONS: usize = 8;
    let (pool, _) = queued(manager(), 2);
    let key = unique_key();
    let mut lock = Lock::new(&pool, &key);
    let mut guard = lock.acquire().unwrap();
    thread::scope(|threads| {
        for number in 0..SECTIONS {
            threads.spawn(|| with_lock(&mut &pool, &key, |_| Ok::<_, Error>(())).unwrap());
            wait_for_waiting(&pool, number + 1);
        }
        let last = threads.spawn(|| with_lock(&mut &pool, &key, messages).unwrap());
        wait_for_waiting(&pool, SECTIONS + 1);
        let first = messages(&mut *guard).unwrap();
        LockGuard::release(guard).unwrap();
        let sent = last.join().unwrap() - first - 1; // without the last question
        // diesel prepares the statement in a message of its own, once a connection.
        let prepares = u32::from(!M::Connection::HAS_SQLSTATE);
        assert_eq!(sent, SECTIONS as u32 + 1 + prepares);
    });
}

/// Runs a section, which ends in some way while another thread waits. Returns its result, and whether
/// that thread took over its lock and connection, which must then be in order.
fn succeeded<M>(
    manager: M,
    end: impl FnOnce(&mut M::Connection, &Key) -> Result<(), Error>,
) -> (thread::Result<Result<(), Error>>, bool)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, checkouts) = queued(manager, 2);
    let key = unique_key();
    let section = |conn: &mut M::Connection| {
        Oracle::new().holder(&key);
        send(conn, "SELECT 1 / (now() = statement_timestamp())::int")
    };
    let result = thread::scope(|threads| {
        catch_unwind(AssertUnwindSafe(|| {
            with_lock(&mut &pool, &key, |conn| {
                threads.spawn(|| with_lock(&mut &pool, &key, section).unwrap());
                wait_for_waiting(&pool, 1);
                end(conn, &key)
            })
        }))
    });
    Oracle::new().assert_free(&key);
    (result, checkouts.count() == 1)
}

pub fn what_did_not_end_well_is_not_handed_over<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (result, handed_over) = succeeded(manager(), |conn, _| send(conn, "SELECT 1"));
    assert!(result.unwrap().is_ok() && handed_over);

    let (result, handed_over) = succeeded(manager(), |_, _| Err(Error::body("no")));
    assert!(matches!(result, Ok(Err(Error::Body(_)))) && !handed_over);

    let (result, handed_over) = succeeded(manager(), |_, _| resume_unwind(Box::new("no")));
    assert!(result.is_err() && !handed_over);

    let table = Table::new();
    for begin in ["BEGIN; ", "BEGIN; SELECT 1 / 0; "] {
        let (result, handed_over) = succeeded(manager(), |conn, _| {
            let _ = send(conn, &format!("{begin}{}", table.insert()));
            Ok(())
        });
        let told = matches!(result, Ok(Err(Error::TransactionLeftOpen { .. })));
        assert!(told && !handed_over, "{begin}{result:?}");
        assert_eq!(table.rows(), 0);
    }
}

pub fn what_was_lost_is_told_and_not_handed_over<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (result, handed_over) = succeeded(manager(), |_, key| {
        let mut oracle = Oracle::new();
        let pid = oracle.holder(key);
        oracle.terminate(pid);
        Ok(())
    });
    assert!(matches!(result, Ok(Err(Error::LockLost { .. }))));
    assert!(!handed_over);

    let unlock = |conn: &mut M::Connection, _: &Key| send(conn, "SELECT pg_advisory_unlock_all()");
    let (result, handed_over) = succeeded(manager(), unlock);
    assert!(matches!(result, Ok(Err(Error::LockLost { .. }))));
    assert!(!handed_over);
}

pub fn several_keys_are_handed_over_together<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, checkouts) = queued(manager(), 2);
    let mut keys = [unique_key(), unique_key(), unique_key()];
    keys.sort(); // the order in which they are acquired
    let (keys, last) = (&keys, &keys[2]);
    let section = |oracle: &mut Oracle| {
        let pids = keys.each_ref().map(|key| oracle.holder(key));
        assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    };
    let mut oracle = Oracle::new();
    let mut lock = Lock::new(&pool, keys);
    let guard = lock.acquire().unwrap();
    thread::scope(|threads| {
        threads.spawn(|| {
            // Given in another order.
            let mut lock = Lock::new(&pool, keys.iter().rev().collect::<Vec<_>>());
            lock.run(|_| {
                section(&mut Oracle::new());
                Ok::<_, Error>(())
            })
            .unwrap();
        });
        wait_for_waiting(&pool, 1);
        section(&mut oracle);
        LockGuard::release(guard).unwrap();
    });
    assert_eq!(checkouts.count(), 1);
    for key in keys {
        oracle.assert_free(key);
    }

    // Somebody at the server waits for the last of them, so all are released.
    let mut other = Oracle::new();
    let guard = lock.acquire().unwrap();
    thread::scope(|threads| {
        threads.spawn(|| Lock::new(&pool, keys).run(|_| Ok::<_, Error>(())).unwrap());
        wait_for_waiting(&pool, 1);
        let outsider = threads.spawn(move || {
            other.lock(last);
            other
        });
        oracle.wait_for_waiter(last);
        LockGuard::release(guard).unwrap();
        let mut other = outsider.join().unwrap();
        oracle.wait_for_waiter(last);
        assert_eq!(oracle.held(last), ["ExclusiveLock"]);
        other.unlock(last);
    });
    for key in keys {
        oracle.assert_free(key);
    }
}

/// A backend around a pool, which fails after the pool has done its work.
struct FailsAfterwards<'p, M: ManageConnection>(&'p QueuedPool<M>, i32);

impl<M> LockBackend for FailsAfterwards<'_, M>
where
    M: ManageConnection<Connection: Session>,
{
    type Session = M::Connection;
    type Handle<'a>
        = QueuedConnection<M>
    where
        Self: 'a;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        self.0.session()
    }

    fn session_for(&mut self, acquire: &Acquire<'_>) -> Result<Self::Handle<'_>, Error> {
        let mut handle = self.0.session_for(acquire)?;
        let own = ask(&mut *handle, "pg_backend_pid()").unwrap();
        assert_eq!(own, self.1.to_string());
        Err(Error::NoKeys)
    }
}

pub fn a_lock_that_is_not_taken_over_does_not_go_back_to_the_pool<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let key = unique_key();
    let mut lock = Lock::new(&pool, &key);
    let guard = lock.acquire().unwrap();
    let pid = Oracle::new().holder(&key);
    thread::scope(|threads| {
        threads.spawn(|| {
            let failed = with_lock(&mut FailsAfterwards(&pool, pid), &key, |_| {
                Ok::<_, Error>(())
            });
            assert!(matches!(failed, Err(Error::NoKeys)), "{failed:?}");
        });
        wait_for_waiting(&pool, 1);
        LockGuard::release(guard).unwrap();
    });
    Oracle::new().assert_free(&key);
    with_lock(&mut &pool, &key, |_| Ok::<_, Error>(())).unwrap();
}

/// The thread that releases it did not acquire it. A guard that is only dropped, or released by a panic,
/// is not handed over.
pub fn a_guard_is_handed_over_from_another_thread<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    for (end, checked_out) in [(End::Release, 1), (End::Drop, 2), (End::Panic, 2)] {
        let (pool, checkouts) = queued(manager(), 2);
        let (mut oracle, key) = (Oracle::new(), unique_key());
        let mut lock = Lock::new(pool.clone(), &key);
        let guard = lock.acquire().unwrap();
        let next = thread::spawn({
            let (mut pool, key) = (pool.clone(), key.clone());
            move || with_lock(&mut pool, &key, |_| Ok::<_, Error>(()))
        });
        wait_for_waiting(&pool, 1);
        let ended = thread::spawn(move || match end {
            End::Release => LockGuard::release(guard).unwrap(),
            End::Drop => drop(guard),
            End::Panic => {
                let _released = ReleasedOnDrop(Some(guard));
                resume_unwind(Box::new("no"));
            }
        });
        assert_eq!(ended.join().is_err(), matches!(end, End::Panic));
        next.join().unwrap().unwrap();
        assert_eq!(checkouts.count(), checked_out);
        oracle.assert_free(&key);
    }
}

#[derive(Clone, Copy)]
enum End {
    Release,
    Drop,
    Panic,
}

struct ReleasedOnDrop<H: SessionHandle>(Option<LockGuard<H>>);

impl<H: SessionHandle> Drop for ReleasedOnDrop<H> {
    fn drop(&mut self) {
        self.0.take().map(LockGuard::release);
    }
}

/// Even though the server finds nothing wrong with it.
#[cfg(feature = "diesel")]
#[test]
fn what_the_driver_calls_broken_is_not_handed_over() {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};

    let (result, handed_over) = succeeded(crate::diesel_manager(), |conn, _| {
        AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
        Ok(())
    });
    assert!(matches!(result, Ok(Ok(()))) && !handed_over, "{result:?}");
}
