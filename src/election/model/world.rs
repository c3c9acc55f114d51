//! Processes with clocks of their own, the network between them and the server, and what breaks.

use std::time::Duration;

use super::chance::Chance;
use super::server::{Message, Server, Value};
use crate::held::clock::Moment;

/// One step, in milliseconds.
pub(super) const STEP: u64 = 10;
const MOST: u64 = 4;

/// What there is in a scene, beside processes that are killed, stopped and cut off, and sessions that end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Features {
    /// A session that is given back goes on, and is lent to another process.
    pub(super) pools: bool,
    /// Others act, and sessions end, between any two reads of a message.
    pub(super) reads: bool,
    /// A pooler closes a session, or lends it on, while its client is cut off.
    pub(super) pooler: bool,
    /// Some processes have a longer lease.
    pub(super) mixed: bool,
    /// Some elections begin at once.
    pub(super) at_once: bool,
}

/// What a process does next.
pub(super) enum Act {
    Nothing,
    Send(Message),
    /// Gives its session back, or closes it.
    Close,
    Exit,
}

/// The program of a process.
pub(super) trait Actor {
    type Rule: Copy + Default;

    fn new(rule: Self::Rule, features: Features, chance: &mut Chance) -> Self;
    fn act(&mut self, now: Moment, chance: &mut Chance) -> Act;
    fn hear(&mut self, values: &[Value], now: Moment, chance: &mut Chance);
    /// The connection broke.
    fn lose(&mut self);
    /// Nothing has come for so many milliseconds: whether it gives up waiting.
    fn gives_up(&mut self, silent: u64) -> bool;
    fn is_on(&mut self, now: Moment) -> bool;
    /// Whether its term may begin beside another's.
    fn may_overlap(&self) -> bool {
        false
    }
    /// Whether it could have known of the other's term.
    fn could_know(&self, _other: &Self) -> bool {
        true
    }
}

pub(super) struct Process<A> {
    pub(super) actor: A,
    /// In millionths of the server's.
    pub(super) speed: u64,
    pub(super) session: Option<usize>,
    pub(super) broken: bool,
    pub(super) outbox: Option<(u64, Message)>,
    pub(super) inbox: Option<(u64, Vec<Value>)>,
    pub(super) asked: Option<u64>,
    /// When the question that was answered last was sent.
    pub(super) sent: u64,
    pub(super) stopped: bool,
    pub(super) requests_frozen: bool,
    pub(super) replies_frozen: bool,
    /// When its term began, at the earliest.
    pub(super) began: Option<u64>,
}

impl<A> Process<A> {
    pub(super) fn is_cut_off(&self) -> bool {
        self.stopped || self.requests_frozen || self.replies_frozen
    }

    pub(super) fn heal(&mut self) {
        self.stopped = false;
        self.requests_frozen = false;
        self.replies_frozen = false;
    }

    pub(super) fn forget(&mut self) {
        (self.session, self.broken, self.asked) = (None, false, None);
        (self.outbox, self.inbox) = (None, None);
    }
}

pub(super) struct World<A: Actor> {
    pub(super) rule: A::Rule,
    pub(super) server: Server,
    pub(super) features: Features,
    pub(super) chance: Chance,
    pub(super) processes: Vec<Process<A>>,
    /// Sessions that nobody uses now.
    pub(super) pool: Vec<usize>,
    /// A session that takes the key now and then, and is no candidate.
    pub(super) other: usize,
    pub(super) terms: u64,
    /// A term began beside one of which its leader could not know; others may follow it.
    pub(super) excused: bool,
}

fn rotated(length: usize, first: usize) -> impl Iterator<Item = usize> {
    (first..length).chain(0..first)
}

impl<A: Actor> World<A> {
    pub(super) fn new(seed: u64, rule: A::Rule, features: Features) -> Self {
        let mut chance = Chance::of(seed);
        let mut server = Server::default();
        let other = server.connect();
        let count = 2 + chance.below(MOST - 1);
        let processes = (0..count).map(|_| Process {
            actor: A::new(rule, features, &mut chance),
            speed: 955_000 + chance.below(90_001),
            session: None,
            broken: false,
            outbox: None,
            inbox: None,
            asked: None,
            sent: 0,
            stopped: false,
            requests_frozen: false,
            replies_frozen: false,
            began: None,
        });
        Self {
            processes: processes.collect(),
            rule,
            server,
            features,
            chance,
            pool: Vec::new(),
            other,
            terms: 0,
            excused: false,
        }
    }

    fn clock(&self, process: usize) -> Moment {
        let time = Duration::from_nanos(self.server.now * self.processes[process].speed);
        Moment {
            steady: time,
            wall: time,
        }
    }

    /// The next step, in which something may break. Fails when a term is on beside another.
    pub(super) fn step(&mut self, breaks: bool) -> Result<(), String> {
        self.server.now += STEP;
        if breaks {
            self.happen();
        }
        for id in 0..self.server.sessions.len() {
            self.server.expire(id);
        }
        let first = self.chance.index(self.processes.len());
        for process in rotated(self.processes.len(), first) {
            if !self.processes[process].stopped {
                self.run(process);
            }
        }
        let sessions = self.server.sessions.len();
        let first = self.chance.index(sessions);
        for id in rotated(sessions, first) {
            self.serve(id);
        }
        self.check()
    }

