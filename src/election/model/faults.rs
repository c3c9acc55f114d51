//! What breaks, and when.

use super::server::{Lock, Op};
use super::world::{Actor, Process, World};

impl<A: Actor> World<A> {
    /// Perhaps something breaks, or what is broken is repaired.
    pub(super) fn happen(&mut self) {
        let now = self.server.now;
        let is_new = |process: &Process<A>| process.began.is_some_and(|began| now - began < 300);
        let delicate = self.server.is_looked_at() || self.processes.iter().any(is_new);
        if delicate && self.chance.per_mille(20) {
            return self.blind_the_leader();
        }
        for process in &mut self.processes {
            if process.is_cut_off() && self.chance.per_mille(15) {
                process.heal();
            }
        }
        let process = self.chance.index(self.processes.len());
        let me = &mut self.processes[process];
        match self.chance.below(1_000) {
            0..3 => me.stopped = true,
            3..5 => me.requests_frozen = true,
            5..7 => me.replies_frozen = true,
            7..10 => {
                let sessions = self.server.concerned();
                if let Some(id) = self.chance.pick(&sessions) {
                    self.server.end(id);
                }
            }
            10..12 => self.kill(process),
            12..16 => self.blind_the_leader(),
            16..20 => self.another_holds(),
            20..23 if self.features.pooler => self.pooler_drops(process),
            _ => {}
        }
    }

    /// The key is taken, or let go again, by a session that stands in no election.
    fn another_holds(&mut self) {
        let other = self.other;
        self.server.clear(other);
        if self.chance.per_mille(500) {
            self.server.receive(other, vec![Op::Try(Lock::Key)]);
        }
    }

    /// SIGKILL, and a new process in its place.
    fn kill(&mut self, process: usize) {
        let actor = A::new(self.rule, self.features, &mut self.chance);
        let me = &mut self.processes[process];
        let (session, seen) = (me.session, !me.requests_frozen);
        me.forget();
        (me.actor, me.stopped, me.began) = (actor, false, None);
        if let (Some(session), true) = (session, seen) {
            self.server.end(session);
        }
    }

    /// What chance seldom brings about: whoever has the key is cut off, and then its session ends, or the
    /// pooler drops it.
    fn blind_the_leader(&mut self) {
        let holder = self.server.holder(Lock::Key);
        let holds = |process: &Process<A>| holder.is_some() && process.session == holder;
        let Some(process) = self.processes.iter().position(holds) else {
            return;
        };
        let how = self.chance.below(3);
        let me = &mut self.processes[process];
        match how {
            0 => me.stopped = true,
            1 => me.requests_frozen = true,
            _ => me.replies_frozen = true,
        }
        match self.chance.below(3) {
            0 => {}
            1 if self.features.pooler => self.pooler_drops(process),
            _ => self.server.end(holder.unwrap_or_default()),
        }
    }

    fn pooler_drops(&mut self, process: usize) {
        let me = &mut self.processes[process];
        let Some(session) = me.session.filter(|_| me.is_cut_off() && !me.broken) else {
            return;
        };
        me.broken = true;
        match self.chance.per_mille(500) {
            true => self.server.end(session),
            false => {
                self.server.clear(session);
                self.pool.push(session);
            }
        }
    }
}
