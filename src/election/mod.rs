//! Terms: who leads, for how long, and what that is worth.
//!
//! One scheduler, one consumer, one leader in the fleet: all candidates run the same program, and at
//! any time one of them is in a [`Term`]. `docs/elections.md` in the repository says what each part
//! is worth, what it rests on, and what happens at a kill, a freeze, a crash and a failover.
//!
//! ```
//! # fn main() -> anyhow::Result<()> {
//! # #[cfg(feature = "postgres")] {
//! # use postgres::{Client, NoTls};
//! use std::time::Duration;
//! use pglock::election::{Election, Term};
//!
//! # let url = std::env::var("DATABASE_URL")?;
//! # let mut conn = Client::connect(&url, NoTls)?;
//! # conn.batch_execute("CREATE TEMP TABLE tick (at timestamptz)")?;
//! let election = Election::new(move || Client::connect(&url, NoTls), "doc:scheduler")
//!     .lease(Duration::from_secs(5));
//! election.run(|term: &Term| {
//!     while !term.is_over() {
//!         // Commits only within the term.
//!         term.fenced(&mut conn, |tx| {
//!             tx.batch_execute("INSERT INTO tick VALUES (now())")?;
//!             anyhow::Ok(())
//!         })?;
//!         # break;
//!         if term.wait(Duration::from_secs(1)) {
//!             break; // at once when the term is over
//!         }
//!     }
//!     anyhow::Ok(())
//! })?;
//! # }
//! # Ok(())
//! # }
//! ```

mod candidacy;
mod candidate;
mod fenced;
mod keeper;
mod keys;
mod leader;
mod lease;
mod look;
#[cfg(test)]
mod model;
mod office;
mod predecessor;
mod settings;
mod term;
mod token;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use candidate::Candidate;
use keys::Keys;
use lease::Lease;
use office::Office;

pub use leader::leader;
pub use term::Term;
pub use token::Token;

use crate::driver::LockBackend;
use crate::error::Error;
use crate::failure::BoxError;
use crate::request::{LockInfo, Request};
use crate::stop::StopToken;

/// How long a stopped campaign waits for a server that does not answer.
const STOPPED: Duration = Duration::from_secs(2);

/// What the thread of an election does: it campaigns, and serves the term.
type Run = dyn Fn(&Candidate, &Arc<Office>) + Send + Sync;

/// An election in which this process can stand. It elects one leader among all that stand under
/// the same name in the same database.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::election::{Election, Term};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut conn = Client::connect(&url, NoTls)?;
/// let election = Election::new(move || Client::connect(&url, NoTls), "doc:election");
/// election.run(|term: &Term| {
///     println!("elected, with token {}", term.token());
///     term.fenced(&mut conn, |tx| anyhow::Ok(tx.batch_execute("SELECT 'the work'")?))
/// })?;
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "an election does nothing until it is run or campaigned in"]
pub struct Election {
    run: Arc<Run>,
    keys: Keys,
    info: LockInfo,
    lease: Duration,
    strict: bool,
    stop: Option<StopToken>,
}

impl Election {
    /// An election of that name, in the database that `connect` connects to.
    ///
    /// `connect` is called in each campaign, and again if the connection is lost in it. It returns
    /// a connection for the election alone, which the leader keeps for its term:
    /// `Client::connect(…)`, `PgConnection::establish(…)`, or `pool.get()`. It must lead to the
    /// server itself, or through a pooler in session mode.
    pub fn new<C, E>(
        connect: impl Fn() -> Result<C, E> + Send + Sync + 'static,
        name: impl AsRef<str>,
    ) -> Self
    where
        C: LockBackend,
        E: Into<BoxError>,
    {
        let keys = Keys::of(name.as_ref());
        Self {
            run: Arc::new(move |candidate, office| keeper::run(&connect, candidate, office)),
            info: Request::on_keys(vec![keys.lock.clone()]).lock,
            keys,
            lease: Lease::DEFAULT,
            strict: false,
            stop: None,
        }
    }

