//! A section that is sent as one message: the lock, statements, COMMIT and release.

use std::time::{Duration, Instant};

use crate::driver::{
    self, Failure, LockBackend, Refusal, Session, insist, until_answered, while_canceled,
};
use crate::error::Error;
use crate::failure::answer;
use crate::lock::Lock;
use crate::lock::sections::begin;
use crate::lock::sections::free;
use crate::lock::wait::{self, Attempt, SLICE, Within, explained};
use crate::prepared;
use crate::process;
use crate::request::{Request, Scope};
use crate::sql::{self, Message, SAVEPOINT, UNDO, Wait, WaitTime};
use crate::targets::LockInfo;
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

/// What comes of a message that got past its acquire: the reply, or why the text failed; and how many
/// statements of ours stand before and after the text.
type Answered<R> = (Result<R, Failure>, (usize, usize));

/// A message that is sent until it is answered.
struct Sending<'m, F> {
    message: &'m Message<'m>,
    /// In a form that tells the errors of the acquire from those of the text, which costs the server more
    /// than the lock. A wait that is not sliced can end in more ways, so it is exact from the start.
    exact: bool,
    send: &'m mut F,
}

impl<F> Sending<'_, F> {
    fn until_answered<S: Session, R: Default>(
        &mut self,
        session: &mut S,
        attempt: &mut Attempt<'_>,
    ) -> Result<Answered<R>, Error>
    where
        F: FnMut(&mut S, &str) -> Result<R, Failure>,
    {
        attempt.go_on()?;
        let (within, slice) = match self.message.inside {
            true => (Within::CallersSavepoint, attempt.long_slice()),
            false => (Within::OneMessage, SLICE),
        };
        let mut time = attempt.first_wait(slice);
        loop {
            let before = match self.message.inside {
                true => SAVEPOINT.to_owned() + &attempt.label(),
                false => attempt.before(),
            };
            let failure = match self.answered(session, time, &before) {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            if !attempt.goes_on(&failure, time) {
                return Err(attempt.failed(session, within, failure));
            }
            self.exact = true;
            time = match self.message.inside {
                true => {
                    let undone = insist(|| session.send(UNDO));
                    undone.map_err(|failure| attempt.failed(session, within, failure))?;
                    wait::transaction::acquire(session, attempt, self.message.lock)?;
                    WaitTime::No
                }
                false => self.wait(session, attempt)?,
            };
        }
    }

    /// Waits, quietly, until the lock can be had, and says how the next message is to wait. It may find
    /// others there first: then its own end is an error, so it waits longer than a slice.
    fn wait<S: Session>(
        &self,
        session: &mut S,
        attempt: &mut Attempt<'_>,
    ) -> Result<WaitTime, Error> {
        let wait = Wait::new(self.message.lock);
        let failed = |attempt: &Attempt<'_>, session: &mut S, failure| {
            Err(attempt.failed(session, Within::OneMessage, failure))
        };
        attempt.situation = attempt.ask(session).ok().flatten();
        loop {
            attempt.go_on()?;
            let slice = match attempt.slice_in() {
                Ok(slice) => slice,
                Err(failure) => return failed(attempt, session, failure),
            };
            let Some(millis) = attempt.later_wait(slice) else {
                let over = Failure::timeout_over();
                return failed(attempt, session, over);
            };
            let start = Instant::now();
            let text = attempt.before() + &wait.in_queue(millis);
            match session.send(&text) {
                Ok(())
                    if start.elapsed()
                        >= Duration::from_millis(u64::from(millis.unsigned_abs())) => {}
                Ok(()) => {
                    let limit = attempt.later_wait(attempt.long_slice());
                    return Ok(limit.map_or(WaitTime::No, WaitTime::Slice));
                }
                Err(failure) => {
                    let failure = explained(
                        session,
                        self.message.lock,
                        WaitTime::No,
                        start.elapsed(),
                        failure,
                    );
                    return failed(attempt, session, failure);
                }
            }
        }
    }

    /// One message, or two: an error of unknown origin that may be the end of a slice is looked into.
    fn answered<S: Session, R: Default>(
        &mut self,
        session: &mut S,
        time: WaitTime,
        before: &str,
    ) -> Result<Answered<R>, Failure>
    where
        F: FnMut(&mut S, &str) -> Result<R, Failure>,
    {
        let start = Instant::now();
        let exact = self.exact;
        let (sent, around) = self.once(session, time, before)?;
        match sent {
            Err(failure) if !exact && may_end_slice(&failure, time, start.elapsed()) => {
                self.exact = true;
                if self.message.inside {
                    session.send(UNDO)?;
                }
                if self.is_busy(session)? {
                    return Err(failure.with_state(crate::failure::TIMEOUT));
                }
                match self.once(session, WaitTime::No, before) {
                    Err(Failure::Refused(Refusal::Busy)) => {
                        Err(failure.with_state(crate::failure::TIMEOUT))
                    }
                    sent => sent,
                }
            }
            sent => Ok((sent, around)),
        }
    }

    /// Whether others hold the lock. A message that finds it so ends in an error, which stands in the
    /// server's log. If so, a savepoint stands, as behind that error.
    fn is_busy<S: Session>(&self, session: &mut S) -> Result<bool, Failure> {
        let Some(tries) = self.message.tries() else {
            return Ok(false);
        };
        let lines = match self.message.inside {
            true => session.message(SAVEPOINT, &tries.text()),
            false => session.prepared("", &tries),
        };
        let busy = matches!(answer(lines), Err(Failure::Refused(Refusal::Busy)));
        if self.message.inside && !busy {
            session.send(UNDO)?;
        }
        Ok(busy)
    }

    fn once<S: Session, R: Default>(
        &mut self,
        session: &mut S,
        time: WaitTime,
        before: &str,
    ) -> Result<Answered<R>, Failure>
    where
        F: FnMut(&mut S, &str) -> Result<R, Failure>,
    {
        let message = self.message;
        let mut client = prepared::client_of(session);
        loop {
            // What the session holds for the caller's transaction looks like another's: a block can tell.
            self.exact |= message.inside && client == sql::Client::Other;
            let statement = match self.exact {
                true => None,
                false => message.acquire(time, client),
            };
            let Some(statement) = statement else {
                let (acquire, count) = message.acquire_exactly(time);
                let sent = (self.send)(session, &message.around(&acquire, before));
                return of_text(sent, message).map(|sent| (sent, message.statements_around(count)));
            };
            let (mut count, mut again) = (1, false);
            let sent = prepared::with(session, &statement, |session, text, statements| {
                count = statements;
                if std::mem::replace(&mut again, true) && message.inside {
                    session.send(UNDO)?;
                }
                (self.send)(session, &message.around(text, before))
            });
            match of_text(sent, message) {
                Err(Failure::Refused(Refusal::Stranger)) if client == sql::Client::Own => {
                    prepared::is_not_ours(session);
                    client = sql::Client::Other;
                    if message.inside {
                        session.send(UNDO)?;
                    }
                }
                sent => return sent.map(|sent| (sent, message.statements_around(count))),
            }
        }
    }
}

