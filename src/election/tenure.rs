//! From the key to the end of a term: begins it, keeps it, and lets the key go.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::candidacy::{Answer, Candidacy};
use super::candidate::{Candidate, EXCLUSIVE, Elected, Outcome, SLICE, Stand};
use super::token::Token;
use crate::driver::{Failure, Refusal, Session, insist};
use crate::error::Error;
use crate::held::clock::{Clock, Moment};
use crate::held::session::{self, Question};
use crate::key::Key;
use crate::request::Request;
use crate::sql::election as sql;
use crate::targets::Mode;

impl<S: Session> Stand<'_, S> {
    /// Begins the term, keeps it, and resigns.
    pub(super) fn serve(
        &mut self,
        candidacy: &Candidacy,
        news: &Sender<Outcome>,
    ) -> Result<(), Error> {
        let (keys, office) = (&self.candidate.election.keys, &self.candidate.office);
        let (number, silence) = (self.number, self.silence);
        let term = keys.term(number);
        let take_office = sql::take_office(&keys.lock, &term);
        self.hear(|session| session.send(&take_office))?;
        self.held.push((term.clone(), EXCLUSIVE));
        if !candidacy.signed {
            self.wait_for_others()?;
        }
        let Some((asked, token)) = self.token()? else {
            return Ok(());
        };
        if !office.begin(Clock::start(silence, asked)) {
            self.rest(Duration::ZERO)?;
            let late = "the server took longer than the lease to answer";
            return Err(self.candidate.failed(Failure::Lost(late.into())));
        }
        let elected = Elected {
            silence,
            token,
            number,
        };
        let _ = news.send(Ok(Some(elected)));
        let term = Request::new(term.into()).lock;
        let question = Question {
            lock: Some(&term),
            pid: self.pid,
            label: String::new,
        };
        let _ = session::keep(self.session, office, &question);
        if let Err(error) = self.resign(candidacy) {
            office.lose(error);
            self.session.terminate(); // it may hold a sign
        }
        Ok(())
    }

    /// Waits until no session holds an earlier term's lock, so that no transaction can be fenced by it. There
    /// can be one only while its session is ending.
    fn wait_for_others(&mut self) -> Result<(), Error> {
        let others = self.candidate.election.keys.marks.clone() + sql::OTHERS_IN_OFFICE;
        let start = Instant::now();
        while self.query(&others)?.is_some() && start.elapsed() < self.silence.time() {
            self.rest(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Waits for the fenced transactions of earlier terms, and takes a token. Returns when it was asked for.
    fn token(&mut self) -> Result<Option<(Moment, Token)>, Error> {
        let Candidate {
            election, tries, ..
        } = self.candidate;
        let keys = &election.keys;
        let wait = sql::wait_for_end(&keys.fence, Mode::Exclusive, SLICE);
        loop {
            let asked = Moment::now();
            let line = self.query(&sql::token(&keys.lock, &keys.fence))?;
            let not_held = || self.candidate.failed(Failure::Refused(Refusal::NotHeld));
            match Token::read(&line.ok_or_else(not_held)?) {
                Some(token) => return Ok(Some((asked, token))),
                None if *tries => return Ok(None),
                None => self.rest(Duration::ZERO)?,
            }
            self.hear(|session| session.send(&wait))?;
        }
    }

    /// Whoever has only just become head has not looked at this term yet: it would see no sign. One that is frozen
    /// is not waited for.
    fn let_the_head_look(&mut self, ear: &Key) {
        let is_deaf = sql::is_deaf(&self.candidate.election.keys.head, ear);
        let start = Instant::now();
        while start.elapsed() < self.silence.time() / 10
            && matches!(self.query(&is_deaf), Ok(Some(deaf)) if deaf == sql::YES)
        {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets the key go. If it may give a sign, gives it first, and waits until the head has seen it.
    fn resign(&mut self, candidacy: &Candidacy) -> Result<(), Error> {
        let (candidate, number) = (self.candidate, self.number);
        let keys = &candidate.election.keys;
        let (term, sign, ear) = (keys.term(number), keys.sign(number), keys.ear(number));
        let since = Moment::now();
        let sign = candidacy.may_sign(since).then_some(sign);
        if sign.is_some() {
            self.let_the_head_look(&ear);
        }
        let resign = sql::resign(sign.as_ref(), &term, &keys.lock);
        self.hear(|session| insist(|| session.send(&resign)))?;
        self.held
            .retain(|(held, _)| *held != term && *held != keys.lock);
        let Some(sign) = sign else { return Ok(()) };
        self.held.push((sign, EXCLUSIVE));
        while Moment::now().since(since) < self.silence.time() {
            if self.wait(&ear, SLICE)? == Answer::Yes {
                break;
            }
        }
        Ok(())
    }
}
