//! From the key to the end of a term: begins it, keeps it, and lets the key go.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::candidacy::{Answer, Candidacy};
use super::candidate::{Candidate, EXCLUSIVE, Elected, Outcome, Stand, Trouble};
use super::line::SLICE;
use super::token::Token;
use crate::driver::{Failure, Session, insist};
use crate::held::clock::{Clock, Moment};
use crate::held::session::{self, reason};
use crate::request::Request;
use crate::sql::election as sql;
use crate::targets::Mode;

impl<S: Session> Stand<'_, S> {
    /// Begins the term, keeps it, and resigns.
    pub(super) fn serve(
        &mut self,
        candidacy: &Candidacy,
        news: &Sender<Outcome>,
    ) -> Result<bool, Trouble> {
        let (keys, office) = (&self.candidate.election.keys, &self.candidate.office);
        let (number, silence) = (self.number, self.silence);
        let term = keys.term(number);
        self.send(&sql::take_office(&keys.lock, &term))?;
        self.held.push((term.clone(), EXCLUSIVE));
        if !candidacy.is_signed() {
            self.wait_for_others()?;
        }
        let Some((asked, token)) = self.token()? else {
            return Ok(false);
        };
        if !office.begin(Clock::start(silence, asked)) {
            self.rest(Duration::ZERO)?;
            let late = "the server took longer than the lease to answer";
            return Err(Failure::Lost(late.into()).into());
        }
        let elected = Elected {
            silence,
            token,
            number,
        };
        let _ = news.send(Ok(Some(elected)));
        let term = Request::new(term.into()).lock;
        let _ = session::keep(self.session, office, Some(&term), String::new);
        if let Err(failure) = self.resign(candidacy) {
            office.lose(reason(failure));
            self.session.terminate(); // it may hold a sign
        }
        Ok(true)
    }

    /// Waits until no session holds an earlier term's lock, so that no transaction can be fenced by it. There
    /// can be one only while its session is ending.
    fn wait_for_others(&mut self) -> Result<(), Trouble> {
        let keys = &self.candidate.election.keys;
        let others = sql::others_in_office(&keys.lock, &keys.member, keys.class);
        let start = Instant::now();
        while self.query(&others)?.is_some() && start.elapsed() < self.silence.time() {
            self.rest(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Waits for the fenced transactions of earlier terms, and takes a token. Returns when it was asked for.
    fn token(&mut self) -> Result<Option<(Moment, Token)>, Trouble> {
        let Candidate {
            election, tries, ..
        } = self.candidate;
        let keys = &election.keys;
        loop {
            let asked = Moment::now();
            let line = self.query(&sql::token(&keys.lock, &keys.fence))?;
            match line.and_then(|line| Token::read(&line)) {
                Some(token) => return Ok(Some((asked, token))),
                None if *tries => return Ok(None),
                None => self.rest(Duration::ZERO)?,
            }
            self.send(&sql::question(&keys.lock))?;
            self.send(&sql::wait_for_end(&keys.fence, Mode::Exclusive, SLICE))?;
        }
    }

    /// Lets the key go. If it may give a sign, gives it first, and waits until the head has seen it.
    fn resign(&mut self, candidacy: &Candidacy) -> Result<(), Failure> {
        let keys = &self.candidate.election.keys;
        let (term, sign) = (keys.term(self.number), keys.sign(self.number));
        let since = Moment::now();
        let sign = candidacy.may_sign(since).then_some(sign);
        let resign = sql::resign(sign.as_ref(), &term, &keys.lock);
        insist(|| self.session.send(&resign))?;
        self.held
            .retain(|(held, _)| *held != term && *held != keys.lock);
        let Some(sign) = sign else { return Ok(()) };
        self.held.push((sign, EXCLUSIVE));
        let ear = keys.ear(self.number);
        while Moment::now().since(since) < self.silence.time() {
            if self.wait(&ear, SLICE)? == Answer::Yes {
                break;
            }
        }
        Ok(())
    }
}