/// Tells a failure before the text from one of the text. With a driver without rows, a message that may
/// copy ends in an error. Without it, the driver has stopped at the COPY.
fn of_text<R: Default>(
    sent: Result<R, Failure>,
    message: &Message<'_>,
) -> Result<Result<R, Failure>, Failure> {
    match sent {
        Err(Failure::Refused(Refusal::Done)) => Ok(Ok(R::default())),
        Ok(_) if message.copies && !message.has_rows => {
            Ok(Err(Failure::Refused(Refusal::Unfinished)))
        }
        Err(failure) if is_of_acquire(&failure) => Err(failure),
        sent => Ok(sent),
    }
}

/// Whether a message is known to have failed before its text began. An SQLSTATE does not show that: the
/// text can fail with any. Whether the acquire found no transaction, [`after`] finds out.
fn is_of_acquire(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(Refusal::NotHeld | Refusal::Unfinished) => false,
        failure => failure.is_marked(),
    }
}

/// Whether an error of unknown origin may be the end of a slice.
fn may_end_slice(failure: &Failure, time: WaitTime, elapsed: Duration) -> bool {
    let is_over = |millis: i32| elapsed.as_millis() >= u128::from(millis.unsigned_abs());
    match time {
        WaitTime::Slice(millis) | WaitTime::OwnSlice(millis) if failure.is_unknown() => {
            is_over(millis)
        }
        WaitTime::Slice(millis) => failure.is_timeout() && is_over(millis),
        WaitTime::OwnSlice(_) => failure.is_timeout(), // the session's own may be shorter
        WaitTime::No | WaitTime::InPlace(_) => false,
    }
}

