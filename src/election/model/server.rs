//! The server: sessions, what they hold, and messages of several operations. Any other session can act, or
//! end, between two of them.

/// A lock. Every term has its own; so have its sign and the ear for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Key,
    Head,
    Term(i32),
    Sign(i32),
    Ear(i32),
}

/// One step of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Sets for how long the server lets the session be silent. `None`: for ever.
    Limit(Option<u64>),
    /// Waits for a lock for so many milliseconds: yes or no.
    Wait(Lock, u64),
    /// Takes a lock if it is free: yes or no.
    Try(Lock),
    /// Takes it shared.
    Share(Lock),
    /// Whether a lock is free, exclusively or only shared: takes it for the message, and lets it go.
    IsFree(Lock),
    CanShare(Lock),
    /// Lets a lock go once: whether it was held.
    Drop(Lock),
    /// Whether this session holds it.
    Holds(Lock),
    /// Lets go all that it holds.
    Clear,
    /// Which session holds the key.
    Holder,
    /// The number of the term of the session that was found.
    Number,
    /// The limits of all sessions.
    Limits,
    /// Takes the ear of the number that was found.
    Listen,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Done,
    Yes,
    No,
    Holder(Option<usize>),
    Number(Option<i32>),
    Limits(Vec<u64>),
}

pub(super) type Message = Vec<Op>;

struct Running {
    ops: Vec<Op>,
    next: usize,
    /// When the present wait is over.
    until: Option<u64>,
    found: Option<usize>,
    values: Vec<Value>,
}

pub(super) struct Session {
    pub(super) alive: bool,
    limit: Option<u64>,
    heard: u64,
    /// A lock, and whether it is held exclusively.
    held: Vec<(Lock, bool)>,
    running: Option<Running>,
    pub(super) reply: Option<Vec<Value>>,
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) now: u64,
    pub(super) sessions: Vec<Session>,
    /// Without the rule's mutex everybody gets it.
    pub(super) head_for_all: bool,
}

impl Server {
    pub(super) fn connect(&mut self) -> usize {
        self.sessions.push(Session {
            alive: true,
            limit: None,
            heard: self.now,
            held: Vec::new(),
            running: None,
            reply: None,
        });
        self.sessions.len() - 1
    }

    /// Takes a message from the network.
    pub(super) fn receive(&mut self, id: usize, message: Message) {
        let session = &mut self.sessions[id];
        session.heard = self.now;
        session.running = Some(Running {
            ops: message,
            next: 0,
            until: None,
            found: None,
            values: Vec::new(),
        });
    }

    pub(super) fn is_busy(&self, id: usize) -> bool {
        self.sessions[id].running.is_some()
    }

    pub(super) fn end(&mut self, id: usize) {
        self.sessions[id].alive = false;
        let session = &mut self.sessions[id];
        (session.running, session.reply) = (None, None);
        session.held.clear();
    }

    /// What a pooler does before it lends a session to another client.
    pub(super) fn clear(&mut self, id: usize) {
        let session = &mut self.sessions[id];
        (session.running, session.reply) = (None, None);
        session.held.clear();
        session.limit = None;
    }

    /// Ends a session that has been silent for too long.
    pub(super) fn expire(&mut self, id: usize) {
        let session = &self.sessions[id];
        let silent = self.now - session.heard;
        let over = session.limit.is_some_and(|limit| silent >= limit);
        if session.alive && session.running.is_none() && over {
            self.end(id);
        }
    }

    pub(super) fn holder(&self, lock: Lock) -> Option<usize> {
        let holds = |session: &Session| session.held.contains(&(lock, true));
        self.sessions.iter().position(holds)
    }

    /// Whether somebody is in the middle of reading who holds the key.
    pub(super) fn is_looked_at(&self) -> bool {
        let looks = |session: &Session| {
            let running = session.running.as_ref();
            running.is_some_and(|running| running.found.is_some())
        };
        self.sessions.iter().any(looks)
    }

