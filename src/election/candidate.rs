//! From a connection to a term and its end: sends what the candidacy asks for, and leaves the connection as
//! it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::Election;
use super::candidacy::{Answer, Ask, Candidacy};
use super::keeper::Outcome;
use super::keys::random_number;
use super::line::{self, SLICE};
use super::token::Token;
use crate::driver::{BoxError, Failure, Session};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::held::clock::{Moment, Silence};
use crate::held::office::Office;
use crate::held::session::{self, Unlock};
use crate::key::Key;
use crate::lock::Lock;
use crate::request::Scope;
use crate::sql::election as sql;

/// How soon a head looks again at a holder without a number, the first time.
const SOON: Duration = Duration::from_millis(50);

/// A candidate in an election, and its office.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) election: Election,
    pub(super) silence: Silence,
    /// It does not wait for another leader.
    pub(super) tries: bool,
    pub(super) office: Arc<Office>,
}

/// A term that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elected {
    pub(super) silence: Silence,
    pub(super) token: Token,
    pub(super) number: i32,
}

/// Why a candidacy ends.
pub(super) enum Trouble {
    /// A message failed: what the session holds is not known.
    Failure(Failure),
    /// Between two messages.
    Error(Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A candidate on its connection, and what it changes there.
pub(super) struct Stand<'c, S> {
    pub(super) candidate: &'c Candidate,
    pub(super) session: &'c mut S,
    /// What the session holds, and how it is let go.
    pub(super) held: Vec<Unlock>,
    pub(super) silence: Silence,
    pub(super) number: i32,
}

pub(super) const EXCLUSIVE: &str = "pg_advisory_unlock";
const SHARED: &str = "pg_advisory_unlock_shared";

impl Candidate {
    /// Stands for election on a connection, and serves the term. Returns whether there was one. The connection is
    /// left as it was, or its session is ended.
    pub(super) fn stand<S: Session>(
        &self,
        session: &mut S,
        news: &Sender<Outcome>,
    ) -> Result<bool, Error> {
        let member = Lock::new(session, &self.election.keys.member).shared();
        let member = member.scope(Scope::Session).timeout(Duration::ZERO);
        let mut member = member.name_holders(false);
        let mut member = member.acquire()?;
        let mut stand = Stand {
            candidate: self,
            session: &mut *member,
            held: Vec::new(),
            silence: self.silence,
            number: random_number(),
        };
        let ended = stand.stand(news);
        let is_known = !matches!(ended, Err(Trouble::Failure(_)));
        session::leave(stand.session, &stand.held, is_known);
        let _ = LockGuard::release(member);
        ended.map_err(|trouble| match trouble {
            Trouble::Failure(failure) => self.failed(failure),
            Trouble::Error(error) => error,
        })
    }

    pub(super) fn failed(&self, failure: Failure) -> Error {
        Error::acquire(self.election.info.clone(), None, failure)
    }

    pub(super) fn no_connection(&self, source: BoxError) -> Error {
        let lock = self.election.info.clone();
        Error::Checkout {
            lock,
            in_use: false,
            source,
        }
    }

    /// Adds to what is known of silences, and returns the longest.
    fn know(&self, silence: Duration) -> Duration {
        let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        let before = self.election.known.fetch_max(millis, Ordering::SeqCst);
        Duration::from_millis(before.max(millis))
    }
}

impl<S: Session> Stand<'_, S> {
    fn stand(&mut self, news: &Sender<Outcome>) -> Result<bool, Trouble> {
        self.join()?;
        let Candidate {
            election, tries, ..
        } = self.candidate;
        let keys = &election.keys;
        let own = self.silence.time();
        let (known, now) = (self.candidate.know(own), Moment::now());
        let mut candidacy = Candidacy::new(election.at_once, own, known, now);
        let [slice, mut soon] =
            [SLICE, SOON].map(|slice| if *tries { Duration::ZERO } else { slice });
        loop {
            self.rest(Duration::ZERO)?;
            let ask = candidacy.next(Moment::now());
            let answer = match ask {
                Ask::Rest(time) => {
                    self.rest(time)?;
                    continue;
                }
                Ask::Begin => return self.serve(&candidacy, news),
                Ask::Head => self.wait(&keys.head, slice)?,
                Ask::Key if candidacy.listens() => self.wait(&keys.lock, slice)?,
                Ask::Key => {
                    soon = slice.min(soon * 2);
                    self.wait(&keys.lock, soon)?
                }
                Ask::Look => self.look()?,
                Ask::Enter(seen) => self.enter(seen)?,
                Ask::Hold => self.send(&sql::question(&keys.lock))?,
            };
            if *tries && answer == Answer::No && matches!(ask, Ask::Head | Ask::Key) {
                return Ok(false);
            }
            candidacy.hear(answer, Moment::now());
        }
    }

