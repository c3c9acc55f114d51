//! What a candidate asks the server next, and when its term may begin. Pure, as the clock is: the time comes
//! from outside, and `model` runs this very code.
//!
//! A term begins only if its leader was head of the line when the last leader resigned, and has seen that
//! leader's sign; or when a whole silence has passed since the key became its own. How a session ended, or
//! whether one is still there, proves nothing.
//!
//! The head holds a mutex, so nobody else can begin a term between its look at the holder and its own grant:
//! a sign of the term that it has looked at is the sign of the last one.

use std::time::Duration;

use crate::held::clock::Moment;

/// What to ask the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// To become head of the line.
    Head,
    /// Who holds the key, and how long the silences of all candidates and leaders are. If the holder has a
    /// number, to be waited for by that leader when it resigns.
    Look,
    /// For the key.
    Key,
    /// Whether there is a sign of the term that the head has looked at, before the head makes room for the next
    /// one; and for a number for its own term.
    Enter(Option<i32>),
    /// Whether the key is still its own.
    Hold,
    /// To begin the term.
    Begin,
    /// Nothing, for so long.
    Rest(Duration),
}

/// What the server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// The number of the holder's term, if it has one, and the longest silence that is known.
    Seen(Option<i32>, Duration),
}

impl Answer {
    pub(super) fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Candidacy {
    /// What it asks next. Once it has the key: whether that is still its own, until the silence is over.
    ask: Ask,
    /// Whether the term begins with the grant.
    at_once: bool,
    /// How long this session may be silent, and the longest silence that is known.
    own: Duration,
    silence: Duration,
    /// The number of the term that the head has looked at, whose sign it would see.
    pub(super) seen: Option<i32>,
    /// Whether the last leader has said that its term is over.
    pub(super) signed: bool,
    answered: Moment,
    granted: Moment,
}

impl Candidacy {
    /// In the line, with a silence of its own, and the longest that it knows.
    pub(super) fn new(at_once: bool, own: Duration, known: Duration, now: Moment) -> Self {
        Self {
            ask: Ask::Head,
            at_once,
            own,
            silence: own.max(known),
            seen: None,
            signed: false,
            answered: now,
            granted: now,
        }
    }

    pub(super) fn next(&self, now: Moment) -> Ask {
        let due = (self.own / 3).saturating_sub(now.since(self.answered));
        match self.ask {
            Ask::Hold if self.at_once || self.may_sign(now) => Ask::Begin,
            Ask::Hold if !due.is_zero() => Ask::Rest(due.min(self.left(now))),
            ask => ask,
        }
    }

    /// Takes the answer to what was asked.
    pub(super) fn hear(&mut self, answer: Answer, now: Moment) {
        self.answered = now;
        self.ask = match (self.ask, answer) {
            (Ask::Head, Answer::Yes) => Ask::Look,
            (Ask::Look, Answer::Seen(number, silence)) => {
                self.seen = number;
                self.silence = self.silence.max(silence);
                Ask::Key
            }
            (Ask::Key, Answer::Yes) => {
                self.granted = now;
                Ask::Enter(self.seen)
            }
            (Ask::Key, _) if self.seen.is_none() => Ask::Look,
            (Ask::Enter(_), answer) => {
                self.signed = answer == Answer::Yes;
                Ask::Hold
            }
            (ask, _) => ask,
        };
    }

    fn left(&self, now: Moment) -> Duration {
        self.silence.saturating_sub(now.surely_since(self.granted))
    }

    /// Whether all earlier terms are over: by a sign, or since the silence has passed. Only then may a leader
    /// give a sign when it resigns, since its sign says that of all.
    pub(super) fn may_sign(&self, now: Moment) -> bool {
        self.signed || self.left(now).is_zero()
    }
}
