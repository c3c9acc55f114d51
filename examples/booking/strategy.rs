//! The ways to sell a seat once: the part of this example to read first.

use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use pglock::{Lock, key, with_lock, with_transaction_lock};

use crate::database::{Database, Seats};

// The comments on the strategies are what --help shows: what it does, and when to pick it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// Check, then act: right for as long as there is only one buyer
    NoLock,
    /// with_lock: the usual choice, also around several transactions or work outside the database
    SessionLock,
    /// with_transaction_lock: BEGIN, lock, work, COMMIT, when the work has to be all or nothing
    TransactionLock,
    /// Lock::timeout and run_or_else: when somebody is waiting, and "busy" is an answer
    Timeout,
}

/// What a buyer goes for.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) show: i32,
    pub(crate) seat: i32,
    pub(crate) buyer: i32,
}

/// What a buyer is told.
#[derive(Debug)]
pub(crate) enum Outcome {
    Booked,
    Taken,
    Busy,
}

impl Strategy {
    pub(crate) fn locks(self) -> bool {
        self != Self::NoLock
    }

    /// Tries to buy a seat. The database is a connection or a pool, of any driver.
    pub(crate) fn buy(
        self,
        database: &mut impl Database,
        wish: Wish,
        timeout: Duration,
    ) -> anyhow::Result<Outcome> {
        let Wish { show, seat, .. } = wish;
        let key = key!("show:{show}:seat:{seat}");
        match self {
            Self::NoLock => {
                let mut conn = database.session().map_err(anyhow::Error::from_boxed)?;
                check_then_book(&mut *conn, wish)
            }
            Self::SessionLock => with_lock(database, key, |conn| check_then_book(conn, wish)),
            Self::TransactionLock => {
                with_transaction_lock(database, key, |tx| check_then_book(tx, wish))
            }
            Self::Timeout => Lock::new(database, key)
                .timeout(timeout)
                .run_or_else(|conn| check_then_book(conn, wish), || Ok(Outcome::Busy)),
        }
    }
}

/// The critical section. Between the check and the booking, another buyer may do the same.
fn check_then_book(seats: &mut impl Seats, wish: Wish) -> anyhow::Result<Outcome> {
    if !seats.is_free(wish.seat)? {
        return Ok(Outcome::Taken);
    }
    pay();
    seats.book(wish.seat, wish.buyer)?;
    Ok(Outcome::Booked)
}

/// Stands in for the call to a bank.
fn pay() {
    thread::sleep(Duration::from_millis(5));
}
