//! The thread that stands for election and keeps the term, seen by those who wait for it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::candidate::{Candidate, Outcome};
use crate::driver::{BoxError, Failure, LockBackend};
use crate::error::Error;
use crate::held::thread::{Heard, Thread};

/// What the thread runs.
pub(super) type Run = dyn Fn(&Candidate, &Sender<Outcome>) + Send + Sync;

/// How long a stopped campaign waits for a server that does not answer.
const STOPPED: Duration = Duration::from_secs(2);

pub(super) struct Keeper {
    pub(super) candidate: Arc<Candidate>,
    /// Gives the outcome, and is closed when the thread has left its connection.
    news: Mutex<Receiver<Outcome>>,
    thread: Thread,
}

/// Connects, stands for election, and serves the term.
pub(super) fn run<C, E>(
    connect: &(impl Fn() -> Result<C, E> + ?Sized),
    candidate: &Candidate,
    news: &Sender<Outcome>,
) where
    C: LockBackend,
    E: Into<BoxError>,
{
    let stand = || {
        let no_connection = |error| candidate.no_connection(error);
        let mut backend = connect().map_err(|error| no_connection(error.into()))?;
        let mut handle = backend.session().map_err(no_connection)?;
        candidate.office.heard();
        candidate.stand(&mut *handle, news)
    };
    let outcome = match stand() {
        Ok(true) => return, // it was elected
        Ok(false) => Ok(None),
        Err(error) => Err(error),
    };
    let _ = news.send(outcome);
}

impl Keeper {
    pub(super) fn start(candidate: Candidate) -> Result<Self, Error> {
        let candidate = Arc::new(candidate);
        let (sender, news) = mpsc::channel();
        let thread = Thread::start({
            let candidate = Arc::clone(&candidate);
            move || (candidate.election.run)(&candidate, &sender)
        });
        let thread = thread.map_err(|error| candidate.no_connection(error.into()))?;
        Ok(Self {
            candidate,
            news: Mutex::new(news),
            thread,
        })
    }

    /// Waits for the outcome, unless the server is silent for so long (or the campaign was stopped, and the server
    /// has been silent for a while): then the thread is left to itself. A panic of the thread comes out here.
    pub(super) fn outcome(&mut self, patience: Duration) -> Outcome {
        let office = &self.candidate.office;
        let patience = || match office.is_stopped() {
            true => STOPPED.min(patience),
            false => patience,
        };
        let news = self.news.get_mut().unwrap_or_else(PoisonError::into_inner);
        match self.thread.hear(news, || office.silent() > patience()) {
            Heard::News(Ok(Some(elected))) => Ok(Some(elected)),
            Heard::News(outcome) => {
                self.thread.finish(news, patience());
                outcome
            }
            Heard::Nothing => {
                let source = "nothing has come from the server for a lease".into();
                Err(self.candidate.failed(Failure::Lost(source)))
            }
            Heard::Ended => Ok(None),
        }
    }

    /// Waits until the thread has left its connection. Returns `false` if it has not in that time.
    pub(super) fn finish(&mut self, patience: Duration) -> bool {
        let news = self.news.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.thread.finish(news, patience)
    }
}

/// The thread ends as soon as it notices, which may be long after.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.candidate.office.leave();
    }
}