    /// Those that hold or wait for anything.
    pub(super) fn concerned(&self) -> Vec<usize> {
        let concerned = |id: &usize| {
            let session = &self.sessions[*id];
            session.alive && (!session.held.is_empty() || session.running.is_some())
        };
        (0..self.sessions.len()).filter(concerned).collect()
    }

    fn is_in_the_way(&self, id: usize, lock: Lock, exclusively: bool) -> bool {
        let others = self.sessions.iter().enumerate();
        let mut others = others.filter(|(other, _)| *other != id);
        others.any(|(_, other)| {
            other.held.contains(&(lock, true)) || exclusively && other.held.contains(&(lock, false))
        })
    }

    /// Goes on with a session's message until it waits, or so many operations further.
    pub(super) fn run(&mut self, id: usize, mut operations: u64) {
        while let Some(running) = &self.sessions[id].running {
            let Some(op) = running.ops.get(running.next).copied() else {
                let (session, now) = (&mut self.sessions[id], self.now);
                session.reply = session.running.take().map(|running| running.values);
                session.heard = now;
                return;
            };
            let Some(operations_left) = operations.checked_sub(1) else {
                return;
            };
            operations = operations_left;
            let Some(value) = self.execute(id, op) else {
                return;
            };
            if let Some(running) = &mut self.sessions[id].running {
                if let Value::Holder(found) = value {
                    running.found = found;
                }
                running.values.push(value);
                running.next += 1;
                running.until = None;
            }
        }
    }

    /// Returns `None` if it waits.
    fn execute(&mut self, id: usize, op: Op) -> Option<Value> {
        let yes = |yes| if yes { Value::Yes } else { Value::No };
        let found = self.sessions[id].running.as_ref()?.found;
        Some(match op {
            Op::Limit(limit) => {
                self.sessions[id].limit = limit;
                Value::Done
            }
            Op::Wait(lock, time) => {
                if self.take(id, lock, true) {
                    return Some(Value::Yes);
                }
                let running = self.sessions[id].running.as_mut()?;
                let until = *running.until.get_or_insert(self.now + time);
                if self.now < until {
                    return None;
                }
                Value::No
            }
            Op::Try(lock) => yes(self.take(id, lock, true)),
            Op::Share(lock) => yes(self.take(id, lock, false)),
            Op::IsFree(lock) => yes(!self.is_in_the_way(id, lock, true)),
            Op::CanShare(lock) => yes(!self.is_in_the_way(id, lock, false)),
            Op::Drop(lock) => {
                let held = &mut self.sessions[id].held;
                let found = held.iter().position(|(other, _)| *other == lock);
                found.map(|found| held.remove(found));
                yes(found.is_some())
            }
            Op::Holds(lock) => yes(self.sessions[id].held.contains(&(lock, true))),
            Op::Clear => {
                self.sessions[id].held.clear();
                self.sessions[id].limit = None;
                Value::Done
            }
            Op::Holder => Value::Holder(self.holder(Lock::Key).filter(|holder| *holder != id)),
            Op::Number => Value::Number(found.and_then(|found| self.number(found))),
            Op::Listen => {
                let mut values = self.sessions[id].running.as_ref()?.values.iter();
                let number = values.find_map(|value| match value {
                    Value::Number(number) => *number,
                    _ => None,
                });
                yes(number.is_some_and(|number| self.take(id, Lock::Ear(number), false)))
            }
            Op::Limits => {
                let alive = self.sessions.iter().filter(|other| other.alive);
                Value::Limits(alive.filter_map(|session| session.limit).collect())
            }
        })
    }

    fn take(&mut self, id: usize, lock: Lock, exclusively: bool) -> bool {
        let all = self.head_for_all && lock == Lock::Head;
        let free = all || !self.is_in_the_way(id, lock, exclusively);
        if free {
            self.sessions[id].held.push((lock, exclusively)); // as often as it is taken
        }
        free
    }

    fn number(&self, id: usize) -> Option<i32> {
        let mut held = self.sessions[id].held.iter();
        held.find_map(|(lock, _)| match lock {
            Lock::Term(number) => Some(*number),
            _ => None,
        })
    }
}
