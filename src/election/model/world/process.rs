//! What the processes do.

use std::time::Duration;

use super::{LEASE, Session, World, lease};
use crate::election::lease::{Moment, TermClock};
use crate::election::predecessor::{Caution, Fate, Newcomer, Role, Sight};

#[derive(Default)]
pub(super) struct Process {
    pub(super) stopped: bool,
    pub(super) requests_frozen: bool,
    pub(super) replies_frozen: bool,
    /// The speed of its clock, in thousandths of the server's.
    pub(super) speed: u64,
    pub(super) session: Option<usize>,
    pub(super) sight: Option<Sight>,
    pub(super) saw_a_holder: bool,
    /// Elected, and waiting until then for an earlier term to end.
    pub(super) waits_until: Option<u64>,
    pub(super) term: Option<TermClock>,
    /// When the question under way was sent, and whether it was answered.
    pub(super) question: Option<(Moment, bool)>,
    pub(super) questioned: u64,
}

impl Process {
    pub(super) fn is_cut_off(&self) -> bool {
        self.stopped || self.requests_frozen || self.replies_frozen
    }
}

impl World {
    pub(super) fn run(&mut self, process: usize) {
        let now = self.clock(process);
        let spared = !self.strict && self.has_orphan() && !self.restarted_lately();
        let me = &mut self.processes[process];
        let cut_off = me.is_cut_off();
        let Some(session) = me.session else {
            if !cut_off && (me.saw_a_holder || !spared) {
                self.connect(process);
                self.look(process);
            }
            return;
        };
        if !self.sessions[session].alive && !cut_off {
            return self.lose(process);
        }
        if me.term.as_mut().is_some_and(|term| term.is_over(now)) {
            if !me.requests_frozen {
                self.end_session(Some(session));
            }
            return self.lose(process);
        }
        if let (Some((asked, true)), false) = (me.question, me.replies_frozen) {
            me.question = None;
            if let Some(term) = &mut me.term {
                term.answered(asked, now);
            }
        }
        let between = LEASE / 3;
        if me.question.is_none() && self.now - me.questioned >= between {
            me.question = Some((now, false));
            me.questioned = self.now;
        }
        if self.holder == Some(session) && me.term.is_none() && !cut_off {
            self.advance(process, session);
        } else if self.holder != Some(session) && !cut_off {
            self.look(process);
        }
    }

    fn connect(&mut self, process: usize) {
        let me = &mut self.processes[process];
        me.session = Some(self.sessions.len());
        me.saw_a_holder |= self.holder.is_some() || !self.queue.is_empty();
        me.questioned = self.now;
        self.queue.push(self.sessions.len());
        self.sessions.push(Session {
            process,
            alive: true,
            role: Role::Candidate {
                lease: lease().length(),
            },
            idle_since: self.now,
            asks: false,
        });
    }

    fn look(&mut self, process: usize) {
        let at = self.clock(process);
        let Some(holder) = self.holder else { return };
        let session = &self.sessions[holder];
        self.processes[process].sight = Some(Sight {
            pid: i32::try_from(holder).unwrap(),
            began: None,
            role: session.role,
            idle: Some(Duration::from_millis(self.now - session.idle_since)),
            ends: self.ends.clone(),
            at,
        });
    }

    /// Takes a candidate that has the lock one step nearer to its term.
    fn advance(&mut self, process: usize, session: usize) {
        let now = self.clock(process);
        let lease = lease();
        let caution = Caution {
            lease: lease.length(),
            strict: self.strict,
        };
        let me = &mut self.processes[process];
        match me.waits_until {
            None => {
                let wait = match me.sight.take() {
                    Some(sight) => {
                        let before = &self.sessions[sight.pid as usize];
                        let fate = match before.alive {
                            true if before.asks => Fate::Ending,
                            true => Fate::GoesOn,
                            false => Fate::Gone(self.ends.clone()),
                        };
                        let verdict = sight.verdict(&fate, now).expect("it has ended");
                        sight.wait(verdict, caution)
                    }
                    None => Newcomer {
                        saw_a_holder: me.saw_a_holder,
                        restarted: self
                            .started
                            .map(|started| Duration::from_millis(self.now - started)),
                    }
                    .wait(caution),
                };
                let until = now.steady + wait;
                me.waits_until = Some(u64::try_from(until.as_micros()).unwrap());
            }
            Some(until) if now.steady.as_micros() >= until.into() => {
                me.term = Some(TermClock::start(lease, now));
                self.sessions[session].idle_since = self.now;
                self.sessions[session].asks = true;
                let lease = lease.length();
                self.sessions[session].role = Role::Leader { lease };
            }
            Some(_) => {}
        }
    }
}
