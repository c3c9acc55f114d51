//! The `postgres` crate: `Client` and `Transaction`.

use std::cell::Cell;
use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Transaction};

use crate::driver::{
    BoxError, Failure, Finish, LockBackend, Opening, Session, Transacted, TransactionBackend,
    insist,
};
use crate::sql;

mod reply;

use self::reply::{failure, message};
pub(crate) use self::reply::{is_in_the_way, messages, without_ours};

impl LockBackend for Client {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl<'c> LockBackend for Transaction<'c> {
    type Session = Self;
    type Handle<'a>
        = &'a mut Self
    where
        'c: 'a;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl TransactionBackend for Transaction<'_> {}

impl Session for Client {
    type Transaction<'t> = Transaction<'t>;

    fn in_transaction(&mut self) -> bool {
        false
    }

    fn is_broken(&mut self) -> bool {
        self.is_closed()
    }

    fn hung_up(&mut self) -> Option<BoxError> {
        // The driver reads only while it waits.
        let moment = Duration::from_millis(1);
        if let Err(error) = self.notifications().timeout_iter(moment).count() {
            return Some(error.into());
        }
        self.is_closed().then(|| "the connection was closed".into())
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        message(self, statements, question)
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        let mut transaction = self.transaction().map_err(failure)?;
        let (result, finish) = body(&mut transaction);
        let committed = match finish {
            Finish::Commit => opening.commit(&mut transaction),
            Finish::Rollback | Finish::Leave => Ok(()),
        };
        if finish == Finish::Leave || finish == Finish::Commit && committed.is_ok() {
            std::mem::forget(transaction); // it would send a ROLLBACK
            return Ok(Transacted {
                result,
                ended: committed,
            });
        }
        let undone = transaction.rollback().map_err(failure);
        let undone = undone.or_else(|_| roll_back(self));
        Ok(Transacted {
            result,
            ended: committed.and(undone),
        })
    }
}

/// A cancel can hit the driver's own ROLLBACK, which then leaves an aborted transaction behind.
fn roll_back(client: &mut Client) -> Result<(), Failure> {
    insist(|| client.send("ROLLBACK"))
}

impl Session for Transaction<'_> {
    type Transaction<'t> = Transaction<'t>;

    fn in_transaction(&mut self) -> bool {
        true
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        message(self, statements, question)
    }

    fn transact<R>(
        &mut self,
        _: &Opening,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        let depth = Depth::enter();
        let savepoint = self.savepoint(sql::body_savepoint(depth.0));
        let mut savepoint = savepoint.map_err(failure)?;
        let (result, finish) = body(&mut savepoint);
        let ended = match finish {
            Finish::Commit => savepoint.commit(),
            Finish::Rollback | Finish::Leave => savepoint.rollback(),
        };
        let ended = ended.map_err(failure);
        if ended.is_err() {
            // The driver takes the savepoint for ended, and would leave the caller's transaction aborted.
            let undone = insist(|| self.send(&sql::undo_body(depth.0)));
            if finish == Finish::Rollback {
                return Ok(Transacted {
                    result,
                    ended: undone,
                });
            }
        }
        Ok(Transacted { result, ended })
    }
}

/// How many bodies this thread is in.
struct Depth(u32);

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

impl Depth {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(DEPTH.get())
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
