//! The server, the network and the processes.

mod process;

use std::time::Duration;

use self::process::Process;
use super::events::Event;
use crate::election::lease::{Lease, Moment};
use crate::election::predecessor::{Ends, Role};

/// One step, and a lease, in milliseconds.
pub(super) const STEP: u64 = 10;
pub(super) const LEASE: u64 = 1_000;
pub(super) const PROCESSES: usize = 3;

struct Session {
    process: usize,
    alive: bool,
    role: Role,
    idle_since: u64,
    /// It is a leader's, whose keeper has not released the lock yet.
    asks: bool,
}

pub(super) struct World {
    strict: bool,
    pub(super) now: u64,
    sessions: Vec<Session>,
    holder: Option<usize>,
    queue: Vec<usize>,
    ends: Ends,
    started: Option<u64>,
    slow_until: u64,
    processes: [Process; PROCESSES],
}

fn lease() -> Lease {
    Lease::new(Duration::from_millis(LEASE)).unwrap()
}

impl World {
    pub(super) fn new(strict: bool, speeds: [u64; PROCESSES]) -> Self {
        let ends = Ends {
            in_time: true,
            ..Ends::default()
        };
        Self {
            strict,
            now: 0,
            sessions: Vec::new(),
            holder: None,
            queue: Vec::new(),
            ends,
            started: None,
            slow_until: 0,
            processes: speeds.map(|speed| Process {
                speed,
                ..Process::default()
            }),
        }
    }

    /// Whom an event is about.
    fn whom(&self, process: usize) -> usize {
        let holder = self
            .holder
            .map_or(0, |session| self.sessions[session].process);
        if process == PROCESSES {
            holder
        } else {
            process
        }
    }

    /// The time by a process's clock.
    fn clock(&self, process: usize) -> Moment {
        let time = Duration::from_micros(self.now * self.processes[process].speed);
        Moment {
            steady: time,
            wall: time,
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Kill(process) => self.kill(self.whom(process)),
            Event::KillOthers => {
                let leaders = self.leaders();
                let others = (0..PROCESSES).filter(|process| !leaders.contains(process));
                others.for_each(|process| self.kill(process));
            }
            Event::Stop(process, on) => self.processes[self.whom(process)].stopped = on,
            Event::FreezeRequests(process, on) => {
                self.processes[self.whom(process)].requests_frozen = on;
            }
            Event::FreezeReplies(process, on) => {
                self.processes[self.whom(process)].replies_frozen = on;
            }
            Event::Cut(process) => {
                let process = self.whom(process);
                let blind = self.processes[process].is_cut_off();
                if self.strict || !blind {
                    let session = self.processes[process].session;
                    self.break_off(session);
                }
                if !blind {
                    self.lose(process);
                }
            }
            Event::TerminateHolder => {
                self.ends.killed += i64::from(self.holder.is_some());
                self.end_session(self.holder);
            }
            Event::EndAnother => {
                self.ends.killed += i64::from(self.now.is_multiple_of(3));
                self.ends.fatal += i64::from(self.now.is_multiple_of(2));
                self.ends.abandoned += 1;
            }
            Event::Crash => {
                for session in 0..self.sessions.len() {
                    self.end_session(Some(session));
                }
                let reset = self.now.to_string();
                self.ends = Ends {
                    in_time: true,
                    reset,
                    ..Ends::default()
                };
                self.started = Some(self.now);
            }
            Event::Slow(steps) => self.slow_until = self.now + steps * STEP,
        }
    }

    fn kill(&mut self, process: usize) {
        let old = &self.processes[process];
        let (session, speed) = (old.session, old.speed);
        if !old.requests_frozen {
            self.break_off(session); // else the server does not see it
        }
        self.processes[process] = Process {
            speed,
            ..Process::default()
        };
    }

    fn break_off(&mut self, session: Option<usize>) {
        let alive = session.is_some_and(|session| self.sessions[session].alive);
        self.ends.abandoned += i64::from(alive);
        self.end_session(session);
    }

    fn end_session(&mut self, session: Option<usize>) {
        let Some(session) = session else { return };
        self.sessions[session].alive = false;
        self.queue.retain(|waiter| *waiter != session);
        if self.holder == Some(session) {
            self.holder = None;
        }
    }

    /// What a process does when it finds its connection broken.
    fn lose(&mut self, process: usize) {
        let process = &mut self.processes[process];
        process.saw_a_holder = match process.term {
            Some(_) => false, // a new candidacy
            None => {
                process.saw_a_holder || process.sight.is_some() || process.waits_until.is_some()
            }
        };
        process.session = None;
        process.sight = None;
        process.waits_until = None;
        process.term = None;
        process.question = None;
    }

    pub(super) fn step(&mut self) {
        self.now += STEP;
        if self.now >= self.slow_until {
            self.serve();
        }
        for process in 0..PROCESSES {
            if !self.processes[process].stopped {
                self.run(process);
            }
        }
    }

    /// The server: ends silent sessions, answers questions, and grants the lock.
    fn serve(&mut self) {
        for session in 0..self.sessions.len() {
            let Session { alive, process, .. } = self.sessions[session];
            let waits = self.queue.contains(&session);
            if alive && !waits && self.now - self.sessions[session].idle_since >= LEASE {
                self.ends.fatal += 1;
                self.end_session(Some(session));
                continue;
            }
            let process = &mut self.processes[process];
            let connected = process.session == Some(session) && !process.requests_frozen;
            if let (true, true, Some((_, answered @ false))) =
                (alive, connected, &mut process.question)
            {
                self.sessions[session].idle_since = self.now;
                *answered = true;
            }
        }
        if self.holder.is_none() && !self.queue.is_empty() {
            let session = self.queue.remove(0);
            self.holder = Some(session);
            self.sessions[session].idle_since = self.now;
        }
    }

    /// The processes that would say that their term is on, if they could say anything now.
    pub(super) fn leaders(&mut self) -> Vec<usize> {
        let on = |process: &usize| {
            let now = self.clock(*process);
            let term = &mut self.processes[*process].term;
            term.as_mut().is_some_and(|term| !term.is_over(now))
        };
        (0..PROCESSES).filter(on).collect()
    }

    /// Whether somebody leads by its own clock and has lost its session.
    fn has_orphan(&mut self) -> bool {
        let leaders = self.leaders();
        let lost = |process: &usize| {
            let session = self.processes[*process].session;
            session.is_none_or(|session| !self.sessions[session].alive)
        };
        leaders.iter().any(lost)
    }

    fn restarted_lately(&self) -> bool {
        self.started
            .is_some_and(|started| self.now - started < LEASE)
    }

    pub(super) fn heal(&mut self) {
        for process in &mut self.processes {
            process.stopped = false;
            process.requests_frozen = false;
            process.replies_frozen = false;
        }
        self.slow_until = 0;
    }
}
