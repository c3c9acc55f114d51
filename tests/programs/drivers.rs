//! The calls that a program makes, on the types of both drivers.

use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use pglock::driver::{Session, SessionHandle};
use pglock::{Error, Key, Lock, LockGuard, Mode, Scope};
use postgres::{Client, Transaction};

use crate::program::{Change, Spec, Way};

/// Why a body did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It returns an error, and so do that many calls around it.
    #[error("the body says no")]
    Body(u8),
    #[error(transparent)]
    Lock(#[from] Error),
}

impl From<diesel::result::Error> for Stop {
    fn from(error: diesel::result::Error) -> Self {
        Self::Lock(error.into())
    }
}

/// `None`: the lock was not free.
pub type Outcome = Result<Option<()>, Stop>;
pub type Body<'b> = &'b mut dyn FnMut(&mut dyn Connection) -> Result<(), Stop>;

pub trait Connection {
    fn sql(&mut self, sql: &str) -> bool;
    fn section(&mut self, lock: &Request<'_>, body: Body<'_>) -> Outcome;
    fn transact(&mut self, lock: &Request<'_>, rollback_on_error: bool, body: Body<'_>) -> Outcome;
    fn one_message(&mut self, lock: &Request<'_>, text: &str) -> Outcome;
    /// Calls the body with a guard. The body returns whether to release the guard or to drop it.
    fn guard(
        &mut self,
        lock: &Request<'_>,
        body: &mut dyn FnMut(&mut dyn Guard) -> Result<bool, Stop>,
    ) -> Outcome;
    /// The driver's own transaction or savepoint, which is committed if the body says so.
    fn nest(&mut self, body: &mut dyn FnMut(&mut dyn Connection) -> bool);
}

pub trait Guard {
    fn connection(&mut self) -> &mut dyn Connection;
    fn change(&mut self, change: Change) -> Result<bool, Error>;
    fn mode(&self) -> Mode;
    fn scope(&self) -> Scope;
}

/// A lock of the program, on keys of this process.
pub struct Request<'s> {
    pub spec: &'s Spec,
    pub space: i32,
    /// Gives up soon, since the wait would never end.
    pub give_up: bool,
}

impl Request<'_> {
    fn on<'c, S: Session>(&self, session: &'c mut S) -> Lock<&'c mut S, Vec<Key>> {
        let keys = self
            .spec
            .keys
            .iter()
            .map(|key| Key::from((self.space, *key)));
        let mut lock = Lock::new(session, keys.collect::<Vec<_>>()).mode(self.spec.mode);
        if let Some(scope) = self.spec.scope {
            lock = lock.scope(scope);
        }
        lock = match self.spec.way {
            Way::Wait | Way::KeepPlace if self.give_up => lock.timeout(Duration::from_millis(1)),
            Way::Timeout(timeout) => lock.timeout(timeout),
            Way::Wait | Way::KeepPlace | Way::Try => lock,
        };
        lock.keep_place(self.spec.way == Way::KeepPlace)
    }

    fn tries(&self) -> bool {
        self.spec.way == Way::Try
    }
}

fn section<S: Session + Connection>(
    session: &mut S,
    request: &Request<'_>,
    body: Body<'_>,
) -> Outcome {
    let mut lock = request.on(session);
    match request.tries() {
        true => lock.try_run(|conn| body(conn)),
        false => lock.run(|conn| body(conn)).map(Some),
    }
}

fn transact<S>(session: &mut S, request: &Request<'_>, rollback: bool, body: Body<'_>) -> Outcome
where
    S: Session,
    for<'t> S::Transaction<'t>: Connection,
{
    let mut lock = request.on(session).rollback_on_error(rollback);
    match request.tries() {
        true => lock.try_run_in_transaction(|tx| body(tx)),
        false => lock.run_in_transaction(|tx| body(tx)).map(Some),
    }
}

fn one_message<S: Session>(session: &mut S, request: &Request<'_>, text: &str) -> Outcome {
    let mut lock = request.on(session);
    Ok(match request.tries() {
        true => lock.try_batch_execute(text)?.then_some(()),
        false => Some(lock.batch_execute(text)?),
    })
}

fn guard<S: Session + Connection>(
    session: &mut S,
    request: &Request<'_>,
    body: &mut dyn FnMut(&mut dyn Guard) -> Result<bool, Stop>,
) -> Outcome {
    let mut lock = request.on(session);
    let guard = match request.tries() {
        true => lock.try_acquire()?,
        false => Some(lock.acquire()?),
    };
    let Some(mut guard) = guard else {
        return Ok(None);
    };
    if body(&mut guard)? {
        LockGuard::release(guard)?;
    }
    Ok(Some(()))
}

impl<H: SessionHandle<Target: Connection>> Guard for LockGuard<H> {
    fn connection(&mut self) -> &mut dyn Connection {
        &mut **self
    }

    fn change(&mut self, change: Change) -> Result<bool, Error> {
        match change {
            Change::Downgrade => Self::downgrade(self).map(|()| true),
            Change::Upgrade => Self::try_upgrade(self),
            Change::IsHeld => Self::is_held(self),
        }
    }

    fn mode(&self) -> Mode {
        Self::mode(self)
    }

    fn scope(&self) -> Scope {
        Self::scope(self)
    }
}

macro_rules! connection {
    ($type:ty, $nest:item) => {
        impl Connection for $type {
            fn sql(&mut self, sql: &str) -> bool {
                self.batch_execute(sql).is_ok()
            }

            fn section(&mut self, lock: &Request<'_>, body: Body<'_>) -> Outcome {
                section(self, lock, body)
            }

            fn transact(&mut self, lock: &Request<'_>, rollback: bool, body: Body<'_>) -> Outcome {
                transact(self, lock, rollback, body)
            }

            fn one_message(&mut self, lock: &Request<'_>, text: &str) -> Outcome {
                one_message(self, lock, text)
            }

            fn guard(
                &mut self,
                lock: &Request<'_>,
                body: &mut dyn FnMut(&mut dyn Guard) -> Result<bool, Stop>,
            ) -> Outcome {
                guard(self, lock, body)
            }

            $nest
        }
    };
}

connection!(
    Client,
    fn nest(&mut self, body: &mut dyn FnMut(&mut dyn Connection) -> bool) {
        end(self.transaction().unwrap(), body);
    }
);

connection!(
    Transaction<'_>,
    fn nest(&mut self, body: &mut dyn FnMut(&mut dyn Connection) -> bool) {
        end(self.transaction().unwrap(), body);
    }
);

fn end(mut transaction: Transaction<'_>, body: &mut dyn FnMut(&mut dyn Connection) -> bool) {
    match body(&mut transaction) {
        true => transaction.commit().unwrap(),
        false => transaction.rollback().unwrap(),
    }
}

connection!(
    PgConnection,
    fn nest(&mut self, body: &mut dyn FnMut(&mut dyn Connection) -> bool) {
        let mut commit = false;
        let ended = diesel::Connection::transaction(self, |conn| {
            commit = body(conn);
            match commit {
                true => Ok(()),
                false => Err(diesel::result::Error::RollbackTransaction),
            }
        });
        assert_eq!(ended.is_ok(), commit, "{ended:?}");
    }
);
