//! Tables, in a transaction that pglock opens.

use std::thread;

use pglock::{Error, Lock, Table, TableMode, try_with_transaction_lock, with_transaction_lock};

use crate::harness::{Harness, on};
use crate::oracle::{Oracle, connect};
use crate::seats::{SHORT, Seats, never, nothing, wait_for_waiter};

fn table(seats: &Seats) -> Table {
    Table::new(seats.name.as_str())
}

pub fn every_mode_is_the_one_that_pg_locks_shows<H: Harness>() {
    let (mut oracle, seats) = (Oracle::new(), Seats::new());
    let modes = [
        (TableMode::AccessShare, "AccessShareLock"),
        (TableMode::RowShare, "RowShareLock"),
        (TableMode::RowExclusive, "RowExclusiveLock"),
        (TableMode::ShareUpdateExclusive, "ShareUpdateExclusiveLock"),
        (TableMode::Share, "ShareLock"),
        (TableMode::ShareRowExclusive, "ShareRowExclusiveLock"),
        (TableMode::Exclusive, "ExclusiveLock"),
        (TableMode::AccessExclusive, "AccessExclusiveLock"),
    ];
    H::with(|backend| {
        let mut locked = |table: Table, shared: bool, mode: &str| {
            let mut lock = Lock::new(&mut *backend, table);
            if shared {
                lock = lock.shared();
            }
            lock.run_in_transaction(|_| {
                assert_eq!(seats.modes(&mut oracle), [mode]);
                Ok::<_, Error>(())
            })
            .unwrap();
            assert!(seats.modes(&mut oracle).is_empty());
        };
        for (mode, shown) in modes {
            locked(table(&seats).in_mode(mode), false, shown);
        }
        locked(table(&seats), false, "ExclusiveLock");
        locked(table(&seats), true, "ShareLock");
    });
}

pub fn a_held_table_is_busy_and_holds_nothing<H: Harness>() {
    let seats = Seats::new();
    let holder = seats.other("LOCK TABLE seats IN ROW EXCLUSIVE MODE");
    H::with(|backend| {
        let busy = try_with_transaction_lock(backend, table(&seats), |_| never());
        assert!(busy.unwrap().is_none());
        let mut lock = Lock::new(&mut *backend, table(&seats)).timeout(SHORT);
        let error = lock.run_in_transaction(|_| never()).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        let weak = table(&seats).in_mode(TableMode::RowExclusive);
        let held = try_with_transaction_lock(backend, weak, |_| nothing());
        assert!(held.unwrap().is_some(), "the modes do not conflict");
        drop(holder);
        on(backend, &seats.book(1, "in autocommit again")).unwrap();
        assert!(seats.buyer(1).is_some());
        assert!(seats.modes(&mut Oracle::new()).is_empty());
    });
}

pub fn a_second_section_waits_for_the_table<H: Harness>() {
    let seats = Seats::new();
    let mut holder = seats.other("LOCK TABLE seats IN EXCLUSIVE MODE");
    H::with(|backend| {
        thread::scope(|threads| {
            threads.spawn(|| {
                let (_, kind) = wait_for_waiter(&mut Oracle::new(), holder.pid);
                assert_eq!(kind, "relation");
                holder.run(&format!("{}; COMMIT", seats.book(1, "ada")));
            });
            let buyer = with_transaction_lock(backend, table(&seats), |_| {
                Ok::<_, Error>(seats.buyer(1)) // readers do not wait
            });
            assert_eq!(buyer.unwrap().as_deref(), Some("ada"));
        });
    });
}

pub fn a_stale_snapshot_is_refused<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        on(
            backend,
            "SET default_transaction_isolation = 'serializable'",
        )
        .unwrap();
        let error = with_transaction_lock(backend, table(&seats), |_| never()).unwrap_err();
        assert!(matches!(error, Error::StaleSnapshot { .. }), "{error:?}");
        assert!(seats.modes(&mut Oracle::new()).is_empty());
    });
}

pub fn a_table_is_named_as_the_user_did<H: Harness>() {
    let seats = Seats::new();
    connect()
        .batch_execute(&format!("DROP TABLE {}", seats.name))
        .unwrap();
    H::with(|backend| {
        let table = Table::new(("public", seats.name.as_str())).in_mode(TableMode::Share);
        let error = with_transaction_lock(backend, table, |_| never()).unwrap_err();
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        let shown = format!("cannot acquire table \"public\".\"{}\" (SHARE)", seats.name);
        assert_eq!(error.to_string(), shown);
        let error = with_transaction_lock(backend, Table::new("\0"), |_| never()).unwrap_err();
        assert!(matches!(error, Error::NulByte { .. }), "{error:?}");
    });
}
