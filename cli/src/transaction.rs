//! The lock of a transaction. What holds it is the transaction, so that it is no `Held` of the library's; it
//! has a lease all the same, by the library's clock.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};
use humantime::format_duration;
use pglock::driver::{Owned, Session};
use pglock::held::{Clock, Moment, Silence};
use pglock::{Error, LockGuard, LockInfo};

use crate::exit::{Failure, LOST, UNAVAILABLE, chain};
use crate::output::say_aside;
use crate::signals::{Event, LOOK};
use crate::times::SHORTEST_LEASE;
use crate::wire::Wired;

/// How often it asks at the end whether the lock is held, if the question fails.
const ATTEMPTS: usize = 3;

pub(crate) type Guard = LockGuard<Owned<Wired>>;

/// Begins a transaction that the server ends after a lease of silence, or sooner if its settings say so, and
/// not for other reasons: a waiter that is granted the lock after its host is gone loses it, too.
pub(crate) fn begin(connection: &mut PgConnection, lease: Duration) -> Result<Silence, Failure> {
    let failed = |error| Failure::of(UNAVAILABLE, &error);
    AnsiTransactionManager::begin_transaction(connection).map_err(failed)?;
    let found = found(connection).map_err(failed)?;
    let length = match u64::try_from(found.timeout) {
        Ok(0) | Err(_) => lease,
        Ok(millis) => lease.min(Duration::from_millis(millis)),
    };
    let silence = Silence::new(length).ok_or_else(|| {
        let (length, least) = (format_duration(length), format_duration(SHORTEST_LEASE));
        let message = format!(
            "idle_in_transaction_session_timeout is {length}, and a lease lasts at least {least}"
        );
        Failure::new(UNAVAILABLE, message)
    })?;
    // A silent network must not free the lock before the lease ends.
    let mut settings = format!(
        "SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL tcp_user_timeout = 0",
        length.as_millis()
    );
    let keepalives = length.as_secs() + 1;
    if u64::try_from(found.keepalives).is_ok_and(|found| (1..keepalives).contains(&found)) {
        settings += &format!("; SET LOCAL tcp_keepalives_idle = {keepalives}");
    }
    connection.batch_execute(&settings).map_err(failed)?;
    Ok(silence)
}

#[derive(QueryableByName)]
struct Found {
    /// In milliseconds; 0: none.
    #[diesel(sql_type = BigInt)]
    timeout: i64,
    /// In seconds; 0 on a Unix socket, which has none.
    #[diesel(sql_type = BigInt)]
    keepalives: i64,
}

fn found(connection: &mut PgConnection) -> QueryResult<Found> {
    let query = "SELECT coalesce(max(setting::bigint) FILTER (WHERE name LIKE 'idle%'), 0) AS timeout, \
                 coalesce(max(setting::bigint) FILTER (WHERE name LIKE 'tcp%'), 0) AS keepalives \
                 FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', 'tcp_keepalives_idle')";
    sql_query(query).get_result(connection)
}

/// From now on, `statement_timeout` could only cancel the checks whether the lock is held. By the simple
/// protocol: the other leaves a portal, and with it a snapshot, in the transaction.
pub(crate) fn check_at_leisure(guard: &mut Guard) -> QueryResult<()> {
    let set = "SET LOCAL statement_timeout = 0";
    guard.connection.batch_execute(set)
}

/// A lock that a thread of its own keeps, since a question to a server that is gone may hang.
pub(crate) struct Kept {
    pub(crate) lock: LockInfo,
    pub(crate) lease: Silence,
    clock: Arc<Mutex<Clock>>,
    /// When dropped, the thread ends the transaction.
    keeps: Sender<()>,
    released: Receiver<Result<(), Error>>,
}

