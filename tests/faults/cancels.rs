//! Cancels that meet one request after another. No more than one can be aimed at the server in
//! time, so a session says what the server would.

use pglock::driver::{BoxError, Failure, Finish, Session};
use pglock::{Error, LockBackend, with_lock};

use crate::oracle::{Oracle, connect, unique_key};

#[test]
fn a_release_is_tried_again_and_again() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    for cancels in 0..16 {
        let mut session = Canceled::by(0);
        let released = with_lock(&mut session, &key, |session| {
            session.cancels = cancels;
            Ok::<_, Error>(())
        });
        if cancels < 8 {
            assert!(released.is_ok(), "{cancels}: {released:?}");
        }
        oracle.wait_until_free(&key);
    }
}

#[test]
fn what_was_granted_before_the_cancel_is_let_go() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    for cancels in 1..16 {
        let mut session = Canceled::by(cancels);
        session.granted = true;
        let refused = with_lock(&mut session, &key, |_| -> Result<(), Error> {
            panic!("the body must not run")
        });
        assert!(
            matches!(refused, Err(Error::Canceled { .. })),
            "{refused:?}"
        );
        oracle.wait_until_free(&key);
    }
}

/// A connection on which the next requests are cancelled.
struct Canceled {
    client: postgres::Client,
    cancels: u32,
    /// Whether the first of them is cancelled only after it was done.
    granted: bool,
}

impl Canceled {
    fn by(cancels: u32) -> Self {
        Self {
            client: connect(),
            cancels,
            granted: false,
        }
    }

    fn next<R>(
        &mut self,
        request: impl FnOnce(&mut postgres::Client) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        if self.cancels == 0 {
            return request(&mut self.client);
        }
        self.cancels -= 1;
        if std::mem::take(&mut self.granted) {
            request(&mut self.client)?;
        }
        Err(Failure::from_error(Some("57014"), "", "cancelled"))
    }
}

impl LockBackend for Canceled {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl Session for Canceled {
    type Transaction<'t> = postgres::Transaction<'t>;

    const REPLIES: pglock::driver::Replies = <postgres::Client as Session>::REPLIES;

    fn in_transaction(&mut self) -> bool {
        false
    }

    fn send(&mut self, sql: &str) -> Result<(), Failure> {
        self.next(|client| Session::send(client, sql))
    }

    fn query(&mut self, sql: &str) -> Result<Vec<String>, Failure> {
        self.next(|client| Session::query(client, sql))
    }

    fn transact<R>(
        &mut self,
        lock: &str,
        commit: &str,
        body: impl FnOnce(&mut postgres::Transaction<'_>) -> (R, End),
    ) -> Result<(R, Result<(), Failure>), Failure> {
        self.client.transact(lock, commit, body)
    }
}
