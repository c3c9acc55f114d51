//! A candidate by the rule of before: it finds out how the last holder's session ended.

use std::time::Duration;

use super::chance::Chance;
use super::server::{Activity, Lock, Message, Op, Value};
use super::world::{Act, Actor, Features};
use crate::election::lease::{Lease, Moment, TermClock};
use crate::election::predecessor::{Caution, Ends, Fate, GRACE, Newcomer, Role, Sight};

const LEASE: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Enters,
    Waits,
    Looks,
    Judges,
    Doubts(Moment, Duration),
    Begins,
    Leads,
    Leaves,
    Closes,
}

pub(super) struct Old {
    stage: Stage,
    lease: Lease,
    sight: Option<Sight>,
    saw_a_holder: bool,
    elected: Option<Moment>,
    asked: Moment,
    term: Option<TermClock>,
}

fn lease() -> Lease {
    Lease::new(Duration::from_millis(LEASE)).unwrap()
}

fn zero() -> Moment {
    Moment {
        steady: Duration::ZERO,
        wall: Duration::ZERO,
    }
}

impl Old {
    fn caution(&self) -> Caution {
        Caution {
            lease: self.lease.length(),
            strict: true,
        }
    }

    fn looked(&mut self, values: &[Value], now: Moment) {
        let [
            Value::Holder(Some(pid)),
            Value::Number(number),
            Value::Activity(activity),
            Value::Ends(ends),
        ] = values
        else {
            return;
        };
        let lease = self.lease.length();
        self.sight = Some(Sight {
            pid: i32::try_from(*pid).unwrap(),
            began: None,
            role: match number {
                Some(_) => Role::Leader { lease },
                None => Role::Candidate { lease },
            },
            idle: match activity {
                Activity::InTerm(idle) => Some(Duration::from_millis(*idle)),
                _ => None,
            },
            ends: read(*ends),
            at: now,
        });
    }

    fn judged(&mut self, values: &[Value], now: Moment) {
        let elected = *self.elected.get_or_insert(now);
        let doubt = match (&self.sight, values) {
            (Some(sight), [.., Value::Activity(activity), Value::Ends(ends)]) => {
                let fate = match activity {
                    Activity::Gone => Fate::Gone(read(*ends)),
                    Activity::InTerm(_) => Fate::Ending,
                    Activity::Other => Fate::GoesOn,
                };
                let verdict = match sight.verdict(&fate, elected) {
                    None if now.surely_since(elected) > GRACE => {
                        crate::election::predecessor::Verdict::Unknown
                    }
                    None => return,
                    Some(verdict) => verdict,
                };
                sight.wait(verdict, self.caution())
            }
            _ => Newcomer {
                saw_a_holder: self.saw_a_holder,
                restarted: None,
            }
            .wait(self.caution()),
        };
        self.saw_a_holder = true;
        self.stage = Stage::Doubts(elected, doubt);
    }
}

fn read(ends: super::server::Ends) -> Ends {
    Ends {
        killed: ends.killed,
        fatal: ends.fatal,
        abandoned: ends.abandoned,
        reset: String::new(),
        in_time: true,
    }
}

impl Actor for Old {
    type Rule = ();

    fn new((): (), _: Features, _: &mut Chance) -> Self {
        Self {
            stage: Stage::Enters,
            lease: lease(),
            sight: None,
            saw_a_holder: false,
            elected: None,
            asked: zero(),
            term: None,
        }
    }

    fn act(&mut self, now: Moment, chance: &mut Chance) -> Act {
        let mut in_term = false;
        let ops = match self.stage {
            Stage::Enters => vec![Op::Limit(Some(LEASE))],
            Stage::Waits => vec![Op::Wait(Lock::Key, 800)],
            Stage::Looks => vec![Op::Holder, Op::Number, Op::Activity(None), Op::Ends],
            Stage::Judges => match &self.sight {
                Some(sight) => {
                    let fate = [Op::Activity(Some(sight.pid as usize)), Op::Ends];
                    [fate, fate].concat()
                }
                None => vec![],
            },
            Stage::Doubts(elected, doubt) => {
                match doubt.saturating_sub(now.surely_since(elected)).is_zero() {
                    true => {
                        self.stage = Stage::Begins;
                        vec![Op::Try(Lock::Term(1))]
                    }
                    false if chance.per_mille(50) => vec![Op::Holds(Lock::Key)],
                    false => return Act::Nothing,
                }
            }
            Stage::Begins => return Act::Nothing,
            Stage::Leads => {
                let term = self.term.as_mut().unwrap();
                if term.is_over(now) || chance.per_mille(10) {
                    term.end();
                    self.stage = Stage::Leaves;
                    return Act::Nothing;
                }
                if !term.is_question_due(now) {
                    return Act::Nothing;
                }
                in_term = true;
                vec![Op::Holds(Lock::Key)]
            }
            Stage::Leaves => vec![Op::Clear],
            Stage::Closes => {
                *self = Self::new((), Features::default(), chance);
                return Act::Close;
            }
        };
        self.asked = now;
        in_term |= self.stage == Stage::Begins;
        Act::Send(Message { ops, in_term })
    }

    fn hear(&mut self, values: &[Value], now: Moment, _: &mut Chance) {
        match self.stage {
            Stage::Enters => self.stage = Stage::Waits,
            Stage::Waits if values == [Value::Yes] => {
                self.elected = Some(now);
                self.stage = Stage::Judges;
            }
            Stage::Waits => {
                self.saw_a_holder = true;
                self.stage = Stage::Looks;
            }
            Stage::Looks => {
                self.looked(values, now);
                self.stage = Stage::Waits;
            }
            Stage::Judges => self.judged(values, now),
            Stage::Doubts(..) if values == [Value::No] => self.stage = Stage::Leaves,
            Stage::Doubts(..) => {}
            Stage::Begins => {
                self.term = Some(TermClock::start(self.lease, self.asked));
                self.stage = Stage::Leads;
            }
            Stage::Leads if values == [Value::Yes] => {
                let asked = self.asked;
                self.term.as_mut().unwrap().answered(asked, now);
            }
            Stage::Leads => {
                self.term.as_mut().unwrap().end();
                self.stage = Stage::Leaves;
            }
            Stage::Leaves => self.stage = Stage::Closes,
            Stage::Closes => {}
        }
    }

    fn lose(&mut self) {
        let saw = match self.term {
            Some(_) => false,
            None => self.saw_a_holder,
        };
        *self = Self {
            saw_a_holder: saw,
            ..Self::new((), Features::default(), &mut Chance::of(0))
        };
    }

    fn gives_up(&mut self, _: u64) -> bool {
        false
    }

    fn is_on(&mut self, now: Moment) -> bool {
        self.term.as_mut().is_some_and(|term| !term.is_over(now))
    }
}
