//! A section that is sent as one message: the lock, statements, COMMIT and release.

mod ended;
mod sending;

use self::ended::{after, settled};
use self::sending::Sending;
use crate::driver::{self, Failure, LockBackend, Session};
use crate::error::Error;
use crate::lock::Lock;
use crate::lock::sections::begin;
use crate::lock::sections::free;
use crate::process;
use crate::request::{Request, Scope};
use crate::sql::{self, Message};
use crate::telemetry::Outcome;

/// A section in one message.
impl<B: LockBackend, L> Lock<B, L> {
    /// Acquires the lock, runs statements and commits, in one message: one round trip, and the network
    /// is not inside the section.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::{Lock, key, quote_literal};
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// # client.batch_execute("CREATE TEMP TABLE stock (item text, count int); INSERT INTO stock VALUES ('ABC', 9)")?;
    /// let item = "ABC";
    /// Lock::new(&mut client, key!("doc:stock:{item}")).batch_execute(&format!(
    ///     "UPDATE stock SET count = count - 1 WHERE item = {}",
    ///     quote_literal(item)
    /// ))?;
    /// # assert_eq!(client.query_one("SELECT count FROM stock", &[])?.get::<_, i32>(0), 8);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # When to use it
    ///
    /// For a key that many want at once, and for servers that are far away: counters, transfers,
    /// stock, a procedure call. The lock is held for as long as the statements take at the server,
    /// and not for the round trips of a closure. All decisions must be in the statements: nothing
    /// comes back to your code before the COMMIT.
    ///
    /// If the section is a **single `UPDATE` with a condition of its own** (`UPDATE stock SET count
    /// = count - 1 WHERE item = 'ABC' AND count > 0`), it needs no lock: under READ COMMITTED it
    /// waits for the row, and looks again. It is faster without one. Take the lock where several
    /// statements belong together, or for rows that do not exist yet.
    ///
    /// # What the text may contain
    ///
    /// Any statements that may run in a transaction, separated by semicolons. Each of them sees
    /// what the last holder has committed. There are no parameters: quote values with
    /// [`quote_literal`](crate::quote_literal). The server refuses `VACUUM`, `CREATE INDEX CONCURRENTLY` and
    /// the like, and `COPY` from or to the client is [`Error::ClientCopy`]. The server sees one message:
    /// `statement_timeout` bounds each statement, and `lock_timeout` is the caller's own for all
    /// but the acquire.
    ///
    /// If the text contains a word that could end the transaction (`BEGIN`, `START`, `COMMIT`,
    /// `END`, `ROLLBACK`, `ABORT`, `PREPARE`, even in a string), pglock checks whether it did.
    /// Outside a transaction the check costs a second round trip. If the text ended the
    /// transaction, the error is [`Error::LockLost`]: what came after the end is rolled back, and
    /// what came before it is committed or rolled back as the text says. It is `LockLost` too if the text
    /// committed and then failed; the error's source says with what.
    ///
    /// If the text contains the word `COPY`, the COMMIT is a second message: drivers return at a COPY from
    /// or to the client, before the end of the text. `postgres` loses the connection at `COPY … FROM STDIN`.
    ///
    /// # Inside a transaction
    ///
    /// Inside a transaction of the caller's, the same message stands behind a savepoint, and the
    /// lock stays until that transaction ends. After an error the transaction is as it was before,
    /// unless the server could not parse the text (a syntax error): then it never reached the
    /// savepoint, and the transaction is aborted.
    ///
    /// # Waiting
    ///
    /// As for every lock: in slices, and with all that is set on the lock. A `QueuedPool` does not
    /// queue these sections: the server's queue does it better.
    ///
    /// With `postgres`, an error of the first slice does not say whether it came from the acquire
    /// or from the statements. If it is a lock timeout (SQLSTATE 55P03) that may be the end of the
    /// slice, the message is sent again without waiting, in a form that does say it. So a text that
    /// ran into a lock timeout of its own can run twice, rolled back the first time. Any other
    /// error counts as the statements' own, even a cancel in the first slice of the wait.
    ///
    /// # Errors
    ///
    /// - Those of [`acquire`](Lock::acquire), and [`Error::NoSuchRow`], [`Error::Changed`] and
    ///   [`Error::WrongScope`] as in [`run_in_transaction`](Lock::run_in_transaction). The statements
    ///   have not run.
    /// - [`Error::Body`] with the driver's error: a statement failed. All of them are rolled back.
    /// - [`Error::ClientCopy`]: the text copies from or to the client. All of it is rolled back.
    /// - [`Error::NulByte`]: the text contains a NUL byte. Nothing was sent.
    /// - [`Error::LockLost`], [`Error::TransactionLeftOpen`]: the text ended the transaction, or
    ///   left one open, which is rolled back.
    /// - [`Error::ConnectionLost`]: the connection broke. Outside a transaction, it is not known
    ///   whether the statements were committed.
    /// - [`Error::CommitUnknown`]: the check behind a text with one of the words above was cancelled, a
    ///   hundred times.
    pub fn batch_execute(&mut self, sql: &str) -> Result<(), Error> {
        one_message(&mut self.backend, &self.request, sql, send)?;
        Ok(())
    }

    /// As [`batch_execute`](Lock::batch_execute), but only if the lock is free, or becomes free
    /// within the timeout, if one is set. Returns `false` otherwise; then nothing has run.
    ///
    /// # Errors
    ///
    /// As [`batch_execute`](Lock::batch_execute), except the timeout.
    pub fn try_batch_execute(&mut self, sql: &str) -> Result<bool, Error> {
        let request = self.request.or_no_wait();
        let sent = free(one_message(&mut self.backend, &request, sql, send))?;
        Ok(sent.is_some())
    }
}

