//! A candidate and leader by the rule of today, which is the program's own: only the messages are the model's.

use std::time::Duration;

use super::chance::Chance;
use super::server::{Lock, Op, Value};
use super::world::{Act, Actor, Features};
use crate::election::candidacy::{Answer, Ask, Candidacy};
use crate::held::clock::{Clock, Moment, Silence};

/// How long a message waits for a lock.
const SLICE: u64 = 300;

/// What of the rule is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Without {
    #[default]
    Nothing,
    /// Two can be head at a time.
    Head,
    /// A sign is given by whoever leaves.
    Condition,
    /// The silence is the candidate's own, whatever it has seen.
    Longest,
    Silence,
}

enum Stage {
    Joins,
    Stands(Candidacy),
    Leads(Candidacy, Clock),
    /// It lets the key go.
    Resigns,
    /// It waits for its sign to be seen.
    Lingers(Moment),
    Leaves,
    Closes,
}

pub(super) struct Today {
    without: Without,
    silence: Silence,
    tries: bool,
    at_once: bool,
    /// The longest silence that it has seen.
    seen: Duration,
    stage: Stage,
    asked: Moment,
    number: i32,
    signs: bool,
}

impl Today {
    fn again(&mut self) {
        self.seen = Duration::ZERO;
        self.stage = Stage::Joins;
    }

    fn see(&mut self, limits: &[u64]) -> Duration {
        let longest = limits.iter().max().copied().unwrap_or_default();
        self.seen = self.seen.max(Duration::from_millis(longest));
        match self.without {
            Without::Longest | Without::Silence => Duration::ZERO,
            _ => self.seen,
        }
    }

    fn ops(&mut self, ask: Ask, chance: &mut Chance) -> Option<Vec<Op>> {
        let wait = if self.tries { 0 } else { SLICE };
        let number = Lock::Term(self.number);
        Some(match ask {
            Ask::Head => vec![Op::Wait(Lock::Head, wait)],
            Ask::Look => vec![Op::Holder, Op::Number, Op::Limits, Op::Listen],
            Ask::Key => vec![Op::Wait(Lock::Key, wait)],
            Ask::Enter(seen) => {
                self.number = i32::try_from(chance.below(1 << 20)).unwrap();
                let sign = seen.map_or(Lock::Head, Lock::Sign);
                vec![
                    Op::CanShare(sign),
                    Op::IsFree(Lock::Term(self.number)),
                    Op::CanShare(Lock::Sign(self.number)),
                    Op::Share(Lock::Term(self.number)),
                    Op::Drop(seen.map_or(Lock::Head, Lock::Ear)),
                    Op::Drop(Lock::Head),
                ]
            }
            Ask::Hold => vec![Op::Holds(Lock::Key)],
            Ask::Begin => vec![Op::Holds(Lock::Key), Op::Try(number)],
            Ask::Rest(_) => return None,
        })
    }

    /// Also leaves a candidacy, now and then.
    fn stand(&mut self, ask: Ask, chance: &mut Chance) -> Act {
        let bored = matches!(ask, Ask::Rest(_)) && chance.per_mille(1);
        if bored {
            self.signs = self.without == Without::Condition;
            self.stage = match self.signs {
                true => Stage::Resigns,
                false => Stage::Leaves,
            };
        }
        match self.ops(ask, chance) {
            Some(ops) if !bored => Act::Send(ops),
            _ => Act::Nothing,
        }
    }

    fn answer(&mut self, ask: Ask, values: &[Value]) -> Answer {
        match (ask, values) {
            (Ask::Enter(None), _) => Answer::No,
            (Ask::Enter(Some(_)), [Value::No, ..]) => Answer::Yes, // the sign is held
            (Ask::Enter(Some(_)), _) => Answer::No,
            (Ask::Look, [_, Value::Number(number), Value::Limits(limits), _]) => {
                Answer::Seen(*number, self.see(limits))
            }
            (_, [Value::Yes, ..]) => Answer::Yes,
            _ => Answer::No,
        }
    }

    fn heard(&mut self, values: &[Value], now: Moment) {
        let Stage::Stands(candidacy) = &self.stage else {
            return;
        };
        let mut candidacy = candidacy.clone();
        let ask = candidacy.next(self.asked);
        if ask == Ask::Begin && values == [Value::Yes, Value::Yes] {
            let clock = Clock::start(self.silence, self.asked);
            self.stage = Stage::Leads(candidacy, clock);
            return;
        }
        let taken = |values: &[Value]| values[1..3] == [Value::Yes, Value::Yes];
        let waits = matches!(ask, Ask::Head | Ask::Key);
        let lost = values == [Value::No] && (ask == Ask::Hold || waits && self.tries);
        if lost || ask == Ask::Begin || matches!(ask, Ask::Enter(_)) && !taken(values) {
            self.stage = Stage::Leaves;
            return;
        }
        candidacy.hear(self.answer(ask, values), now);
        self.stage = Stage::Stands(candidacy);
    }

