//! Locks without pglock, and the messages that pglock sends.

use std::hint::black_box;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, RunQueryDsl, sql_query};
use pglock::driver::{BoxError, Failure, Finish, Opening, Session, Transacted, TransactionBackend};
use pglock::{Error, Lock, LockBackend};
use postgres::Client;

use super::KEY;

/// What a driver offers for locks without pglock.
pub trait Driver: Session {
    /// One message of the simple query protocol: as cheap as it gets.
    fn message(&mut self, text: &str);

    /// What the driver's documentation shows: a query with a parameter, which is prepared.
    fn query_key(&mut self, query: &str);

    /// The same in the driver's transaction.
    fn transaction_on_key(&mut self, query: &str);
}

impl Driver for Client {
    fn message(&mut self, text: &str) {
        black_box(self.simple_query(text).unwrap());
    }

    fn query_key(&mut self, query: &str) {
        black_box(self.query_one(query, &[&KEY]).unwrap());
    }

    fn transaction_on_key(&mut self, query: &str) {
        let mut transaction = self.transaction().unwrap();
        black_box(transaction.query_one(query, &[&KEY]).unwrap());
        transaction.commit().unwrap();
    }
}

impl Driver for PgConnection {
    fn message(&mut self, text: &str) {
        self.batch_execute(text).unwrap();
    }

    fn query_key(&mut self, query: &str) {
        let query = sql_query(query).bind::<BigInt, _>(KEY);
        black_box(query.execute(self).unwrap());
    }

    fn transaction_on_key(&mut self, query: &str) {
        let work = |conn: &mut Self| {
            let query = sql_query(query).bind::<BigInt, _>(KEY);
            query.execute(conn)
        };
        black_box(self.transaction(work).unwrap());
    }
}

/// The messages that pglock sends for a session lock through that driver.
pub fn messages<S: Session>(timeout: Option<Duration>) -> Vec<String> {
    match S::HAS_SQLSTATE {
        true => messages_to(Recorder::<true>::default(), timeout),
        false => messages_to(Recorder::<false>::default(), timeout),
    }
}

fn messages_to<const ROWS: bool>(
    mut recorder: Recorder<ROWS>,
    timeout: Option<Duration>,
) -> Vec<String> {
    let mut lock = Lock::new(&mut recorder, KEY);
    if let Some(timeout) = timeout {
        lock = lock.timeout(timeout);
    }
    lock.run(|_| Ok::<_, Error>(())).unwrap();
    drop(lock);
    recorder.messages
}

/// Records what it is sent, and answers that all is well.
#[derive(Default)]
struct Recorder<const ROWS: bool> {
    messages: Vec<String>,
}

impl<const ROWS: bool> LockBackend for Recorder<ROWS> {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<&mut Self, BoxError> {
        Ok(self)
    }
}

impl<const ROWS: bool> TransactionBackend for Recorder<ROWS> {}

impl<const ROWS: bool> Session for Recorder<ROWS> {
    type Transaction<'t> = Self;

    const HAS_SQLSTATE: bool = ROWS;

    fn in_transaction(&mut self) -> bool {
        false
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        self.messages.push([statements, question].concat());
        Ok(Vec::new())
    }

    fn transact<R>(
        &mut self,
        _: &Opening,
        _: impl FnOnce(&mut Self) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        unimplemented!("only session locks are recorded")
    }
}