/// Sections in one message that return rows.
#[cfg(feature = "postgres")]
impl<B: LockBackend<Session: postgres::GenericClient>, L> Lock<B, L> {
    /// As [`batch_execute`](Lock::batch_execute), and returns what the statements return. Only for
    /// sessions of `postgres`, whose simple query protocol returns rows as text.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use postgres::{Client, NoTls};
    /// use std::time::Duration;
    /// use pglock::{Lock, key, quote_literal};
    /// use postgres::SimpleQueryMessage::Row;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut client = Client::connect(&url, NoTls)?;
    /// # client.batch_execute("CREATE TEMP TABLE seat (id int, name text, buyer text); INSERT INTO seat VALUES (7, '12A')")?;
    /// let (seat, buyer) = ("12A", "O'Hara");
    /// let sold = Lock::new(&mut client, key!("doc:seat:{seat}"))
    ///     .timeout(Duration::from_secs(1))
    ///     .simple_query(&format!(
    ///         "UPDATE seat SET buyer = {} WHERE name = {} AND buyer IS NULL RETURNING id",
    ///         quote_literal(buyer),
    ///         quote_literal(seat),
    ///     ))?;
    /// let id = sold.iter().find_map(|message| match message {
    ///     Row(row) => row.get(0),
    ///     _ => None,
    /// });
    /// assert_eq!(id, Some("7"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`batch_execute`](Lock::batch_execute).
    pub fn simple_query(&mut self, sql: &str) -> Result<Vec<postgres::SimpleQueryMessage>, Error> {
        let (messages, around) = one_message(&mut self.backend, &self.request, sql, messages)?;
        Ok(without_ours(messages, around))
    }

    /// As [`simple_query`](Lock::simple_query), but only if the lock is free, or becomes free
    /// within the timeout, if one is set. Returns `None` otherwise; then nothing has run.
    ///
    /// # Errors
    ///
    /// As [`batch_execute`](Lock::batch_execute), except the timeout.
    pub fn try_simple_query(
        &mut self,
        sql: &str,
    ) -> Result<Option<Vec<postgres::SimpleQueryMessage>>, Error> {
        let request = self.request.or_no_wait();
        let sent = one_message(&mut self.backend, &request, sql, messages);
        let sent = free(sent)?;
        Ok(sent.map(|(messages, around)| without_ours(messages, around)))
    }
}

#[cfg(feature = "postgres")]
use crate::backends::postgres::messages;

/// Removes the replies to the first and the last statements, which are pglock's own.
#[cfg(feature = "postgres")]
fn without_ours(
    mut messages: Vec<postgres::SimpleQueryMessage>,
    (before, after): (usize, usize),
) -> Vec<postgres::SimpleQueryMessage> {
    let ends = messages.iter().enumerate();
    let ends = ends
        .filter(|(_, message)| matches!(message, postgres::SimpleQueryMessage::CommandComplete(_)));
    let ends: Vec<_> = ends.map(|(index, _)| index + 1).collect();
    let Some(last) = ends.len().checked_sub(after + 1) else {
        return Vec::new();
    };
    messages.truncate(ends[last]);
    messages.drain(..ends[before - 1]);
    messages
}

/// Sends the message. A row of the text's is no refusal.
fn send<S: Session>(session: &mut S, sql: &str) -> Result<(), Failure> {
    session.message(sql, "").map(drop)
}

/// Sends the message until it is answered. Returns the answer, and how many statements of ours
/// stand before and after the text.
fn one_message<B: LockBackend + ?Sized, R: Default>(
    backend: &mut B,
    request: &Request,
    text: &str,
    mut send: impl FnMut(&mut B::Session, &str) -> Result<R, Failure>,
) -> Result<(R, (usize, usize)), Error> {
    let lock = &request.lock;
    if request.scope == Some(Scope::Session) {
        return Err(Error::WrongScope { lock: lock.clone() });
    }
    if text.contains('\0') {
        return Err(Error::NulByte { lock: lock.clone() });
    }
    let (mut handle, mut attempt, waiting) = begin(request, Scope::Transaction, true, |acquire| {
        backend.session_for(acquire)
    })?;
    driver::recall(&mut handle);
    let copies = sql::may_copy(text);
    let name = (copies || sql::may_end_transaction(text)).then(process::unique_word);
    let message = Message {
        lock,
        text,
        inside: handle.in_transaction(),
        bounded: request.timeout.is_some(),
        name: name.as_deref(),
        copies,
        has_rows: <B::Session as Session>::HAS_SQLSTATE,
    };
    let session = &mut *handle;
    let mut sending = Sending {
        message: &message,
        exact: request.keep_place,
        send: &mut send,
    };
    let sent = sending.until_answered(session, &mut attempt);
    let (sent, around) = match sent {
        Ok(sent) => sent,
        Err(error) => {
            driver::keep(&mut handle, true);
            return Err(waiting.failed(error));
        }
    };
    let done = match sent {
        Ok(reply) if copies => match session.send(&message.finish()) {
            Ok(()) => Ok(reply),
            Err(failure) => Err(after(session, &message, failure)),
        },
        Ok(reply) => settled(session, request, &message).map(|()| reply),
        Err(failure) => Err(after(session, &message, failure)),
    };
    driver::keep(&mut handle, true);
    waiting.acquired().end(match &done {
        Ok(_) if message.inside => Outcome::Kept,
        Ok(_) => Outcome::Released,
        Err(Error::CommitUnknown { .. }) => Outcome::Released,
        Err(Error::LockLost { .. } | Error::ConnectionLost { .. }) => Outcome::Lost,
        Err(_) => Outcome::RolledBack,
    });
    Ok((done?, around))
}