    fn lead(&mut self, now: Moment, chance: &mut Chance) -> Act {
        let Stage::Leads(candidacy, clock) = &mut self.stage else {
            return Act::Nothing;
        };
        if clock.is_over(now) {
            self.stage = Stage::Leaves;
        } else if chance.per_mille(10) {
            clock.end();
            let may = candidacy.may_sign(now);
            self.signs = may || self.without == Without::Condition;
            self.stage = Stage::Resigns;
        } else if clock.is_question_due(now) {
            return Act::Send(vec![Op::Holds(Lock::Term(self.number))]);
        }
        Act::Nothing
    }
}

impl Actor for Today {
    type Rule = Without;

    fn new(without: Without, features: Features, chance: &mut Chance) -> Self {
        let long = features.mixed && chance.per_mille(500);
        let silence = Duration::from_millis(if long { 3_000 } else { 1_000 });
        let zero = Moment {
            steady: Duration::ZERO,
            wall: Duration::ZERO,
        };
        Self {
            without,
            silence: Silence::new(silence).unwrap(),
            tries: chance.per_mille(200),
            at_once: features.at_once && chance.per_mille(300),
            seen: Duration::ZERO,
            stage: Stage::Joins,
            asked: zero,
            number: 0,
            signs: false,
        }
    }

    fn act(&mut self, now: Moment, chance: &mut Chance) -> Act {
        let silence = self.silence.time();
        let number = self.number;
        let (term, sign) = (Lock::Term(number), Lock::Sign(number));
        self.asked = now;
        let ops = match &mut self.stage {
            Stage::Joins => vec![Op::Limit(Some(silence.as_millis() as u64)), Op::Limits],
            Stage::Stands(candidacy) => {
                let ask = candidacy.next(now);
                return self.stand(ask, chance);
            }
            Stage::Leads(..) => return self.lead(now, chance),
            Stage::Resigns => match self.signs {
                true => vec![
                    Op::Try(sign),
                    Op::Drop(term),
                    Op::Drop(term),
                    Op::Drop(Lock::Key),
                ],
                false => vec![Op::Drop(term), Op::Drop(term), Op::Drop(Lock::Key)],
            },
            Stage::Lingers(_) if chance.per_mille(10) => {
                self.again(); // it does not wait until its sign is seen
                return Act::Exit;
            }
            Stage::Lingers(_) => vec![Op::Wait(Lock::Ear(number), SLICE)],
            Stage::Leaves => vec![Op::Clear],
            Stage::Closes => {
                self.again();
                return Act::Close;
            }
        };
        Act::Send(ops)
    }

    fn hear(&mut self, values: &[Value], now: Moment, _: &mut Chance) {
        let asked = self.asked;
        match &mut self.stage {
            Stage::Joins => {
                let seen = match values {
                    [_, Value::Limits(limits)] => self.see(limits),
                    _ => Duration::ZERO,
                };
                let silence = match self.without {
                    Without::Silence => Duration::ZERO,
                    _ => self.silence.time(),
                };
                let candidacy = Candidacy::new(self.at_once, silence, seen, now);
                self.stage = Stage::Stands(candidacy);
            }
            Stage::Stands(_) => self.heard(values, now),
            Stage::Leads(_, clock) if values == [Value::Yes] => clock.answered(asked, now),
            Stage::Leads(..) => self.stage = Stage::Leaves,
            Stage::Resigns if !self.signs => self.stage = Stage::Leaves,
            Stage::Resigns => self.stage = Stage::Lingers(now),
            Stage::Lingers(since) => {
                let over = now.since(*since) >= self.silence.time();
                if over || values == [Value::Yes] {
                    self.stage = Stage::Leaves;
                }
            }
            Stage::Leaves => self.stage = Stage::Closes,
            Stage::Closes => {}
        }
    }

    /// What it has seen it remembers.
    fn lose(&mut self) {
        self.stage = Stage::Joins;
    }

    fn gives_up(&mut self, silent: u64) -> bool {
        Duration::from_millis(silent) > 2 * self.silence.time()
    }

    fn is_on(&mut self, now: Moment) -> bool {
        match &mut self.stage {
            Stage::Leads(_, clock) => !clock.is_over(now),
            _ => false,
        }
    }

    fn may_overlap(&self) -> bool {
        self.at_once
    }

    fn could_know(&self, other: &Self) -> bool {
        other.silence.time() <= self.silence.time().max(self.seen)
    }
}