    /// Joins the line, if all that stand in it have the same silence. It is no longer than the server's own.
    fn join(&mut self) -> Result<(), Trouble> {
        let (keys, lock) = (&self.candidate.election.keys, || {
            self.candidate.election.info.clone()
        });
        let found = session::note(self.session)?;
        let limit = found.limit.unwrap_or(Duration::MAX);
        let silence = limit.min(self.silence.time());
        self.silence = Silence::new(silence).ok_or_else(|| {
            let (lock, lease) = (lock(), silence * 2);
            Trouble::Error(Error::InvalidLease { lock, lease })
        })?;
        let silence = self.silence.time();
        if session::settle(self.session, self.silence, found.pid)? != found.pid {
            return Err(Trouble::Error(Error::MovedSession { lock: lock() }));
        }
        self.candidate.office.heard();
        let mark = keys.mark(silence);
        self.send(&sql::join(&mark))?;
        self.held.push((mark, SHARED));
        let [longest, shortest] = line::look(self.session, keys)?.silences;
        self.candidate.know(longest);
        let other = if longest > silence { longest } else { shortest };
        match other == silence {
            true => Ok(()),
            false => Err(Trouble::Error(Error::OtherLease {
                lock: lock(),
                lease: silence * 2,
                other: other * 2,
            })),
        }
    }

    pub(super) fn send(&mut self, message: &str) -> Result<Answer, Failure> {
        self.session.send(message)?;
        self.candidate.office.heard();
        Ok(Answer::Yes)
    }

    pub(super) fn query(&mut self, query: &str) -> Result<Option<String>, Failure> {
        let mut lines = self.session.query(query)?;
        self.candidate.office.heard();
        Ok(lines.pop())
    }

    pub(super) fn wait(&mut self, key: &Key, slice: Duration) -> Result<Answer, Failure> {
        let had = line::wait(self.session, key, slice)?;
        self.candidate.office.heard();
        if had {
            self.held.push((key.clone(), EXCLUSIVE));
        }
        Ok(Answer::of(had))
    }

    fn look(&mut self) -> Result<Answer, Failure> {
        let seen = line::look(self.session, &self.candidate.election.keys)?;
        if let Some(number) = seen.number {
            let ear = self.candidate.election.keys.ear(number);
            if self.query(&sql::listen(&ear))?.as_deref() == Some("true") {
                self.held.push((ear, SHARED));
            }
        }
        let known = self.candidate.know(seen.silences[0]);
        Ok(Answer::Seen(seen.number, known))
    }

    fn enter(&mut self, seen: Option<i32>) -> Result<Answer, Failure> {
        let keys = &self.candidate.election.keys;
        let (term, sign) = (keys.term(self.number), keys.sign(self.number));
        let seen = seen.map(|seen| (keys.sign(seen), keys.ear(seen)));
        let enter = sql::enter(seen.as_ref(), &keys.head, &term, &sign);
        let line = self.query(&enter)?.unwrap_or_default();
        let ear = seen.map(|(_, ear)| ear);
        self.held
            .retain(|(held, _)| *held != keys.head && Some(held) != ear.as_ref());
        match line.split_once(' ') {
            Some((signed, "t")) => {
                self.held.push((term, SHARED));
                Ok(Answer::of(signed == "t"))
            }
            _ => Err(Failure::Lost("the number of the term is taken".into())),
        }
    }

    pub(super) fn rest(&self, time: Duration) -> Result<(), Trouble> {
        let lock = self.candidate.election.info.clone();
        match self.candidate.office.rest(time) {
            true => Err(Trouble::Error(Error::Stopped { lock })),
            false => Ok(()),
        }
    }
}
