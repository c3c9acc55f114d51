//! Cancels that hit one request after another. Only one cancel can be timed for a real server, so a
//! session answers as the server would: a cancelled request has done nothing.

use std::time::Duration;

use pglock::driver::{BoxError, Failure, Finish, Opening, Session, Transacted, TransactionBackend};
use pglock::{Error, Lock, LockBackend, transaction_lock, with_lock};

use crate::oracle::{Oracle, connect, unique_key, unique_name};

#[test]
fn a_release_is_tried_again_and_again() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    for cancels in 0..16 {
        let mut session = Faulty::new(connect());
        with_lock(&mut session, &key, |session| {
            session.cancels = cancels;
            Ok::<_, Error>(())
        })
        .unwrap();
        oracle.assert_free(&key);
    }
}

/// The cancels hit the acquire, or the ROLLBACK TO after it.
#[test]
fn a_refused_acquire_leaves_the_transaction_usable() {
    let (mut oracle, key, work) = (Oracle::new(), unique_key(), unique_key());
    oracle.lock(&key);
    for cancels in 0..16 {
        let mut client = connect();
        let mut session = Faulty::new(client.transaction().unwrap());
        transaction_lock(&mut session, &work).unwrap();
        session.sent_before = 1;
        session.cancels = cancels;
        let mut lock = Lock::new(&mut session, &key).timeout(Duration::from_millis(5));
        let refused = lock.acquire().map(drop);
        assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
        drop(lock);
        session.send("SELECT 1").unwrap();
        oracle.holder(&work);
    }
}

/// If the server refuses every release, the session ends, even under a role that may not end it.
#[test]
fn a_release_that_is_refused_ends_the_session() {
    let role = unique_name("role");
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let owner = |sql: String| connect().batch_execute(&sql).unwrap();
    owner(format!("CREATE ROLE {role}"));
    for end_is_refused in [false, true] {
        let mut session = Faulty::new(connect());
        let told = with_lock(&mut session, &key, |session| {
            session.send(&format!("SET ROLE {role}")).unwrap();
            session.refused = vec!["pg_advisory_unlock("];
            if end_is_refused {
                session.refused.push("pg_terminate_backend");
            }
            Ok::<_, Error>(())
        });
        assert!(matches!(told, Err(Error::ReleaseFailed { .. })), "{told:?}");
        assert!(session.is_broken(), "a pool would take it back");
        oracle.wait_until_free(&key);
    }
    owner(format!("DROP ROLE {role}"));
}

/// A connection on which requests fail.
struct Faulty<C> {
    connection: C,
    /// How many requests still succeed before the cancelled ones.
    sent_before: u32,
    cancels: u32,
    /// Requests with one of these texts are refused.
    refused: Vec<&'static str>,
}

impl<C> Faulty<C> {
    fn new(connection: C) -> Self {
        Self {
            connection,
            sent_before: 0,
            cancels: 0,
            refused: Vec::new(),
        }
    }

    fn fails(&mut self, sql: &str) -> Result<(), Failure> {
        if self.refused.iter().any(|text| sql.contains(text)) {
            return Err(Failure::from_error(Some("42501"), "", "permission denied"));
        }
        if self.sent_before > 0 {
            self.sent_before -= 1;
        } else if self.cancels > 0 {
            self.cancels -= 1;
            return Err(Failure::from_error(Some("57014"), "", "cancelled"));
        }
        Ok(())
    }
}

impl<C: Session> LockBackend for Faulty<C> {
    type Session = Self;
    type Handle<'a>
        = &'a mut Self
    where
        C: 'a;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl<C: Session> TransactionBackend for Faulty<C> {}

impl<C: Session> Session for Faulty<C> {
    type Transaction<'t> = C::Transaction<'t>;

    fn in_transaction(&mut self) -> bool {
        self.connection.in_transaction()
    }

    fn is_broken(&mut self) -> bool {
        self.connection.is_broken()
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        self.fails(&[statements, question].concat())?;
        self.connection.message(statements, question)
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut C::Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        self.connection.transact(opening, body)
    }
}
