//! From a connection to the key: sends what the candidacy asks for, and leaves the connection as it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::Election;
use super::candidacy::{Answer, Ask, Candidacy};
use super::keys::random_number;
use super::token::Token;
use crate::driver::{BoxError, Failure, LockBackend, Session};
use crate::error::Error;
use crate::failure::answer;
use crate::held::clock::{Moment, Silence};
use crate::held::office::Office;
use crate::held::session::{self, Unlock};
use crate::key::Key;
use crate::lock::Lock;
use crate::lock::guard::LockGuard;
use crate::request::Scope;
use crate::sql;
use crate::sql::election::{self as ask, YES};

/// How long one message waits. Less than the server's `deadlock_timeout`, and so short that no waiter's
/// snapshot gets old.
pub(super) const SLICE: Duration = Duration::from_millis(800);

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

/// The outcome of a candidacy. `None`: somebody else leads, or may still lead.
pub(super) type Outcome = Result<Option<Elected>, Error>;

/// A candidate on its connection, and what it changes there.
pub(super) struct Stand<'c, S> {
    pub(super) candidate: &'c Candidate,
    pub(super) session: &'c mut S,
    /// What the session holds, and how it is let go.
    pub(super) held: Vec<Unlock>,
    pub(super) silence: Silence,
    /// The server process.
    pub(super) pid: Option<i32>,
    pub(super) number: i32,
}

pub(super) const EXCLUSIVE: &str = "pg_advisory_unlock";
const SHARED: &str = "pg_advisory_unlock_shared";

impl Candidate {
    /// Connects, stands for election, and serves the term, of which it tells when it begins. The connection is
    /// left as it was, or its session is ended.
    pub(super) fn stand<C: LockBackend, E: Into<BoxError>>(
        &self,
        connect: &impl Fn() -> Result<C, E>,
        news: &Sender<Outcome>,
    ) -> Result<(), Error> {
        let no_connection = |source| self.no_connection(source);
        let mut backend = connect().map_err(|error| no_connection(error.into()))?;
        let mut session = backend.session().map_err(no_connection)?;
        self.office.heard();
        let member = Lock::new(&mut *session, &self.election.keys.member).shared();
        let member = member.scope(Scope::Session).timeout(Duration::ZERO);
        let mut member = member.name_holders(false);
        let mut member = member.acquire()?;
        let mut stand = Stand {
            candidate: self,
            session: &mut *member,
            held: Vec::new(),
            silence: self.silence,
            pid: None,
            number: random_number(),
        };
        let ended = stand.stand(news);
        // After a message that failed, what the session holds is not known.
        let is_known = matches!(
            ended,
            Ok(())
                | Err(Error::Stopped { .. } | Error::InvalidLease { .. })
                | Err(Error::OtherLease { .. } | Error::MovedSession { .. })
        );
        session::leave(stand.session, &stand.held, is_known);
        let _ = LockGuard::release(member);
        ended
    }

    pub(super) fn failed(&self, failure: Failure) -> Error {
        Error::acquire(self.election.info.clone(), None, failure)
    }

    pub(super) fn no_connection(&self, source: BoxError) -> Error {
        Error::no_session(&self.election.info, false, source)
    }

    /// Adds to what is known of silences, and returns the longest.
    fn know(&self, silence: Duration) -> Duration {
        let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        let before = self.election.known.fetch_max(millis, Ordering::SeqCst);
        Duration::from_millis(before.max(millis))
    }
}

