//! The ways to sell a seat once. Read this file first.

use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use pglock::{
    FirstFree, Lock, RetryPolicy, Row, key, optimistic, quote_literal, retry, with_lock,
    with_transaction_lock,
};

use crate::database::{Database, Seats};

// --help shows these comments: what each strategy does, and when to pick it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// Check, then act: correct only as long as there is one buyer
    NoLock,
    /// with_lock: the usual choice, also around several transactions or work outside the database
    SessionLock,
    /// with_transaction_lock: BEGIN, lock, work, COMMIT, when the work has to be all or nothing
    TransactionLock,
    /// Lock::timeout and run_or_else: when somebody is waiting, and "busy" is an answer
    Timeout,
    /// Lock::batch_execute: when SQL alone decides; lock, statements and COMMIT in one round trip
    OneMessage,
    /// A Row: when others write to the table too, without asking pglock
    RowLock,
    /// FirstFree, by SKIP LOCKED: when any row will do, as with the jobs of a queue
    SkipLocked,
    /// optimistic, tried again on a conflict: when the work takes long, and conflicts are rare
    Version,
    /// #[pglock::locked]: when a whole function is the critical section
    Attribute,
}

/// What a buyer wants.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) show: i32,
    pub(crate) seat: i32,
    pub(crate) buyer: i32,
}

/// The outcome for a buyer.
#[derive(Debug)]
pub(crate) enum Outcome {
    Booked,
    Taken,
    Busy,
}

impl Strategy {
    pub(crate) fn protects(self) -> bool {
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
                .run_or_else(|conn| check_then_book(conn, wish), |_| Ok(Outcome::Busy)),
            Self::OneMessage => book_then_pay(database, wish),
            Self::RowLock => {
                let row = Row::new("seat", "id", seat);
                with_transaction_lock(database, row, |tx| check_then_book(tx, wish))
            }
            Self::SkipLocked => {
                let free = FirstFree::new("seat", "id").with("free", true);
                let booked = free.run_in_transaction(database, |tx, seat| {
                    pay();
                    tx.mark_sold(seat)?;
                    tx.book(seat, wish.buyer)
                })?;
                Ok(booked.map_or(Outcome::Taken, |()| Outcome::Booked))
            }
            Self::Version => {
                let mut conn = database.session().map_err(anyhow::Error::from_boxed)?;
                let outcome = retry(&RetryPolicy::new(), || look_then_book(&mut *conn, wish))?;
                Ok(outcome)
            }
            Self::Attribute => book_alone(database, wish),
        }
    }
}

#[pglock::locked(key = "show:{wish.show}:seat:{wish.seat}")]
fn book_alone(database: &mut impl Database, wish: Wish) -> anyhow::Result<Outcome> {
    check_then_book(database, wish)
}

/// The server decides; the buyer pays afterwards, when the lock is free again.
fn book_then_pay(database: &mut impl Database, wish: Wish) -> anyhow::Result<Outcome> {
    let Wish { show, seat, buyer } = wish;
    let (seat_text, buyer_text) = (quote_literal(seat), quote_literal(buyer));
    Lock::new(&mut *database, key!("show:{show}:seat:{seat}")).batch_execute(&format!(
        "INSERT INTO booking (seat, buyer) SELECT {seat_text}::int, {buyer_text}::int \
         WHERE NOT EXISTS (SELECT FROM booking WHERE seat = {seat_text})"
    ))?;
    let mut conn = database.session().map_err(anyhow::Error::from_boxed)?;
    if !conn.is_booked_by(seat, buyer)? {
        return Ok(Outcome::Taken);
    }
    pay();
    Ok(Outcome::Booked)
}

/// Keeps nobody out, but the booking fails if somebody else was faster.
fn look_then_book(seats: &mut impl Seats, wish: Wish) -> Result<Outcome, optimistic::Error> {
    let (free, version) = seats.look(wish.seat)?;
    if !free {
        return Ok(Outcome::Taken);
    }
    pay();
    seats.book_at(wish.seat, version, wish.buyer)?;
    Ok(Outcome::Booked)
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
