//! The message, until it is answered: whether the acquire failed, or the text.

use std::time::{Duration, Instant};

use crate::driver::{Failure, Refusal, Session, insist};
use crate::error::Error;
use crate::failure::answer;
use crate::lock::wait::{self, Attempt, SLICE, Within, explained};
use crate::prepared;
use crate::sql::{self, Message, SAVEPOINT, UNDO, Wait, WaitTime};

/// What comes of a message that got past its acquire: the reply, or why the text failed; and how many
/// statements of ours stand before and after the text.
pub(super) type Answered<R> = (Result<R, Failure>, (usize, usize));

/// A message that is sent until it is answered.
pub(super) struct Sending<'m, F> {
    pub(super) message: &'m Message<'m>,
    /// In a form that tells the errors of the acquire from those of the text, which costs the server more
    /// than the lock. A wait that is not sliced can end in more ways, so it is exact from the start.
    pub(super) exact: bool,
    pub(super) send: &'m mut F,
}

impl<F> Sending<'_, F> {
    pub(super) fn until_answered<S: Session, R: Default>(
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
