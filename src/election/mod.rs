//! Terms: who leads, for how long, and what that is worth.
#![doc = ""]
#![doc = include_str!("../guide/leaders.md")]
//!
//! `docs/elections.md` in the repository says what each part is worth, what it rests on, and what happens at a kill, a
//! freeze, a crash and a failover.

mod candidacy;
mod candidate;
mod fenced;
mod keys;
mod leader;
#[cfg(test)]
mod model;
mod tenure;
mod term;
mod token;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use candidate::{Candidate, Outcome};
use keys::Keys;

pub use leader::{Observe, leader, observe};
pub use term::Term;
pub use token::Token;

use crate::driver::LockBackend;
use crate::error::Error;
use crate::failure::BoxError;
use crate::held::clock::Silence;
use crate::held::office::Office;
use crate::key::IntoKey;
use crate::request::{DEFAULT_LEASE, Request};
use crate::stop::StopToken;
use crate::targets::LockInfo;

/// The first and the longest pause before another attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Connects, stands for election, and serves the term.
type Run = dyn Fn(&Candidate, &Sender<Outcome>) -> Result<(), Error> + Send + Sync;

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
    at_once: bool,
    stop: StopToken,
    /// The longest silence that any candidate of this process has seen, in milliseconds. Zero: none has stood
    /// in this election yet.
    known: Arc<AtomicU64>,
}

impl Election {
    /// An election of that name, in the database that `connect` connects to. The name is whatever a
    /// [`Key`](crate::Key) is made from, such as `key!("scheduler:{region}")`.
    ///
    /// `connect` is called in each campaign, and again if the connection is lost in it. It returns
    /// a connection for the election alone, which the leader keeps for its term:
    /// `Client::connect(…)`, `PgConnection::establish(…)`, or `pool.get()`. It must lead to the
    /// server itself, or through a pooler in session mode.
    pub fn new<C: LockBackend, E: Into<BoxError>>(
        connect: impl Fn() -> Result<C, E> + Send + Sync + 'static,
        name: impl IntoKey,
    ) -> Self {
        let keys = Keys::of(&name.into());
        Self {
            run: Arc::new(move |candidate, news| candidate.stand(&connect, news)),
            info: Request::new(keys.lock.clone().into()).lock,
            keys,
            lease: DEFAULT_LEASE,
            at_once: false,
            stop: StopToken::new(),
            known: Arc::default(),
        }
    }

