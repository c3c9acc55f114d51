//! A driver that is not part of the crate: `tokio-postgres`, on a current-thread runtime of its own.
//! It was written from the documentation of `pglock::driver`, and uses nothing else of pglock's.

use std::future::Future;

use pglock::LockBackend;
use pglock::driver::{BoxError, Failure, Finish, Opening, Session, Transacted, TransactionBackend};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

/// A connection, which makes progress only while somebody waits for it.
pub struct Connection {
    runtime: Runtime,
    client: Client,
    /// What moves the bytes. It ends with the server's last error, which the client does not see.
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl Connection {
    pub fn connect(url: &str) -> Result<Self, BoxError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        let task = Some(runtime.spawn(connection));
        Ok(Self {
            runtime,
            client,
            task,
        })
    }

    /// Begins a transaction, which is rolled back when it is dropped.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, Failure> {
        self.send("BEGIN")?;
        Ok(Transaction::new(self, "ROLLBACK"))
    }

    /// First lets the connection read what has arrived since, such as the server's last error: it looks at
    /// the socket once, and then runs the task once.
    fn wait<T>(&self, reply: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            yield_now().await;
            yield_now().await;
            reply.await
        })
    }

    fn failure(&mut self, error: Error) -> Failure {
        let mut error = error;
        if error.is_closed()
            && let Some(task) = self.task.take()
            && let Ok(Err(last)) = self.wait(task)
        {
            error = last;
        }
        match error.as_db_error() {
            Some(server) if matches!(server.severity(), "FATAL" | "PANIC") => {
                Failure::Lost(error.into())
            }
            Some(server) => {
                let (sqlstate, message) = (server.code().clone(), server.message().to_owned());
                Failure::from_error(Some(sqlstate.code()), &message, error)
            }
            None => Failure::Lost(error.into()),
        }
    }
}

/// A transaction, or a savepoint in one.
pub struct Transaction<'c> {
    connection: &'c mut Connection,
    /// `None` once it has ended.
    roll_back: Option<&'static str>,
}

const ROLL_BACK_TO: &str = "ROLLBACK TO SAVEPOINT third_driver; RELEASE SAVEPOINT third_driver";

impl<'c> Transaction<'c> {
    fn new(connection: &'c mut Connection, roll_back: &'static str) -> Self {
        Self {
            connection,
            roll_back: Some(roll_back),
        }
    }

    /// Runs the body, and ends with COMMIT or RELEASE, or rolls back.
    fn run<R>(
        mut self,
        commit: impl FnOnce(&mut Self) -> Result<(), Failure>,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, Finish),
    ) -> Transacted<R> {
        let (result, finish) = body(&mut self);
        let committed = match finish {
            Finish::Commit => commit(&mut self),
            Finish::Rollback | Finish::Leave => Ok(()),
        };
        let ended = match (finish, committed) {
            (Finish::Commit, Ok(())) => {
                self.roll_back = None;
                Ok(())
            }
            (_, committed) => {
                let undone = self.roll_back();
                committed.and(undone)
            }
        };
        Transacted { result, ended }
    }

    /// A cancel can hit the ROLLBACK, so it is sent again.
    fn roll_back(&mut self) -> Result<(), Failure> {
        let Some(roll_back) = self.roll_back.take() else {
            return Ok(());
        };
        let mut done = Ok(());
        for _ in 0..100 {
            done = self.connection.send(roll_back);
            if !matches!(done, Err(Failure::Sql { .. })) {
                break;
            }
        }
        done
    }
}

/// So that it is rolled back after a panic, too.
impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let _ = self.roll_back();
    }
}

impl LockBackend for Connection {
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

impl Session for Connection {
    type Transaction<'t> = Transaction<'t>;

    fn in_transaction(&mut self) -> bool {
        false
    }

    fn is_broken(&mut self) -> bool {
        self.client.is_closed()
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        let sql = [statements, question].concat();
        let messages = self.wait(self.client.simple_query(&sql));
        let messages = messages.map_err(|error| self.failure(error))?;
        let texts = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(texts.collect())
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        self.send(&opening.begin())?;
        Ok(Transaction::new(self, "ROLLBACK").run(|transaction| opening.commit(transaction), body))
    }
}

impl Session for Transaction<'_> {
    type Transaction<'t> = Transaction<'t>;

    fn in_transaction(&mut self) -> bool {
        true
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        self.connection.message(statements, question)
    }

    fn transact<R>(
        &mut self,
        _: &Opening,
        body: impl FnOnce(&mut Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        self.send("SAVEPOINT third_driver")?;
        let savepoint = Transaction::new(self.connection, ROLL_BACK_TO);
        Ok(savepoint.run(
            |savepoint| savepoint.send("RELEASE SAVEPOINT third_driver"),
            body,
        ))
    }
}
