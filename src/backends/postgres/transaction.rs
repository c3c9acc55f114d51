//! `Transaction`, and its savepoints.

use std::cell::Cell;

use postgres::Transaction;

use super::{failure, message};
use crate::driver::{
    BoxError, Failure, Finish, LockBackend, Opening, Session, Transacted, TransactionBackend,
    insist,
};
use crate::sql;

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