    /// Sets the lease: for how long after its last sign of life a leader can keep others out. Defaults to
    /// 10 s; it must be at least 2 s.
    ///
    /// Half of it is the silence. The server ends the leader's session after that much of it, and the leader
    /// asks three times as often. A successor that has not been told that the last term is over waits for
    /// another. So after a leader that was cut off or frozen the next one begins within a lease, after one that
    /// crashed or was killed within half a lease, and a candidate that finds nobody waits half a lease too. If the
    /// server's `idle_session_timeout` is shorter for the connection's user than the silence, the lease becomes
    /// twice as long as that ([`Term::lease`]).
    ///
    /// All candidates must have the same: who sees another's is refused ([`Error::OtherLease`]). A longer one can
    /// be brought in process by process, since nobody stands with it until the last one with the old has left. For a
    /// shorter one, stop all of them first.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Lets the term begin as soon as the lock is granted, even if the last leader may not know yet that its
    /// term is over. For work of which everything goes through [`Term::fenced`], or to receivers that check the
    /// [`Term::token`]: these tell the terms apart, however they overlap.
    ///
    /// ```
    /// # fn main() -> anyhow::Result<()> {
    /// # #[cfg(feature = "postgres")] {
    /// # use postgres::{Client, NoTls};
    /// use pglock::election::Election;
    ///
    /// # let url = std::env::var("DATABASE_URL")?;
    /// # let mut conn = Client::connect(&url, NoTls)?;
    /// let election = Election::new(move || Client::connect(&url, NoTls), "doc:at-once").at_once();
    /// election.run(|term| term.fenced(&mut conn, |tx| anyhow::Ok(tx.batch_execute("SELECT 'settle'")?)))?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Lets a token stop the election: a campaign ends with [`Error::Stopped`] within a second, or within two if the
    /// server is silent, and a term [is over](Term::is_over) for its leader, who still holds the lock until it resigns.
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
        self.stop = token.clone();
        self
    }

    /// Waits to be elected, runs the body, and resigns.
    ///
    /// # Errors
    ///
    /// Those of [`campaign`](Election::campaign) and of the body, and [`Error::LockLost`] if the term
    /// was over before the body returned `Ok`. A panic of the body resigns.
    pub fn run<T, E: From<Error>>(&self, body: impl FnOnce(&Term) -> Result<T, E>) -> Result<T, E> {
        led(self.campaign()?, body)
    }

    /// As [`run`](Election::run), but only if nobody leads, or is about to: see
    /// [`try_campaign`](Election::try_campaign). Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`try_campaign`](Election::try_campaign), of the body, and [`Error::LockLost`] as in
    /// [`run`](Election::run).
    pub fn try_run<T, E: From<Error>>(
        &self,
        body: impl FnOnce(&Term) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        self.try_campaign()?.map(|term| led(term, body)).transpose()
    }

    /// Waits to be elected.
    ///
    /// A connection that cannot be made, that is lost, or on which nothing comes for a lease, is replaced, for as
    /// long as it takes: [`stop_on`](Election::stop_on) bounds that, and [`try_campaign`](Election::try_campaign)
    /// says what is wrong. The wait costs the server a message or two a second.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidLease`]: no term can be held with that lease. [`Error::OtherLease`]: others stand with another.
    /// - [`Error::Stopped`]: see [`stop_on`](Election::stop_on).
    /// - [`Error::InTransaction`]: the connection is in a transaction.
    /// - [`Error::InRecovery`], if the first connection leads to a standby, and any other error of the
    ///   server, as in [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Panics
    ///
    /// If the function that connects panics.
    pub fn campaign(&self) -> Result<Term, Error> {
        self.elect(false)?.ok_or_else(|| self.stopped())
    }

    /// Campaigns without waiting for another leader. Returns `None` if somebody leads, or is about to.
    ///
    /// If nobody does, it takes half a lease, in which a leader that was cut off would end its term, unless
    /// the election begins [at once](Election::at_once).
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
    /// As [`campaign`](Election::campaign); [`Error::Checkout`]: there is no connection;
    /// [`Error::ConnectionLost`]: it was lost, or nothing came for a lease.
    ///
    /// # Panics
    ///
    /// If the function that connects panics.
    pub fn try_campaign(&self) -> Result<Option<Term>, Error> {
        self.elect(true)
    }

    /// The election's lock, as errors name it.
    #[must_use]
    pub fn lock_info(&self) -> &LockInfo {
        &self.info
    }

    /// Stands, on one connection after the other, until a candidacy ends well or cannot.
    fn elect(&self, tries: bool) -> Result<Option<Term>, Error> {
        let silence = Silence::new(self.lease / 2).ok_or_else(|| Error::InvalidLease {
            lock: self.info.clone(),
            lease: self.lease,
        })?;
        let (stop, lease) = (&self.stop, silence.time() * 2);
        let (mut pause, mut patience) = (PAUSES[0], lease);
        loop {
            let (start, office) = (Instant::now(), Arc::new(Office::new(stop.clone())));
            let candidate = Candidate {
                election: self.clone(),
                silence,
                tries,
                office: Arc::clone(&office),
            };
            match Term::begin(candidate, patience) {
                _ if stop.is_stopped() => return Err(self.stopped()),
                Ok(outcome) => return Ok(outcome),
                Err(error) if tries || !self.is_transient(&error) => return Err(error),
                Err(_) if stop.wait(pause) => return Err(self.stopped()),
                Err(_) => {
                    let (stood, silent) = (start.elapsed(), office.silent());
                    patience = next_patience(lease, patience, stood, silent);
                    pause = match stood > PAUSES[1] * 2 {
                        true => PAUSES[0],
                        false => PAUSES[1].min(pause * 2),
                    };
                }
            }
        }
    }

    /// Whether another connection may do better. A standby is reported, unless a primary was there before.
    fn is_transient(&self, error: &Error) -> bool {
        match error {
            Error::Checkout { .. }
            | Error::ConnectionLost { .. }
            | Error::LockLost { .. }
            | Error::Canceled { .. } => true,
            Error::InRecovery { .. } => self.known.load(Ordering::SeqCst) > 0,
            _ => false,
        }
    }

    fn stopped(&self) -> Error {
        Error::Stopped {
            lock: self.info.clone(),
        }
    }
}

/// How long the next candidate may be silent, after one that stood for so long and was silent at last. If it was so
/// from its first message on, the way may be that slow.
fn next_patience(lease: Duration, last: Duration, stood: Duration, silent: Duration) -> Duration {
    match silent > last && stood.saturating_sub(silent) < lease {
        true => last * 2,
        false => lease,
    }
}

fn led<T, E: From<Error>>(term: Term, body: impl FnOnce(&Term) -> Result<T, E>) -> Result<T, E> {
    let value = body(&term)?;
    term.resign()?;
    Ok(value)
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election")
            .field("lock", &self.info)
            .field("lease", &self.lease)
            .field("at_once", &self.at_once)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_silent_from_the_beginning_gets_more_patience() {
        let secs = Duration::from_secs;
        let next =
            |last, stood, silent| next_patience(secs(2), secs(last), secs(stood), secs(silent));
        assert_eq!(next(2, 3, 3), secs(4), "it never answered");
        assert_eq!(next(4, 5, 5), secs(8), "nor did the next");
        assert_eq!(next(4, 60, 5), secs(2), "it answered for a minute");
        assert_eq!(next(8, 60, 0), secs(2), "its session was ended");
    }
}