    /// Sets the lease: for how long the server waits to hear from the leader before somebody else
    /// can be elected. Defaults to 10 s; it must be at least 1 s, and all candidates must have the
    /// same.
    ///
    /// The leader asks the server every third of a lease. If the server's `idle_session_timeout` is
    /// shorter for the connection's user, the lease becomes as short ([`Term::lease`]).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Takes nothing for granted: whoever is elected waits for a lease unless it can show that the
    /// last term is over. By default, it waits after the server has ended the leader's session or
    /// was restarted, but not
    ///
    /// - if the leader's connection broke (most often because its process died). If the leader
    ///   lives, it notices within some 20 ms, and its successor waits for 50 ms;
    /// - if the candidate finds nobody in office when it comes, as at the very first start.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Lets a token stop the election: a campaign ends with [`Error::Stopped`] within a second, and a
    /// term [is over](Term::is_over) for its leader, who still holds the lock until it resigns.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::StopToken;
    /// use pglock::election::Election;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// let shutdown = StopToken::new();
    /// let election = Election::new(move || Client::connect(&url, NoTls), "doc:stop-on").stop_on(&shutdown);
    /// election.run(|term| {
    ///     shutdown.stop(); // such as from a thread that handles signals
    ///     assert!(term.is_over());
    ///     Ok::<_, pglock::Error>(())
    /// })?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_on(mut self, token: &StopToken) -> Self {
        self.stop = Some(token.clone());
        self
    }

    /// Waits to be elected, runs the body, and resigns.
    ///
    /// # Errors
    ///
    /// Those of [`campaign`](Election::campaign) and of the body, and [`Error::LockLost`] if the term
    /// was over before the body returned `Ok`. A panic of the body resigns.
    pub fn run<T, E>(&self, body: impl FnOnce(&Term) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error>,
    {
        let term = self.campaign()?;
        let value = body(&term)?;
        term.resign()?;
        Ok(value)
    }

    /// Waits to be elected.
    ///
    /// A connection that is lost meanwhile is replaced, for as long as it takes. The wait costs the
    /// server a few short messages a second.
    ///
    /// # Errors
    ///
    /// - [`Error::Lease`]: no term can be held with that lease.
    /// - [`Error::Stopped`]: see [`stop_on`](Election::stop_on).
    /// - [`Error::Checkout`]: the first connection could not be made.
    /// - [`Error::InRecovery`], if the first connection leads to a standby, and any other error of the
    ///   server, as in [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Panics
    ///
    /// If the function that connects panics.
    pub fn campaign(&self) -> Result<Term, Error> {
        match self.elect(false)? {
            Some(term) => Ok(term),
            None => Err(self.stopped()),
        }
    }

    /// Campaigns without waiting. Returns `None` if somebody leads, or may still lead.
    ///
    /// It takes some 50 ms, in which a leader would notice that its connection broke.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::election::Election;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// let election = Election::new(move || Client::connect(&url, NoTls), "doc:try-campaign");
    /// match election.try_campaign()? {
    ///     Some(term) => term.resign()?, // after the work of a leader
    ///     None => println!("somebody else leads"),
    /// }
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`campaign`](Election::campaign), and [`Error::ConnectionLost`].
    ///
    /// # Panics
    ///
    /// If the function that connects panics.
    pub fn try_campaign(&self) -> Result<Option<Term>, Error> {
        self.elect(true)
    }

    fn elect(&self, tries: bool) -> Result<Option<Term>, Error> {
        let office = Arc::new(Office::new(self.stop.clone()));
        let candidate = Candidate {
            info: self.info.clone(),
            keys: self.keys.clone(),
            lease: Lease::new(self.lease).ok_or_else(|| Error::Lease {
                lock: self.info.clone(),
                lease: self.lease,
            })?,
            strict: self.strict,
            tries,
        };
        let thread = thread::Builder::new()
            .name("pglock election".to_owned())
            .spawn({
                let (run, office) = (Arc::clone(&self.run), Arc::clone(&office));
                move || run(&candidate, &office)
            });
        let thread = thread.map_err(|error| Error::Checkout {
            lock: self.info.clone(),
            source: error.into(),
        })?;
        match office.outcome(STOPPED) {
            Some(Ok(Some(elected))) => {
                let term = Term {
                    office,
                    info: self.info.clone(),
                    keys: self.keys.clone(),
                    elected,
                    thread: Some(thread),
                };
                match term.office.is_stopped() {
                    true => Err(self.stopped()),
                    false => Ok(Some(term)),
                }
            }
            Some(outcome) => {
                let _ = thread.join();
                outcome.map(|_| None)
            }
            None => {
                office.leave();
                if !thread.is_finished() && self.is_stopped() {
                    return Err(self.stopped()); // the thread ends when the server replies
                }
                match thread.join() {
                    Err(panic) => resume_unwind(panic),
                    Ok(()) => Err(self.stopped()),
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(StopToken::is_stopped)
    }

    fn stopped(&self) -> Error {
        Error::Stopped {
            lock: self.info.clone(),
        }
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election")
            .field("lock", &self.info)
            .field("lease", &self.lease)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}