impl Kept {
    /// Begins with a question that was sent at `asked` and has been answered.
    pub(crate) fn keep(
        guard: Guard,
        lease: Silence,
        asked: Moment,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let (keeps, stopped) = mpsc::channel();
        let (tells, released) = mpsc::channel();
        let lock = LockGuard::lock_info(&guard).clone();
        let clock = Arc::new(Mutex::new(Clock::start(lease, asked)));
        let keeper = Keeper {
            guard,
            clock: Arc::clone(&clock),
            stopped,
        };
        Builder::new().spawn(move || tells.send(keeper.keep(&events)))?;
        Ok(Self {
            lock,
            lease,
            clock,
            keeps,
            released,
        })
    }

    pub(crate) fn left(&self) -> Duration {
        locked(&self.clock).left(Moment::now())
    }

    pub(crate) fn release(self) -> Result<(), Failure> {
        let left = self.left();
        drop(self.keeps);
        match self.released.recv_timeout(left) {
            Ok(released) => released.map_err(|error| Failure::of(LOST, &error)),
            Err(_) => {
                let lock = self.lock;
                let message = format!("the server does not say whether {lock} was held to the end");
                Err(Failure::new(LOST, message))
            }
        }
    }
}

fn locked(clock: &Mutex<Clock>) -> MutexGuard<'_, Clock> {
    clock.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    guard: Guard,
    clock: Arc<Mutex<Clock>>,
    stopped: Receiver<()>,
}

enum Answer {
    Held,
    Lost(String),
    /// The question failed, which says nothing about the lock.
    Unknown(String),
}

impl Keeper {
    /// Keeps the lock until it is to stop, and reports if the lock is lost. Then ends the transaction.
    fn keep(mut self, events: &Sender<Event>) -> Result<(), Error> {
        if let Some(reason) = self.watch() {
            let _ = events.send(Event::Lost(reason));
            let _ = self.stopped.recv();
        }
        let lost = self.lost_at_the_end();
        // Waits until the server has released the lock; on a lost connection it has done so.
        let _ = AnsiTransactionManager::rollback_transaction(&mut self.guard.connection);
        // The release of a transaction's lock does not check whether it was held.
        match lost {
            Some(reason) => Err(Error::body(format!("the lock was lost: {reason}"))),
            None => LockGuard::release(self.guard),
        }
    }

    /// Watches until it is to stop, or the lock is lost; returns why it was lost. It does not ask at once: to
    /// its end, the transaction would keep its lock on `pg_locks`, which the question reads.
    fn watch(&mut self) -> Option<String> {
        let mut warned = false;
        while self.stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if let Some(reason) = self.guard.hung_up() {
                return Some(chain(&*reason));
            }
            let now = Moment::now();
            if !locked(&self.clock).is_question_due(now) {
                continue;
            }
            match self.ask() {
                Answer::Held => {}
                Answer::Lost(reason) => return Some(reason),
                Answer::Unknown(_) if warned => {}
                Answer::Unknown(reason) => {
                    warned = true;
                    let lock = LockGuard::lock_info(&self.guard);
                    say_aside(format!("cannot ask whether {lock} is held: {reason}"));
                }
            }
            // Whatever the answer, the server has heard from this session.
            locked(&self.clock).answered(now, Moment::now());
        }
        None
    }

    fn ask(&mut self) -> Answer {
        match LockGuard::is_held(&mut self.guard) {
            Ok(true) => Answer::Held,
            Ok(false) => {
                Answer::Lost("the server does not hold it for this session any more".to_owned())
            }
            // The transaction's locks are gone with it.
            Err(error @ Error::TransactionAborted { .. }) => Answer::Lost(chain(&error)),
            Err(error) => Answer::Unknown(chain(&error)),
        }
    }

    fn lost_at_the_end(&mut self) -> Option<String> {
        let mut reason = None;
        for _ in 0..ATTEMPTS {
            match self.ask() {
                Answer::Held => return None,
                Answer::Lost(lost) => return Some(lost),
                Answer::Unknown(unknown) => reason = Some(unknown),
            }
        }
        reason
    }
}
