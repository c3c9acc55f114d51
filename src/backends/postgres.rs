//! The `postgres` crate: `Client` and `Transaction`.

use postgres::{Client, GenericClient, SimpleQueryMessage, Transaction};

use super::{End, LockBackend, Session, TransactionBackend, insist};
use crate::answer::{Answer, Answers, BoxError, Failure};
use crate::error::Error;
use crate::sql;

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

    const ANSWERS: Answers = Answers::Rows;

    fn in_transaction(&mut self) -> bool {
        false
    }

    fn is_broken(&mut self) -> bool {
        self.is_closed()
    }

    fn send(&mut self, sql: &str) -> Result<(), Failure> {
        send(self, sql)
    }

    fn query(&mut self, sql: &str) -> Result<Vec<String>, Failure> {
        query(self, sql)
    }

    fn transact<R>(
        &mut self,
        lock: &str,
        commit: &str,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, End),
    ) -> Result<(R, Result<(), Failure>), Failure> {
        let mut transaction = self.transaction().map_err(failure)?;
        if let Err(failure) = send(&mut transaction, lock) {
            if matches!(failure, Failure::Refused(Answer::InTransaction)) {
                // The transaction is the caller's, by a raw BEGIN: rolling back on drop would
                // destroy their work.
                std::mem::forget(transaction);
            } else if transaction.rollback().is_err() {
                let _ = roll_back(self);
            }
            return Err(failure);
        }
        let (result, end) = body(&mut transaction);
        let committed = match end {
            End::Commit => send(&mut transaction, commit),
            End::Rollback => Ok(()),
        };
        if end == End::Commit && committed.is_ok() {
            std::mem::forget(transaction); // it would send a ROLLBACK
            return Ok((result, committed));
        }
        let undone = transaction.rollback().map_err(failure);
        let undone = undone.or_else(|_| roll_back(self));
        Ok((result, committed.and(undone)))
    }
}

/// A cancel can hit the driver's own ROLLBACK, and it would leave an aborted transaction behind.
fn roll_back(client: &mut Client) -> Result<(), Failure> {
    insist(|| send(client, "ROLLBACK"))
}

impl Session for Transaction<'_> {
    type Transaction<'t> = Transaction<'t>;

    const ANSWERS: Answers = Answers::Rows;

    fn in_transaction(&mut self) -> bool {
        true
    }

    fn send(&mut self, sql: &str) -> Result<(), Failure> {
        send(self, sql)
    }

    fn query(&mut self, sql: &str) -> Result<Vec<String>, Failure> {
        query(self, sql)
    }

    fn transact<R>(
        &mut self,
        _lock: &str,
        _commit: &str,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, End),
    ) -> Result<(R, Result<(), Failure>), Failure> {
        let mut savepoint = self.savepoint(sql::BODY).map_err(failure)?;
        Ok(match body(&mut savepoint) {
            (result, End::Commit) => {
                let released = savepoint.commit().map_err(failure);
                if released.is_err() {
                    // The driver thinks it done, and would leave the caller's transaction aborted.
                    let _ = send(self, sql::UNDO_BODY);
                }
                (result, released)
            }
            (result, End::Rollback) => (result, savepoint.rollback().map_err(failure)),
        })
    }
}

fn send(client: &mut impl GenericClient, sql: &str) -> Result<(), Failure> {
    let answer = query(client, sql)?
        .iter()
        .find_map(|text| Answer::read(text));
    answer.map_or(Ok(()), |answer| Err(Failure::Refused(answer)))
}

fn query(client: &mut impl GenericClient, sql: &str) -> Result<Vec<String>, Failure> {
    let messages = client.simple_query(sql).map_err(failure)?;
    let texts = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(texts.collect())
}

fn failure(error: postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(server) => {
            let (sqlstate, message) = (server.code().clone(), server.message().to_owned());
            Failure::from_error(Some(sqlstate.code()), &message, error)
        }
        None => Failure::Lost(error.into()),
    }
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        Self::body(error)
    }
}