/// Checks, after a message that succeeded, that the text has left no transaction open. It can do so
/// only with certain words.
fn settled<S: Session>(
    session: &mut S,
    request: &Request,
    message: &Message<'_>,
) -> Result<(), Error> {
    if message.inside || message.name.is_none() {
        return Ok(());
    }
    let lock = request.lock.clone();
    let idle = sql::idle();
    let source = match until_answered(|| answer(session.prepared("", &idle))) {
        Ok(()) => return Ok(()),
        Err(Failure::Refused(_)) => None,
        Err(failure) if failure.is_aborted_transaction() => failure.into_source(),
        Err(failure) => {
            let _ = insist(|| session.send("ROLLBACK"));
            return Err(unknown(lock, failure));
        }
    };
    let _ = insist(|| session.send("ROLLBACK"));
    Err(Error::TransactionLeftOpen { lock, source })
}

/// What to say where the last question was not answered.
fn unknown(lock: LockInfo, failure: Failure) -> Error {
    match failure {
        Failure::Lost(source) => Error::ConnectionLost {
            lock,
            committing: true,
            source,
        },
        failure => Error::CommitUnknown {
            lock,
            source: failure.into_source().unwrap_or_else(|| "a refusal".into()),
        },
    }
}

/// Asks until there is an answer: a cancel or a timeout that hits the question is none.
fn was_committed<S: Session>(session: &mut S, name: &str) -> Result<bool, Failure> {
    let question = sql::was_committed(name);
    until_answered(|| match session.query(&question)?.first() {
        Some(line) => Ok(line == "true"),
        None => {
            let none = "the server's reply has no row";
            Err(Failure::from_error(None, "", none))
        }
    })
}

/// Cleans up after a message that failed in its text or after it, and returns the error.
fn after<S: Session>(session: &mut S, message: &Message<'_>, failure: Failure) -> Error {
    let failure = match failure {
        Failure::Lost(source) if session.is_broken() || session.send("").is_err() => {
            return Error::ConnectionLost {
                lock: message.lock.clone(),
                committing: !message.inside,
                source,
            };
        }
        // The driver did not know what to do with a COPY.
        Failure::Lost(_) if message.copies => Failure::Refused(Refusal::Unfinished),
        Failure::Lost(source) => Failure::from_error(None, "", source),
        failure => failure,
    };
    let left = match message.inside {
        true => while_canceled(|| session.send(UNDO)),
        false => insist(|| session.send("SELECT 1")),
    };
    let undo_failed = message.inside && left.is_err();
    // The text could not have ended the transaction: so it was not open when the savepoint was to be set.
    let none_open = undo_failed && message.name.is_none() && failure.may_be_without_transaction();
    // The server answers once it has released the lock, unless a transaction is aborted: by the
    // text, or one of the caller's before it. In the latter it says no more than that, each time.
    let aborted = match &left {
        Err(_) if message.inside => session.send("SELECT 1").err(),
        Err(_) | Ok(()) => left.err(),
    };
    let before = aborted
        .as_ref()
        .is_some_and(|left| failure.says_the_same(left));
    if before || none_open {
        let lock = message.lock.clone();
        return Error::acquire(lock, None, failure.without_transaction(true));
    }
    let left_aborted = aborted
        .as_ref()
        .is_some_and(Failure::may_be_aborted_transaction);
    if left_aborted && !message.inside && message.name.is_none() {
        // The text has opened none, so the caller has, with a raw BEGIN: it is not ours to roll
        // back.
        let lock = message.lock.clone();
        return Error::InTransaction { lock };
    }
    if !message.inside && (message.copies || aborted.is_some()) {
        let _ = insist(|| session.send("ROLLBACK"));
    }
    let lock = message.lock.clone();
    let ended = match message.name {
        _ if matches!(failure, Failure::Refused(Refusal::NotHeld)) => Ok(true),
        None => Ok(false),
        Some(_) if message.inside => Ok(undo_failed && aborted.is_none()),
        Some(name) => was_committed(session, name),
    };
    match ended {
        Ok(false) if matches!(failure, Failure::Refused(_)) => Error::ClientCopy { lock },
        Ok(false) => failure.into(),
        // The text has ended the transaction: what came before that is as the text says.
        Ok(true) => Error::LockLost {
            lock,
            source: failure.into_source(),
        },
        Err(unanswered) => unknown(lock, unanswered),
    }
}