impl<S: Session> Stand<'_, S> {
    fn stand(&mut self, news: &Sender<Outcome>) -> Result<(), Error> {
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
                Ask::Key if candidacy.seen.is_some() => self.wait(&keys.lock, slice)?,
                Ask::Key => {
                    soon = slice.min(soon * 2);
                    self.wait(&keys.lock, soon)?
                }
                Ask::Look => self.watch()?,
                Ask::Enter(seen) => self.enter(seen)?,
                Ask::Hold => {
                    let held = sql::held_by_session(&election.info);
                    self.hear(|session| answer(session.prepared("", &held)))?;
                    Answer::Yes
                }
            };
            if *tries && answer == Answer::No && matches!(ask, Ask::Head | Ask::Key) {
                return Ok(());
            }
            candidacy.hear(answer, Moment::now());
        }
    }

    /// Joins the line, if all that stand in it have the same silence. It is no longer than the server's own.
    fn join(&mut self) -> Result<(), Error> {
        let Election { keys, info, .. } = &self.candidate.election;
        let silence = self.silence.time();
        (self.silence, self.pid) = session::settle(self.session, silence, 2, info)?;
        self.candidate.office.heard();
        let silence = self.silence.time();
        let mark = keys.mark(silence);
        let join = ["SELECT ", &sql::call("pg_advisory_lock_shared", &mark)].concat();
        self.hear(|session| session.send(&join))?;
        self.held.push((mark, SHARED));
        let (_, [longest, shortest]) = self.look()?;
        if longest.is_zero() {
            let lock = info.clone(); // not even its own mark is there
            return Err(Error::MovedSession { lock });
        }
        self.candidate.know(longest);
        let other = if longest > silence { longest } else { shortest };
        match other == silence {
            true => Ok(()),
            false => Err(Error::OtherLease {
                lock: info.clone(),
                lease: silence * 2,
                other: other * 2,
            }),
        }
    }

    /// Sends a message, and notes that the server has answered.
    pub(super) fn hear<T>(
        &mut self,
        send: impl FnOnce(&mut S) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let answer = send(self.session).map_err(|failure| self.candidate.failed(failure))?;
        self.candidate.office.heard();
        Ok(answer)
    }

    pub(super) fn query(&mut self, query: &str) -> Result<Option<String>, Error> {
        self.hear(|session| session.query(query).map(|mut lines| lines.pop()))
    }

    /// Waits for a lock. Returns whether the session has it.
    pub(super) fn wait(&mut self, key: &Key, slice: Duration) -> Result<Answer, Error> {
        let wait = ask::wait(key, slice);
        let lines = self.hear(|session| session.message(&wait, ask::HAD))?;
        let had = lines.last().is_some_and(|had| had == YES);
        if had {
            self.held.push((key.clone(), EXCLUSIVE));
        }
        Ok(Answer::of(had))
    }

    /// Reads the number of the holder's term, and the longest and the shortest silence of all members.
    fn look(&mut self) -> Result<(Option<i32>, [Duration; 2]), Error> {
        let look = self.candidate.election.keys.marks.clone() + ask::LOOK;
        let line = self.query(&look)?.unwrap_or_default();
        let mut words = line.split(' ').map(|word| word.parse::<u64>().ok());
        let mut next = || words.next().flatten();
        let number = next().and_then(|number| i32::try_from(number).ok());
        let silences = [(); 2].map(|()| next().map_or(Duration::ZERO, Duration::from_millis));
        Ok((number, silences))
    }

    /// Looks at the holder, and listens for its sign, unless its leader has already found that nobody does.
    fn watch(&mut self) -> Result<Answer, Error> {
        let (number, [longest, _]) = self.look()?;
        if let Some(number) = number {
            let ear = self.candidate.election.keys.ear(number);
            let listens = self.query(&ask::asks("pg_try_advisory_lock_shared", &ear))?;
            if listens.as_deref() == Some(YES) {
                self.held.push((ear, SHARED));
            }
        }
        Ok(Answer::Seen(number, self.candidate.know(longest)))
    }

    fn enter(&mut self, seen: Option<i32>) -> Result<Answer, Error> {
        let keys = &self.candidate.election.keys;
        let (term, sign) = (keys.term(self.number), keys.sign(self.number));
        let seen = seen.map(|seen| (keys.sign(seen), keys.ear(seen)));
        let enter = ask::enter(seen.as_ref(), &keys.head, &term, &sign);
        let line = self.query(&enter)?.unwrap_or_default();
        let ear = seen.map(|(_, ear)| ear);
        self.held
            .retain(|(held, _)| *held != keys.head && Some(held) != ear.as_ref());
        match line.split_once(' ') {
            Some((signed, "t")) => {
                self.held.push((term, SHARED));
                Ok(Answer::of(signed == "t"))
            }
            _ => {
                let taken = Failure::Lost("the number of the term is taken".into());
                Err(self.candidate.failed(taken))
            }
        }
    }

    pub(super) fn rest(&self, time: Duration) -> Result<(), Error> {
        let lock = self.candidate.election.info.clone();
        match self.candidate.office.rest(time) {
            true => Err(Error::Stopped { lock }),
            false => Ok(()),
        }
    }
}
