//! The calls, and what they may return.

use std::time::Duration;

use pglock::driver::{Refusal, Session};
use pglock::{Error, FirstFree, Lock, LockGuard, Mode, Table, inspect};
use pglock::{transaction_lock, try_with_lock, with_lock, with_transaction_lock};
use proptest::prelude::*;
use proptest::sample::select;

use crate::reply::Item;
use crate::server::Log;

/// A driver's connection.
pub trait Calls: Session {
    /// The messages of a COPY that the driver does not mistake for success.
    const COPIES: &'static [Item];
    const VERBS: &'static [Verb];
    /// Whether the driver uses libpq, whose `PQexec` returns the last result of a message: it forgets an
    /// error if a result follows, and takes a description of rows for a result.
    const LIBPQ: bool;

    fn connect(port: u16) -> Self;

    fn save(&mut self) -> bool;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Section,
    Bounded,
    SeveralKeys,
    Try,
    Transaction,
    BoundedTransaction,
    Nested,
    OneMessage,
    Guard,
    Table,
    Holders,
    FirstFree,
    Save,
}

const ALL: &[Verb] = &[
    Verb::Section,
    Verb::Bounded,
    Verb::SeveralKeys,
    Verb::Try,
    Verb::Transaction,
    Verb::BoundedTransaction,
    Verb::Nested,
    Verb::OneMessage,
    Verb::Guard,
    Verb::Table,
    Verb::Holders,
    Verb::FirstFree,
    Verb::Save,
];

pub fn any<C: Calls>() -> impl Strategy<Value = Verb> {
    select(C::VERBS.to_vec())
}

/// Checks that the server has granted the last request.
struct Check<'l> {
    log: &'l Log,
    is_refusal: fn(&str) -> bool,
    libpq: bool,
    entered: usize,
    broken: Option<&'static str>,
}

impl Check<'_> {
    fn granted(&mut self, what: &'static str) {
        self.granted_from(self.log.answered().saturating_sub(1), what);
        self.entered = self.log.answered();
    }

    /// The same for the end of a section, after which a driver may send more.
    fn ended(&mut self) {
        self.granted_from(self.entered, "the end");
    }

    fn granted_from(&mut self, from: usize, what: &'static str) {
        if !self.log.is_granted_from(from, self.is_refusal, self.libpq) {
            self.broken.get_or_insert(what);
        }
    }

    /// The same where a row cannot refuse.
    fn answered(&mut self, what: &'static str) {
        self.is_refusal = |_| false;
        self.granted(what);
    }
}

impl Verb {
    /// The error names the `Ok` that the server did not give.
    pub fn call<C: Calls>(self, connection: &mut C, log: &Log) -> Result<(), String> {
        let is_refusal = |row: &str| Refusal::read(row).is_some();
        let mut check = Check {
            log,
            is_refusal,
            libpq: C::LIBPQ,
            entered: 0,
            broken: None,
        };
        self.run(connection, &mut check);
        match check.broken {
            // See `diesels_own`: what follows a result is lost.
            Some(_) if C::LIBPQ => Ok(()),
            Some(what) => Err(format!("an Ok that the server did not give: {what}")),
            None => Ok(()),
        }
    }

