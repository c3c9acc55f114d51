//! Rows and tables in a transaction that the caller opened.

use pglock::{
    Error, FirstFree, Lock, LockBackend, Row, Table, transaction_lock, try_transaction_lock,
    with_transaction_lock,
};

use crate::harness::{InTransaction, holds, on, sql};
use crate::oracle::Oracle;
use crate::seats::{SHORT, Seats, never};

fn work<B: LockBackend + ?Sized>(backend: &mut B) {
    on(
        backend,
        "CREATE TEMP TABLE work (n int) ON COMMIT DROP; INSERT INTO work VALUES (1); \
         SET LOCAL lock_timeout = '2min'",
    )
    .unwrap();
}

fn is_as_it_was<B: LockBackend + ?Sized>(backend: &mut B) -> bool {
    holds(
        backend,
        "(SELECT count(*) = 1 FROM work) AND current_setting('lock_timeout') = '2min'",
    )
}

pub fn a_row_is_held_until_the_transaction_ends<H: InTransaction>() {
    let seats = Seats::new();
    H::with(|backend| {
        transaction_lock(backend, seats.row(1)).unwrap();
        assert!(try_transaction_lock(backend, seats.row(2)).unwrap());
        with_transaction_lock(backend, seats.row(3), |tx| sql(tx, "SELECT 1")).unwrap();
        assert!((1..=3).all(|id| !seats.is_free(id, "KEY SHARE")));
        transaction_lock(backend, Table::new(seats.name.as_str())).unwrap();
        let modes = seats.modes(&mut Oracle::new());
        assert!(modes.contains(&"ExclusiveLock".to_owned()), "{modes:?}");
    });
    assert!((1..=3).all(|id| seats.is_free(id, "UPDATE")));
}

pub fn a_refused_row_leaves_the_transaction_as_it_was<H: InTransaction>() {
    let seats = Seats::new();
    let _holder = seats.holder();
    H::with(|backend| {
        work(backend);
        assert!(!try_transaction_lock(backend, seats.row(1)).unwrap());
        assert!(is_as_it_was(backend));
        let mut lock = Lock::new(&mut *backend, seats.row(1)).timeout(SHORT);
        let error = lock.run_in_transaction(|_| never()).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert!(is_as_it_was(backend));
        let error = transaction_lock(backend, seats.row(4)).unwrap_err();
        assert!(matches!(error, Error::NoSuchRow { .. }), "{error:?}");
        assert!(is_as_it_was(backend));
        let error = transaction_lock(backend, Row::new("no table", "id", 1)).unwrap_err();
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        let error = transaction_lock(backend, Row::new("\0", "id", 1)).unwrap_err();
        assert!(matches!(error, Error::NulByte { .. }), "{error:?}");
        assert!(is_as_it_was(backend));
    });
}

pub fn a_refused_table_leaves_the_transaction_as_it_was<H: InTransaction>() {
    let seats = Seats::new();
    let _holder = seats.holder();
    let table = Table::new(seats.name.as_str());
    H::with(|backend| {
        work(backend);
        assert!(!try_transaction_lock(backend, &table).unwrap());
        let mut lock = Lock::new(&mut *backend, &table).timeout(SHORT);
        let handled = lock.run_in_transaction_or_else(|_| Ok::<_, Error>(1), |_| Ok(2));
        assert_eq!(handled.unwrap(), 2);
        assert!(is_as_it_was(backend));
        assert_eq!(seats.modes(&mut Oracle::new()), ["RowShareLock"]);
    });
}

pub fn a_free_row_stays_locked<H: InTransaction>() {
    let seats = Seats::new();
    let _holder = seats.holder();
    H::with(|backend| {
        work(backend);
        let free = FirstFree::new(seats.name.as_str(), "id").order_by("id");
        let taken = free.run_in_transaction(backend, |_, id: i32| Ok::<_, Error>(id));
        assert_eq!(taken.unwrap(), Some(2));
        assert!(!seats.is_free(2, "UPDATE"));
        let both = free.clone().up_to(9);
        let taken = both.run_in_transaction(backend, |_, ids: Vec<i32>| Ok::<_, Error>(ids));
        assert_eq!(taken.unwrap(), Some(vec![2, 3]));
        assert!(!seats.is_free(3, "UPDATE"));
        let none = free.clone().with("id", 1);
        let taken = none.run_in_transaction(backend, |_, _: String| Ok::<_, Error>(()));
        assert!(taken.unwrap().is_none());
        let wrong = free.with("no column", 1);
        let error = wrong.run_in_transaction(backend, |_, _: String| Ok::<_, Error>(()));
        assert!(matches!(error, Err(Error::Database { .. })), "{error:?}");
        assert!(is_as_it_was(backend));
    });
}
