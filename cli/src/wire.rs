//! A connection that says why the server has ended its session. The server says it unasked; libpq would
//! read that as a notice, and drop it. After a question, it is the answer.

use std::collections::BTreeSet;
use std::fs::{metadata, read_dir};
use std::os::fd::RawFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::OnceLock;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::{RunQueryDsl, sql_query};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pglock::driver::{
    BoxError, Failure, Finish, LockBackend, Opening, Session, Statement, Transacted,
};

/// Sockets that were there before the first connection: inherited ones.
static OTHERS: OnceLock<BTreeSet<RawFd>> = OnceLock::new();

/// To be called before each connection is opened.
pub(crate) fn about_to_connect() {
    OTHERS.get_or_init(sockets);
}

fn sockets() -> BTreeSet<RawFd> {
    let entries = read_dir("/dev/fd").into_iter().flatten().flatten();
    let is_socket =
        |path: &std::path::Path| metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let sockets = entries.filter(|entry| is_socket(&entry.path()));
    sockets
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

pub(crate) struct Wired {
    pub(crate) connection: PgConnection,
    /// The sockets of this process, since libpq's cannot be told from others; news of one costs a
    /// question. `None`: there are none to be found.
    poll: Option<(Poll, Events)>,
}

impl Wired {
    pub(crate) fn new(connection: PgConnection) -> Self {
        let others = OTHERS.get_or_init(BTreeSet::new);
        let poll = Poll::new().and_then(|poll| {
            for socket in sockets().difference(others) {
                let registry = poll.registry();
                registry.register(&mut SourceFd(socket), Token(0), Interest::READABLE)?;
            }
            Ok((poll, Events::with_capacity(8)))
        });
        Self {
            connection,
            poll: poll.ok(),
        }
    }

    /// Whether something has arrived since the last call.
    fn has_news(&mut self) -> bool {
        let Some((poll, events)) = &mut self.poll else {
            return false;
        };
        poll.poll(events, Some(Duration::ZERO)).is_ok() && !events.is_empty()
    }

    /// What arrives by then is an answer.
    fn asking<T>(&mut self, ask: impl FnOnce(&mut PgConnection) -> T) -> T {
        let answer = ask(&mut self.connection);
        self.has_news();
        answer
    }
}

impl LockBackend for Wired {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl Session for Wired {
    type Transaction<'t> = PgConnection;

    const HAS_SQLSTATE: bool = <PgConnection as Session>::HAS_SQLSTATE;

    fn in_transaction(&mut self) -> bool {
        self.connection.in_transaction()
    }

    fn is_broken(&mut self) -> bool {
        self.connection.is_broken()
    }

    fn hung_up(&mut self) -> Option<BoxError> {
        if !self.has_news() {
            return self.connection.hung_up();
        }
        // Only the extended protocol shows the first of two errors: the second is that of the closed
        // connection. The simple one closes its portal, which would keep a snapshot in a transaction.
        let answered = self.asking(|connection| {
            let answered = sql_query("SELECT").execute(connection);
            answered.and_then(|_| connection.batch_execute("SELECT"))
        });
        let closed = self.connection.hung_up();
        match answered {
            Err(error) if closed.is_some() => Some(error.into()),
            _ => closed,
        }
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        self.asking(|connection| connection.message(statements, question))
    }

    fn prepared(&mut self, before: &str, statement: &Statement) -> Result<Vec<String>, Failure> {
        self.asking(|connection| connection.prepared(before, statement))
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut PgConnection) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        self.asking(|connection| connection.transact(opening, body))
    }

    fn terminate(&mut self) {
        self.connection.terminate();
    }
}
