//! A thread that holds a lock acquires another through the pool, on another connection.

use std::sync::mpsc::channel;
use std::thread;

use pglock::driver::Session;
use pglock::{
    Error, FirstFree, Lock, LockGuard, QueuedPool, Row, Table, TableMode, try_with_lock, with_lock,
    with_transaction_lock,
};
use r2d2::ManageConnection;

use crate::oracle::{self, Oracle, unique_key};
use crate::{never, queued};

type Result<T> = std::result::Result<T, Error>;

pub fn a_key_does_not_nest_through_the_pool<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let (mut oracle, key) = (Oracle::new(), unique_key());
    with_lock(&mut &pool, &key, |conn| {
        refused(Lock::new(&pool, &key));
        refused(Lock::new(&pool, &key).timeout(oracle::PATIENCE));
        assert!(try_with_lock(&mut &pool, &key, never)?.is_none());
        // These ways to nest work.
        with_lock(conn, &key, |_| Result::Ok(()))?;
        with_lock(&mut &pool, unique_key(), |_| Result::Ok(()))?;
        oracle.holder(&key);
        Result::Ok(())
    })
    .unwrap();
    with_lock(&mut &pool, &key, |_| Result::Ok(())).unwrap();
    oracle.assert_free(&key);
}

/// Each of these would wait at the server, which sees two sessions, but no deadlock.
pub fn what_overlaps_does_not_nest_either<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let [one, other] = [unique_key(), unique_key()];
    let both = || Lock::new(&pool, [&one, &other]);
    let single = || Lock::new(&pool, [&one]);
    type Keys<B> = Lock<B, Vec<pglock::Key>>;
    let in_it = |mut outer: Keys<&QueuedPool<M>>, inner: Keys<&QueuedPool<M>>| {
        outer
            .run(|_| {
                refused(inner);
                Result::Ok(())
            })
            .unwrap();
    };
    in_it(both(), single());
    in_it(single(), both());
    in_it(single().shared(), single());
    in_it(single(), single().shared());
    in_it(single().shared(), both());
    in_it(single().shared(), single().shared());
    in_it(single().shared(), both().shared());
    // But an attempt does not wait, and neither does one key for another.
    let mut outer = single().shared();
    let tried = outer.run(|_| both().shared().try_run(|_| Result::Ok(())));
    assert_eq!(tried.unwrap(), Some(()));
    let beside = |_: &mut M::Connection| Lock::new(&pool, &other).run(|_| Result::Ok(()));
    single().run(beside).unwrap();
    for key in [&one, &other] {
        Oracle::new().assert_free(key);
    }
}

/// It would wait behind a thread that waits for it: the server sees three sessions, but no deadlock.
pub fn a_shared_lock_does_not_nest_behind_an_exclusive_one<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 3);
    let key = unique_key();
    let (tell, told) = channel();
    // The test does not wait for these threads, which hang if the second lock does.
    thread::spawn({
        let (pool, key) = (pool.clone(), key.clone());
        move || {
            let mut shared = Lock::new(&pool, &key).shared();
            let guard = shared.acquire().unwrap();
            let exclusive = thread::spawn({
                let (mut pool, key) = (pool.clone(), key.clone());
                move || with_lock(&mut pool, &key, |_| Result::Ok(()))
            });
            Oracle::new().wait_for_waiter(&key);
            let nested = Lock::new(&pool, &key).shared().run(never);
            LockGuard::release(guard).unwrap();
            exclusive.join().unwrap().unwrap();
            tell.send(nested).unwrap();
        }
    });
    let nested = told.recv_timeout(oracle::PATIENCE);
    let nested = nested.expect("the second shared lock hangs").unwrap_err();
    assert!(matches!(nested, Error::AlreadyHeld { .. }), "{nested:?}");
    Oracle::new().assert_free(&key);
}

/// These locks do not wait for each other here, just as on plain pools.
pub fn what_is_not_self_conflicting_does_not_queue<M>(manager: impl Fn() -> M)
where
    M: ManageConnection<Connection: Session>,
{
    let (pool, _) = queued(manager(), 2);
    let table = oracle::Table::new();
    let rows = format!("INSERT INTO {} VALUES (1), (2)", table.name);
    oracle::connect().batch_execute(&rows).unwrap();

    let in_mode = |mode| Lock::new(&pool, Table::new(table.name.as_str()).in_mode(mode));
    for mode in [TableMode::RowExclusive, TableMode::Share] {
        let nested = in_mode(mode)
            .run_in_transaction(|_| in_mode(mode).try_run_in_transaction(|_| Result::Ok(())));
        let nested = nested.unwrap();
        assert_eq!(nested, Some(()), "{mode}");
    }
    let first = FirstFree::new(table.name.as_str(), "n").order_by("n");
    let seen = first.run_in_transaction(&mut &pool, |_, one: i32| {
        let other = first.run_in_transaction(&mut &pool, |_, other: i32| Result::Ok(other))?;
        Result::Ok((one, other))
    });
    assert_eq!(seen.unwrap(), Some((1, Some(2))));

    let row = || Row::new(table.name.as_str(), "n", 1);
    let nested = with_transaction_lock(&mut &pool, row(), |_| {
        Result::Ok(with_transaction_lock(&mut &pool, row(), |tx| never(tx)))
    });
    let nested = nested.unwrap();
    assert!(
        matches!(nested, Err(Error::AlreadyHeld { .. })),
        "{nested:?}"
    );
    for (outer, inner) in [
        (TableMode::ShareRowExclusive, TableMode::ShareRowExclusive),
        (TableMode::RowExclusive, TableMode::RowExclusive),
        (TableMode::RowExclusive, TableMode::Share),
    ] {
        let nested = in_mode(outer)
            .run_in_transaction(|_| Result::Ok(in_mode(inner).run_in_transaction(|tx| never(tx))));
        let nested = nested.unwrap();
        assert!(
            matches!(nested, Err(Error::AlreadyHeld { .. })),
            "{outer}, {inner}: {nested:?}"
        );
    }
}

#[track_caller]
fn refused<M, T>(mut lock: Lock<&QueuedPool<M>, T>)
where
    T: pglock::SessionTarget,
    M: ManageConnection<Connection: Session>,
{
    let nested = lock.run(never).unwrap_err();
    assert!(matches!(nested, Error::AlreadyHeld { .. }), "{nested:?}");
    assert_eq!(nested.lock_info(), Some(lock.lock_info()));
}
