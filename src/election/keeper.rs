//! The thread behind a term: it campaigns, and then keeps the connection.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::candidate::{Candidate, End, Memory};
use super::lease::Moment;
use super::office::{Duty, Office};
use crate::driver::{LockBackend, Refusal, Session};
use crate::error::Error;
use crate::failure::{BoxError, Failure};

/// The first and the longest pause before another attempt to connect.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Campaigns, and serves the term.
pub(super) fn run<C, E>(
    connect: &(impl Fn() -> Result<C, E> + ?Sized),
    candidate: &Candidate,
    office: &Arc<Office>,
) where
    C: LockBackend,
    E: Into<BoxError>,
{
    let _finish = Finish(office);
    let mut memory = Memory::default();
    let mut pause = PAUSES[0];
    loop {
        let outcome = match attempt(connect, candidate, office, &mut memory) {
            Ok(End::Served) => return,
            Ok(End::Busy) => Ok(None),
            Err(error) if memory.settings_accepted && !candidate.tries && is_transient(&error) => {
                if !matches!(error, Error::Checkout { .. }) {
                    pause = PAUSES[0];
                }
                if !office.rest(pause) {
                    pause = PAUSES[1].min(pause * 2);
                    continue;
                }
                Err(candidate.stopped())
            }
            Err(error) => Err(error),
        };
        return office.report(outcome);
    }
}

fn attempt<C, E>(
    connect: &(impl Fn() -> Result<C, E> + ?Sized),
    candidate: &Candidate,
    office: &Office,
    memory: &mut Memory,
) -> Result<End, Error>
where
    C: LockBackend,
    E: Into<BoxError>,
{
    let no_connection = |source| Error::Checkout {
        lock: candidate.info.clone(),
        source,
    };
    let mut backend = connect().map_err(|error| no_connection(error.into()))?;
    let mut handle = backend.session().map_err(no_connection)?;
    candidate.stand(&mut *handle, office, memory)
}

/// Whether another connection may do better.
fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::Checkout { .. }
            | Error::ConnectionLost { .. }
            | Error::LockLost { .. }
            | Error::InRecovery { .. }
            | Error::Canceled { .. }
    )
}

/// Serves a term until it is left or lost. The caller releases the lock.
pub(super) fn keep<S: Session>(session: &mut S, office: &Office, question: &str) {
    loop {
        match office.next_duty() {
            Duty::Leave => return,
            Duty::GiveUp => {
                return office.lose("the server did not answer within the lease".into());
            }
            Duty::Look => {
                if let Some(reason) = session.hung_up() {
                    return office.lose(reason);
                }
            }
            Duty::Ask => {
                let asked = Moment::now();
                match ask(session, question) {
                    Ok(()) => office.answered(asked),
                    Err(failure) if failure.is_canceled() => {} // not the session's end
                    Err(failure) => return office.lose(reason(failure)),
                }
            }
        }
    }
}

/// Whether the session still holds the lock.
pub(super) fn ask<S: Session>(session: &mut S, question: &str) -> Result<(), Failure> {
    match session
        .query(question)?
        .first()
        .is_some_and(|held| held == "true")
    {
        true => Ok(()),
        false => Err(Failure::Refused(Refusal::NotHeld)),
    }
}

fn reason(failure: Failure) -> BoxError {
    let text = "the session no longer holds the lock";
    failure.into_source().unwrap_or_else(|| text.into())
}

/// Reports, however the thread ends, that it has released its connection.
struct Finish<'o>(&'o Arc<Office>);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lose("the thread of the election panicked".into());
        }
        self.0.finish();
    }
}