    fn run<C: Calls>(self, conn: &mut C, check: &mut Check<'_>) {
        let time = Duration::from_millis(20);
        let enter = |check: &mut Check<'_>| {
            check.granted("the acquire");
            Ok::<_, Error>(())
        };
        let done = match self {
            Self::Section => with_lock(conn, "key", |_| enter(check)).is_ok(),
            Self::Bounded => {
                let mut lock = Lock::new(&mut *conn, "key").timeout(time);
                lock.run(|_| enter(check)).is_ok()
            }
            Self::SeveralKeys => Lock::new(conn, ["a", "b"])
                .shared()
                .run(|_| enter(check))
                .is_ok(),
            Self::Try => {
                let ran = try_with_lock(conn, "key", |_| enter(check));
                ran.is_ok_and(|ran| ran.is_some())
            }
            Self::Transaction => with_transaction_lock(conn, "key", |_| enter(check)).is_ok(),
            Self::BoundedTransaction => {
                let mut lock = Lock::new(&mut *conn, "key").timeout(time);
                lock.run_in_transaction(|_| enter(check)).is_ok()
            }
            Self::Nested => {
                let nested = with_transaction_lock(conn, "key", |tx| {
                    transaction_lock(tx, "other")?;
                    check.granted("the inner acquire");
                    let mut lock = Lock::new(tx, "third").timeout(time);
                    lock.run_in_transaction(|_| Ok::<_, Error>(()))
                });
                nested.is_ok()
            }
            Self::OneMessage => {
                if Lock::new(conn, "key").batch_execute("SELECT 1").is_ok() {
                    check.answered("the message"); // a refusal is an error
                }
                return;
            }
            Self::Guard => return guard(conn, check),
            Self::Holders => {
                let _ = inspect::waiters(conn, "key");
                if inspect::holders(conn, "key").is_ok() {
                    check.answered("the question");
                }
                return;
            }
            Self::FirstFree => {
                let row = FirstFree::new("seat", "id");
                let ran = row.run_in_transaction(conn, |_, _: String| Ok::<_, Error>(()));
                ran.is_ok_and(|ran| ran.is_some())
            }
            Self::Table => {
                with_transaction_lock(conn, Table::new("seat"), |_| enter(check)).is_ok()
            }
            Self::Save => {
                conn.save();
                return;
            }
        };
        if done {
            check.ended();
        }
    }
}

fn guard<C: Calls>(conn: &mut C, check: &mut Check<'_>) {
    let mut lock = Lock::new(conn, "key").shared();
    let Ok(mut guard) = lock.acquire() else {
        return;
    };
    check.granted("the acquire");
    if LockGuard::try_upgrade(&mut guard).is_ok_and(|upgraded| upgraded) {
        check.granted("the upgrade");
    }
    let exclusive = LockGuard::mode(&guard) == Mode::Exclusive;
    if LockGuard::downgrade(&mut guard).is_ok() && exclusive {
        check.granted("the downgrade");
    }
    if LockGuard::is_held(&mut guard).is_ok_and(|held| held) {
        check.granted("whether it is held");
    }
    if LockGuard::release(guard).is_ok() {
        check.granted("the release");
    }
}

impl Calls for postgres::Client {
    const COPIES: &'static [Item] = &[Item::CopyOut, Item::CopyIn];
    const VERBS: &'static [Verb] = ALL;
    const LIBPQ: bool = false;

    fn connect(port: u16) -> Self {
        let url = format!("host=127.0.0.1 port={port} user=nobody sslmode=disable");
        Self::connect(&url, postgres::NoTls).unwrap()
    }

    fn save(&mut self) -> bool {
        let seats = pglock::optimistic::postgres::VersionedTable::new("seat", "version");
        let _ = seats.delete(self, &[("id", &7_i32)], 1);
        seats
            .update(self, &[("id", &7_i32)], 1, &[("buyer", &"ada")])
            .is_ok()
    }
}

impl Calls for diesel::PgConnection {
    /// diesel takes the beginning of a COPY for its end, and for success.
    const COPIES: &'static [Item] = &[Item::Empty];
    /// Without those that read rows: diesel panics where rows end in an unexpected way
    /// (`pg/connection/cursor.rs` asserts `next_res.is_none()`).
    const VERBS: &'static [Verb] = ALL.split_at(ALL.len() - 3).0;
    const LIBPQ: bool = true;

    fn connect(port: u16) -> Self {
        let url =
            format!("host=127.0.0.1 port={port} user=nobody sslmode=disable gssencmode=disable");
        diesel::Connection::establish(&url).unwrap()
    }

    fn save(&mut self) -> bool {
        unreachable!("diesel's saves are its users' own queries")
    }
}
