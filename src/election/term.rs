//! A term: what its leader has in hand.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::candidate::{Candidate, Elected, Outcome};
use super::token::Token;
use crate::driver::Failure;
use crate::error::Error;
use crate::held::thread::{Heard, Thread};
use crate::targets::LockInfo;

/// How long a campaign that was stopped waits until its connection is left as it was.
const STOPPED: Duration = Duration::from_secs(2);

/// How long dropping a term waits for the server to confirm.
const DROP: Duration = Duration::from_secs(1);

/// A term of an [`Election`](super::Election): this process leads.
///
/// It is over when the leader resigns, when its connection is found broken, or when the server has not
/// answered for nine tenths of half the lease, by this machine's clocks. Neither [`is_over`](Term::is_over)
/// nor [`wait`](Term::wait) asks the server.
///
/// A term can be shared among threads. Dropping it resigns, and waits for up to a second until that is
/// done; [`resign`](Term::resign) reports what went wrong.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut conn = Client::connect(&url, NoTls)?;
/// use pglock::election::{self, Election};
///
/// let term = Election::new(move || Client::connect(&url, NoTls), "doc:term").campaign()?;
/// assert!(!term.is_over());
/// term.fenced(&mut conn, |tx| tx.batch_execute("SELECT 'the work'").map_err(pglock::Error::from))?;
/// term.resign()?;
/// # }
/// # Ok(())
/// # }
/// ```
#[must_use = "a term that is not kept is resigned at once"]
pub struct Term {
    pub(super) candidate: Arc<Candidate>,
    pub(super) elected: Elected,
    thread: Thread<Outcome>,
    ended: bool,
}

impl Term {
    /// Has a thread stand for election and serve the term. Waits for the outcome, unless the server is silent for
    /// so long, or the campaign was stopped a while ago: then the thread is left to itself, and ends as soon as it
    /// notices. A panic of the thread comes out here.
    pub(super) fn begin(candidate: Candidate, patience: Duration) -> Result<Option<Self>, Error> {
        let candidate = Arc::new(candidate);
        let office = &candidate.office;
        let thread = Thread::start({
            let candidate = Arc::clone(&candidate);
            move |news: &Sender<Outcome>| {
                let stood = (candidate.election.run)(&candidate, news);
                let _ = news.send(stood.map(|()| None));
            }
        });
        let mut thread = thread.map_err(|error| candidate.no_connection(error.into()))?;
        let mut stopped = None;
        let gives_up = || match office.is_stopped() {
            true => stopped.get_or_insert_with(Instant::now).elapsed() > STOPPED,
            false => office.silent() > patience,
        };
        let outcome = match thread.hear(gives_up) {
            Heard::News(Ok(Some(elected))) => {
                return Ok(Some(Self {
                    elected,
                    thread,
                    ended: false,
                    candidate,
                }));
            }
            Heard::News(outcome) => {
                thread.finish(STOPPED);
                outcome
            }
            Heard::Nothing => {
                let source = "nothing has come from the server for a lease".into();
                Err(candidate.failed(Failure::Lost(source)))
            }
            Heard::Ended => Ok(None),
        };
        office.leave();
        outcome.map(|_| None)
    }

    /// Whether the term is over, or its election was stopped (see
    /// [`Election::stop_on`](super::Election::stop_on)). Once it is, it stays so.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.candidate.office.is_over()
    }

    /// How long the term still lasts, by this machine's clocks, if the server says nothing more: see
    /// [`Held::left`](crate::held::Held::left). Zero when it is over. At most nine tenths of half the lease.
    #[must_use]
    pub fn left(&self) -> Duration {
        match self.is_over() {
            true => Duration::ZERO,
            false => self.candidate.office.left(),
        }
    }

    /// Sleeps for that long, or until the term is over, and returns whether it is.
    #[must_use = "the work must stop when the term is over"]
    pub fn wait(&self, time: Duration) -> bool {
        self.candidate.office.wait_for_end(time)
    }

    /// Has that called once if the term is lost before its leader resigns, with the reason; at once if it is lost
    /// already. As [`Held::on_loss`](crate::held::Held::on_loss) does: from a thread for that, so it should be short. A
    /// [stopped](super::Election::stop_on) election is over, but has lost nothing.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use std::process::Command;
    /// use pglock::election::Election;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// let term = Election::new(move || Client::connect(&url, NoTls), "doc:term-on-loss").campaign()?;
    /// let mut worker = Command::new("true").spawn()?;
    /// let pid = worker.id();
    /// term.on_loss(move |lost| {
    ///     eprintln!("{lost}");
    ///     let _ = Command::new("kill").arg(pid.to_string()).status();
    /// });
    /// worker.wait()?;
    /// term.resign()?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_loss(&self, callback: impl FnOnce(&Error) + Send + 'static) {
        let office = &self.candidate.office;
        office.on_loss(0, self.lock_info().clone(), callback);
    }

    /// A number that is greater in every later term.
    #[must_use]
    pub fn token(&self) -> Token {
        self.elected.token
    }

    /// The lease: what was asked for, or twice the server's `idle_session_timeout` where that is shorter.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.elected.silence.time() * 2
    }

    /// The election's lock, as errors name it.
    #[must_use]
    pub fn lock_info(&self) -> &LockInfo {
        &self.candidate.election.info
    }

    /// Ends the term, and reports what went wrong. When it returns, a candidate that waited has been told that the
    /// term is over, and need not wait any longer.
    ///
    /// So a process should not exit before this returns: its successor would have to wait half a lease. Mostly it takes
    /// some milliseconds; half a lease at most, if the next in line is frozen.
    ///
    /// # Errors
    ///
    /// [`Error::LockLost`]: the term was already over, or the server did not confirm the release
    /// within a lease. In both cases the lock is free after half a lease at the latest.
    pub fn resign(mut self) -> Result<(), Error> {
        self.end(self.elected.silence.time() * 2)
    }

    fn end(&mut self, patience: Duration) -> Result<(), Error> {
        self.ended = true;
        let in_time = self.candidate.office.leave();
        let confirmed = self.thread.finish(patience);
        let source = match self.candidate.office.loss() {
            Some(loss) => loss.into(),
            None if !in_time => "the server did not answer within the lease".into(),
            None if !confirmed => "the server did not confirm the release".into(),
            None => return Ok(()),
        };
        Err(Error::LockLost {
            lock: self.lock_info().clone(),
            source: Some(source),
        })
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end(DROP);
        }
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("lock", self.lock_info())
            .field("token", &self.elected.token)
            .field("lease", &self.lease())
            .field("is_over", &self.is_over())
            .finish_non_exhaustive()
    }
}
