//! From a connection to a term: waits for the lock, for earlier terms to end, and for their
//! transactions.

use std::time::Duration;

use super::keys::{Keys, random_number};
use super::lease::{Lease, Moment, TermClock};
use super::office::{Elected, Office};
use super::predecessor::{Caution, GRACE, Newcomer, Role, Sight, Verdict};
use super::settings::{Settings, Unfit};
use super::token::Token;
use super::{keeper, look};
use crate::driver::{Session, SessionHandle};
use crate::error::Error;
use crate::failure::Failure;
use crate::guard::LockGuard;
use crate::lock::Lock;
use crate::request::LockInfo;
use crate::sql::election as sql;

/// How long one message waits for the lock. Less than the server's `deadlock_timeout`, and so short
/// that no waiter's snapshot gets old.
const SLICE: Duration = Duration::from_millis(800);

/// The same while the holder's term is about to begin: only a holder that was seen in its term can
/// be known to have left it.
const SHORT_SLICE: Duration = Duration::from_millis(100);

/// What a candidate wants.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) info: LockInfo,
    pub(super) keys: Keys,
    pub(super) lease: Lease,
    pub(super) strict: bool,
    /// It does not wait for anybody.
    pub(super) tries: bool,
}

/// What a candidate remembers when its connection is lost.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) saw_a_holder: bool,
    /// A later error does not come from the settings.
    pub(super) settings_accepted: bool,
}

/// How a candidacy ends.
#[derive(Debug)]
pub(super) enum End {
    /// A term began, and is over.
    Served,
    /// Somebody else leads, or may still.
    Busy,
}

/// A candidate on its connection, with the lock or before it has the lock.
struct Stand<'c> {
    candidate: &'c Candidate,
    office: &'c Office,
    settings: &'c mut Settings,
}

impl Candidate {
    /// Stands for election on a connection, and serves the term. The connection is left as it was.
    pub(super) fn stand<S: Session>(
        &self,
        session: &mut S,
        office: &Office,
        memory: &mut Memory,
    ) -> Result<End, Error> {
        let applied = Settings::apply(session, &self.keys, self.lease);
        let mut settings = applied.map_err(|unfit| match unfit {
            Unfit::Lease(lease) => Error::Lease {
                lock: self.info.clone(),
                lease,
            },
            Unfit::Failure(failure) => self.error(failure),
        })?;
        let mut stand = Stand {
            candidate: self,
            office,
            settings: &mut settings,
        };
        let ended = stand.wait_for_the_lock(session, memory);
        if !session.is_broken() {
            let _ = settings.restore(session, &self.keys);
        }
        ended
    }

    pub(super) fn error(&self, failure: Failure) -> Error {
        Error::acquire(self.info.clone(), None, failure)
    }

    pub(super) fn stopped(&self) -> Error {
        Error::Stopped {
            lock: self.info.clone(),
        }
    }
}