    fn serve(&mut self, id: usize) {
        let operations = match self.features.reads {
            true => self.chance.below(3),
            false => 100,
        };
        if self.server.sessions[id].alive {
            self.server.run(id, operations);
        }
    }

    fn run(&mut self, process: usize) {
        let (now, time) = (self.clock(process), self.server.now);
        self.pass_messages(process);
        let me = &mut self.processes[process];
        if me.broken && !me.is_cut_off() {
            me.forget();
            me.actor.lose();
        }
        if me.inbox.as_ref().is_some_and(|(at, _)| *at <= time) {
            let values = me.inbox.take().map(|(_, values)| values);
            me.sent = me.asked.take().unwrap_or(time);
            me.actor
                .hear(&values.unwrap_or_default(), now, &mut self.chance);
        }
        if let Some(asked) = me.asked {
            if me.actor.gives_up(time - asked) {
                me.forget();
                me.actor.lose();
            }
            return;
        }
        if me.session.is_none() {
            return self.connect(process);
        }
        match me.actor.act(now, &mut self.chance) {
            Act::Nothing => {}
            Act::Send(message) => {
                let delay = self.delay();
                let me = &mut self.processes[process];
                me.asked = Some(time);
                me.outbox = Some((time + delay, message));
            }
            Act::Close => self.close(process, false),
            Act::Exit => self.close(process, true),
        }
    }

    /// Mostly none.
    fn delay(&mut self) -> u64 {
        match self.chance.below(10) {
            0 => self.chance.below(12) * STEP,
            1..4 => STEP,
            _ => 0,
        }
    }

    fn pass_messages(&mut self, process: usize) {
        let (time, delay) = (self.server.now, self.delay());
        let me = &mut self.processes[process];
        let Some(session) = me.session else { return };
        me.broken |= !self.server.sessions[session].alive;
        if me.broken {
            me.outbox = None;
            return;
        }
        let arrives = me.outbox.as_ref().is_some_and(|(at, _)| *at <= time);
        let arrives = arrives && !me.requests_frozen && !self.server.is_busy(session);
        if let Some((_, message)) = me.outbox.take_if(|_| arrives) {
            self.server.receive(session, message);
        }
        let me = &mut self.processes[process];
        if !me.replies_frozen && me.inbox.is_none() {
            let reply = self.server.sessions[session].reply.take();
            me.inbox = reply.map(|values| (time + delay, values));
        }
    }

    fn connect(&mut self, process: usize) {
        if self.processes[process].is_cut_off() || !self.chance.per_mille(300) {
            return;
        }
        let lent = self.features.pools && self.chance.per_mille(600);
        let lent = lent.then(|| self.pool.pop()).flatten();
        let lent = lent.filter(|id| self.server.sessions[*id].alive);
        let session = lent.unwrap_or_else(|| self.server.connect());
        self.processes[process].session = Some(session);
    }

    fn close(&mut self, process: usize, exits: bool) {
        let me = &mut self.processes[process];
        let session = me.session;
        let frozen = me.requests_frozen;
        me.forget();
        let Some(session) = session else { return };
        match self.features.pools && !exits && self.chance.per_mille(600) {
            true => self.pool.push(session),
            false if frozen => {}
            false => self.server.end(session),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let now = self.server.now;
        let mut terms = Vec::new();
        for process in 0..self.processes.len() {
            let clock = self.clock(process);
            let me = &mut self.processes[process];
            if !me.actor.is_on(clock) {
                me.began = None;
            } else if me.began.is_none() && !me.stopped {
                self.terms += 1;
                me.began = Some(me.sent); // an election that begins at once may have come between
            }
            terms.extend(me.began.map(|began| (began, process)));
        }
        terms.sort_unstable();
        for (i, (at, two)) in terms.iter().enumerate() {
            for (before, one) in &terms[..i] {
                let (one, two) = (&self.processes[*one], &self.processes[*two]);
                // A process that is stopped believes nothing until it runs, and then it looks at its clock.
                let both = !one.stopped && !two.stopped && !two.actor.may_overlap();
                if !two.actor.could_know(&one.actor) {
                    self.excused = true;
                } else if both && !self.excused {
                    let text = format!("one began at {before}, one at {at}");
                    return Err(format!("two terms at {now}: {text}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn heal(&mut self) {
        self.processes.iter_mut().for_each(Process::heal);
    }

    /// Nothing breaks any more: somebody must be elected.
    pub(super) fn settle(&mut self, patience: u64) -> Result<(), String> {
        self.heal();
        let other = self.other;
        self.server.clear(other);
        for _ in 0..patience / STEP {
            self.step(false)?;
            if self.processes.iter().any(|process| process.began.is_some()) {
                return Ok(());
            }
        }
        Err(format!("nobody leads at {}", self.server.now))
    }
}
