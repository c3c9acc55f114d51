//! What a candidate asks the server next, and when its term may begin. Pure, like `lease`: the time comes
//! from outside, and `model` runs this very code.
//!
//! A term begins only if its leader was head of the line when the last leader resigned, and has seen that
//! leader's sign; or when a whole silence has passed since the key became its own. How a session ended, or
//! whether one is still there, proves nothing.
//!
//! The head holds a mutex, so nobody else can begin a term between its look at the holder and its own grant:
//! a sign of the term that it has looked at is the sign of the last one.

use std::time::Duration;

use super::lease::Moment;

/// What to ask the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// To become head of the line.
    Head,
    /// Who holds the key, and how long the silences of all candidates and leaders are.
    Look,
    /// To be waited for by the leader of that term, when it resigns.
    Listen(i32),
    /// For the key.
    Key,
    /// Whether there is a sign of the term that the head has looked at, before the head makes room for the next
    /// one, and takes a number for its own term.
    Enter(Option<i32>),
    /// Whether the key is still its own.
    Hold,
    /// To begin the term.
    Begin,
    /// Nothing, for so long.
    Rest(Duration),
    /// Nothing any more: somebody else leads.
    GiveUp,
}

/// What the server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// The number of the holder's term, if it has one, and the longest silence of all.
    Seen(Option<i32>, Duration),
}

/// How an election is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Manner {
    /// It does not wait for another leader.
    pub(super) tries: bool,
    /// Its term begins with the grant of the key.
    pub(super) at_once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Line,
    Look,
    Listen,
    Key,
    Enter,
    Silence,
    Over,
}

#[derive(Debug, Clone)]
pub(super) struct Candidacy {
    manner: Manner,
    stage: Stage,
    /// The longest silence that is known.
    silence: Duration,
    /// How long this session may be silent.
    own: Duration,
    /// The number of the term that the head has looked at.
    seen: Option<i32>,
    answered: Moment,
    granted: Moment,
    signed: bool,
}

impl Candidacy {
    /// In the line, with a silence of its own, and the longest that it knows.
    pub(super) fn new(manner: Manner, own: Duration, known: Duration, now: Moment) -> Self {
        Self {
            manner,
            stage: Stage::Line,
            silence: own.max(known),
            own,
            seen: None,
            answered: now,
            granted: now,
            signed: false,
        }
    }

    /// The longest silence that is known.
    pub(super) fn silence(&self) -> Duration {
        self.silence
    }

    pub(super) fn next(&self, now: Moment) -> Ask {
        match self.stage {
            Stage::Line => Ask::Head,
            Stage::Look => Ask::Look,
            Stage::Listen => self.seen.map_or(Ask::Key, Ask::Listen),
            Stage::Key => Ask::Key,
            Stage::Enter => Ask::Enter(self.seen),
            Stage::Silence => self.next_in_silence(now),
            Stage::Over => Ask::GiveUp,
        }
    }

    fn next_in_silence(&self, now: Moment) -> Ask {
        let left = match self.signed || self.manner.at_once {
            true => Duration::ZERO,
            false => self.succession().left(now),
        };
        if left.is_zero() {
            return Ask::Begin;
        }
        let due = (self.own / 3).saturating_sub(now.since(self.answered));
        match due.is_zero() {
            true => Ask::Hold,
            false => Ask::Rest(left.min(due)),
        }
    }

    /// Takes the answer to what was asked.
    pub(super) fn hear(&mut self, answer: Answer, now: Moment) {
        self.answered = now;
        self.stage = match (self.stage, answer) {
            (Stage::Line | Stage::Key, Answer::No) if self.manner.tries => Stage::Over,
            (Stage::Line, Answer::Yes) if self.manner.tries => Stage::Key,
            (Stage::Line, Answer::Yes) => Stage::Look,
            (Stage::Look, Answer::Seen(number, silence)) => {
                self.seen = number;
                self.silence = self.silence.max(silence);
                Stage::Listen
            }
            (Stage::Listen, _) => Stage::Key,
            (Stage::Key, Answer::Yes) => {
                self.granted = now;
                Stage::Enter
            }
            (Stage::Key, _) if self.seen.is_none() => Stage::Look,
            (Stage::Enter, answer) => {
                self.signed = answer == Answer::Yes;
                Stage::Silence
            }
            (Stage::Silence, Answer::No) => Stage::Over,
            (stage, _) => stage,
        };
    }

    /// How the key was had, once it is.
    pub(super) fn succession(&self) -> Succession {
        Succession {
            granted: self.granted,
            silence: self.silence,
            signed: self.signed,
        }
    }
}

/// How a term came to the key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Succession {
    granted: Moment,
    silence: Duration,
    signed: bool,
}

impl Succession {
    /// What is left of the silence.
    fn left(self, now: Moment) -> Duration {
        self.silence.saturating_sub(now.surely_since(self.granted))
    }

    /// Whether the term's leader may give a sign when it resigns. A sign says that *all* terms are over, so
    /// before the silence has passed, only who has seen one may pass it on.
    pub(super) fn may_sign(self, now: Moment) -> bool {
        self.signed || self.left(now).is_zero()
    }
}