impl Stand<'_> {
    fn wait_for_the_lock<S: Session>(
        &mut self,
        session: &mut S,
        memory: &mut Memory,
    ) -> Result<End, Error> {
        let mut sight = None;
        let mut timeout = Duration::ZERO;
        loop {
            self.go_on()?;
            let mut lock = Lock::new(&mut *session, &self.candidate.keys.lock)
                .timeout(timeout)
                .name_holders(false);
            match lock.acquire() {
                Ok(guard) => {
                    memory.settings_accepted = true;
                    return self.have_the_lock(guard, sight, memory);
                }
                Err(Error::Timeout { .. } | Error::Canceled { .. }) => {}
                Err(error) => return Err(error),
            }
            drop(lock);
            memory.settings_accepted = true;
            memory.saw_a_holder = true;
            if self.candidate.tries {
                return Ok(End::Busy);
            }
            let seen = look::at_holder(session, &self.candidate.keys);
            sight = seen
                .map_err(|failure| self.candidate.error(failure))?
                .or(sight);
            timeout = match sight.as_ref().map(|sight| sight.role) {
                Some(Role::Candidate { .. }) => SHORT_SLICE,
                _ => SLICE,
            };
        }
    }

    fn have_the_lock<H: SessionHandle>(
        &mut self,
        mut guard: LockGuard<H>,
        sight: Option<Sight>,
        memory: &mut Memory,
    ) -> Result<End, Error> {
        let elected = Moment::now();
        let session = &mut *guard;
        let doubt = self.doubt(session, sight, elected, memory.saw_a_holder)?;
        memory.saw_a_holder = true; // until the doubt is over
        if self.candidate.tries && doubt > GRACE {
            return Ok(End::Busy);
        }
        self.wait_until_surely_over(session, elected, doubt)?;
        if !self.take_office(session)? {
            return Ok(End::Busy);
        }
        if !self.begin(session)? {
            self.go_on()?;
            let source = "the server took longer than the lease to answer".into();
            return Err(self.candidate.error(Failure::Lost(source)));
        }
        let question = sql::question(&self.candidate.info);
        keeper::keep(session, self.office, &question);
        if let Err(error) = LockGuard::release(guard) {
            self.office.lose(error.into());
        }
        Ok(End::Served)
    }

    /// For how long an earlier term may still be on.
    fn doubt<S: Session>(
        &self,
        session: &mut S,
        sight: Option<Sight>,
        elected: Moment,
        saw_a_holder: bool,
    ) -> Result<Duration, Error> {
        let failed = |failure| self.candidate.error(failure);
        let caution = Caution {
            lease: self.settings.lease().length(),
            strict: self.candidate.strict,
        };
        let Some(sight) = sight else {
            let restarted = look::at_server(session).map_err(failed)?;
            let newcomer = Newcomer {
                saw_a_holder,
                restarted,
            };
            return Ok(newcomer.wait(caution));
        };
        loop {
            let fate = look::at_fate(session, &sight).map_err(failed)?;
            let late = Moment::now().surely_since(elected) > GRACE;
            let verdict = match sight.verdict(&fate, elected) {
                None if late => Verdict::Unknown,
                None => {
                    self.pause(Duration::from_millis(1))?;
                    continue;
                }
                Some(verdict) => verdict,
            };
            return Ok(sight.wait(verdict, caution));
        }
    }

    /// Waits, and asks the server meanwhile, so that it does not end this session.
    fn wait_until_surely_over<S: Session>(
        &self,
        session: &mut S,
        elected: Moment,
        doubt: Duration,
    ) -> Result<(), Error> {
        let question = sql::question(&self.candidate.info);
        loop {
            let left = doubt.saturating_sub(Moment::now().surely_since(elected));
            if left.is_zero() {
                return Ok(());
            }
            self.pause(left.min(SLICE / 4))?;
            let asked = keeper::ask(session, &question);
            asked.map_err(|failure| self.candidate.error(failure))?;
        }
    }

    /// Takes the term's own lock, and waits for the fenced transactions of earlier terms: first
    /// until no session holds an earlier term's lock, so that no more can begin, then for those
    /// that have begun.
    fn take_office<S: Session>(&mut self, session: &mut S) -> Result<bool, Error> {
        let keys = &self.candidate.keys;
        let failed = |failure| self.candidate.error(failure);
        while self.settings.number.is_none() {
            let number = random_number();
            let taken = session.query(&sql::try_lock(&keys.term(number)));
            if taken.map_err(failed)? == ["true"] {
                self.settings.number = Some(number);
            }
        }
        let others = sql::others_in_office(keys.class);
        while !session.query(&others).map_err(failed)?.is_empty() {
            self.pause(Duration::from_millis(1))?;
        }
        loop {
            let mut fence = Lock::new(&mut *session, &keys.fence).timeout(SLICE);
            match fence.try_run(|_| Ok::<_, Error>(())) {
                Ok(Some(())) => return Ok(true),
                Ok(None) if self.candidate.tries => return Ok(false),
                Ok(None) | Err(Error::Canceled { .. }) => self.go_on()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins the term. Returns `false` if nobody wants it any more, or if it is already over.
    fn begin<S: Session>(&self, session: &mut S) -> Result<bool, Error> {
        let lease = self.settings.lease();
        let asked = Moment::now();
        let lines = session.query(sql::TOKEN);
        let lines = lines.map_err(|failure| self.candidate.error(failure))?;
        let token = lines.first().and_then(|line| Token::read(line));
        let (Some(token), Some(number)) = (token, self.settings.number) else {
            let source = format!("expected a transaction and a WAL file, got {lines:?}").into();
            return Err(Error::Database {
                lock: self.candidate.info.clone(),
                source,
            });
        };
        let elected = Elected {
            lease,
            token,
            number,
        };
        Ok(self.office.begin(TermClock::start(lease, asked), elected))
    }

    fn pause(&self, time: Duration) -> Result<(), Error> {
        match self.office.rest(time) {
            true => Err(self.candidate.stopped()),
            false => Ok(()),
        }
    }

    fn go_on(&self) -> Result<(), Error> {
        match self.office.is_stopped() || self.office.is_left() {
            true => Err(self.candidate.stopped()),
            false => Ok(()),
        }
    }
}
