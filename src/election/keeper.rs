//! The thread behind a candidacy and its term.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::candidate::{Candidate, Elected};
use super::office::LOOK;
use crate::driver::{BoxError, Failure, LockBackend};
use crate::error::Error;

/// The outcome of a candidacy. `None`: somebody else leads, or may still lead.
pub(super) type Outcome = Result<Option<Elected>, Error>;

/// What the thread runs.
pub(super) type Run = dyn Fn(&Candidate, &Sender<Outcome>) + Send + Sync;

/// How long a stopped campaign waits for a server that does not answer.
const STOPPED: Duration = Duration::from_secs(2);

pub(super) struct Keeper {
    pub(super) candidate: Arc<Candidate>,
    /// Gives the outcome, and is closed when the thread has left its connection.
    news: Mutex<Receiver<Outcome>>,
    thread: Option<JoinHandle<()>>,
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
        let thread = thread::Builder::new().name("pglock election".to_owned());
        let thread = thread.spawn({
            let candidate = Arc::clone(&candidate);
            move || (candidate.election.run)(&candidate, &sender)
        });
        let thread = thread.map_err(|error| candidate.no_connection(error.into()))?;
        Ok(Self {
            candidate,
            news: Mutex::new(news),
            thread: Some(thread),
        })
    }

    /// Waits for the outcome, unless the server is silent for so long (or the campaign was stopped, and the server
    /// has been silent for a while): then the thread is left to itself. A panic of the thread comes out here.
    pub(super) fn outcome(&mut self, patience: Duration) -> Outcome {
        loop {
            let news = self.news().recv_timeout(LOOK);
            let office = &self.candidate.office;
            let patience = match office.is_stopped() {
                true => STOPPED.min(patience),
                false => patience,
            };
            match news {
                Ok(Ok(Some(elected))) => return Ok(Some(elected)),
                Ok(outcome) => {
                    self.finish(patience);
                    return outcome;
                }
                Err(RecvTimeoutError::Timeout) if office.silent() <= patience => {}
                Err(RecvTimeoutError::Timeout) => {
                    let source = "nothing has come from the server for a lease".into();
                    return Err(self.candidate.failed(Failure::Lost(source)));
                }
                Err(RecvTimeoutError::Disconnected) => match self.join() {
                    Some(Err(panic)) => resume_unwind(panic),
                    _ => return Ok(None),
                },
            }
        }
    }

    /// Waits until the thread has left its connection. Returns `false` if it has not in that time.
    pub(super) fn finish(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            match self.news().recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.join();
                    return true;
                }
            }
        }
    }

    fn news(&mut self) -> &mut Receiver<Outcome> {
        self.news.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&mut self) -> Option<thread::Result<()>> {
        self.thread.take().map(JoinHandle::join)
    }
}

/// The thread ends as soon as it notices, which may be long after.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.candidate.office.leave();
    }
}
