//! Acquiring a slot: at once if there is room, otherwise in the queue and at its head.

use std::hash::{BuildHasher, RandomState};

use super::held::held_of;
use super::permit::Permit;
use crate::acquire::{as_client, begin};
use crate::ask;
use crate::attempt::{Attempt, Within};
use crate::driver::{Acquire, Failure, Refusal, Replies, Session, SessionHandle, while_canceled};
use crate::error::Error;
use crate::guard::LockGuard;
use crate::key::Key;
use crate::request::{LockInfo, Mode, Request, Scope, WaitTime};
use crate::sql;
use crate::targets::{Slots, Target};

/// Acquires a slot on the session that `find` returns.
pub(super) fn permit<H: SessionHandle>(
    request: &Request,
    slots: &Slots,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<Permit<H>, Error> {
    if slots.keys().is_empty() {
        let (lock, count) = (request.lock.clone(), slots.count());
        return Err(Error::Slots { lock, count });
    }
    let (mut handle, mut attempt, waiting) = begin(request, Scope::Session, false, find)?;
    match on_session(&mut *handle, &mut attempt, slots) {
        Ok(slot) => {
            let hold = waiting.acquired();
            let target = Target::from(slots.with_taken(slot));
            let taken = Request {
                lock: LockInfo::new(target, Mode::Exclusive),
                ..request.clone()
            };
            let guard = LockGuard::new(handle, &taken, Scope::Session, hold);
            Ok(Permit::new(guard, slot))
        }
        Err(error) => {
            waiting.failed(&error);
            Err(error)
        }
    }
}

fn on_session<S: Session>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    slots: &Slots,
) -> Result<u32, Error> {
    let lock = &attempt.request.lock;
    if session.in_transaction() {
        return Err(Error::InTransaction { lock: lock.clone() });
    }
    let mut asked = Asked {
        lock,
        slots,
        order: order(slots.keys()),
        client: sql::Client::Own,
    };
    let mut tried = false;
    attempt.in_slices(session, Within::Session, |session, time, label| {
        // The timeout can end between two slices: then there is one more attempt, and no wait.
        if !std::mem::replace(&mut tried, true) || time == WaitTime::No {
            match asked.attempt(session, label) {
                Err(Failure::Refused(Refusal::Busy)) if time != WaitTime::No => {}
                done => return done,
            }
        }
        asked.wait(session, time, label)
    })
}

/// How often others may take a slot that looked free before the semaphore counts as full.
const RACES: usize = 10;

/// What each attempt and each wait asks for.
struct Asked<'a> {
    lock: &'a LockInfo,
    slots: &'a Slots,
    order: Vec<Key>,
    client: sql::Client,
}

impl Asked<'_> {
    /// Takes a slot if there is room.
    fn attempt<S: Session>(&mut self, session: &mut S, label: &str) -> Result<u32, Failure> {
        for _ in 0..RACES {
            let reply = self.send(|slots, client| {
                let acquire = [label, &slots.attempt(client, S::REPLIES)].concat();
                match S::REPLIES {
                    Replies::Rows => session.query(&acquire),
                    Replies::Errors => ask::from_error(session.send(&acquire)),
                }
            })?;
            if S::REPLIES == Replies::Rows {
                return self.taken(session, reply.first());
            }
            match reply.first().and_then(|free| self.place_of(free)) {
                None => return self.taken(session, self.order.first().map(number).as_ref()),
                Some(free) => self.order.swap(0, free),
            }
        }
        Err(Failure::Refused(Refusal::Busy))
    }

    /// Waits for a slot, at most until the slice ends.
    fn wait<S: Session>(
        &mut self,
        session: &mut S,
        time: WaitTime,
        label: &str,
    ) -> Result<u32, Failure> {
        let mut reply = self.send(|slots, client| {
            let acquire = [label, &slots.wait(time, client, S::REPLIES)].concat();
            match S::REPLIES {
                Replies::Rows => session.query(&acquire),
                Replies::Errors => session.send(&acquire).map(|()| Vec::new()),
            }
        })?;
        if S::REPLIES == Replies::Errors {
            // The session holds a slot from here on.
            let asked = while_canceled(|| {
                reply = ask::lines(session, "", sql::semaphore::TAKEN)?;
                Ok(())
            });
            if let Err(failure) = asked {
                session.terminate();
                return Err(failure);
            }
        }
        self.taken(session, reply.first())
    }

    fn send(
        &mut self,
        mut send: impl FnMut(&sql::semaphore::Slots<'_>, sql::Client) -> Result<Vec<String>, Failure>,
    ) -> Result<Vec<String>, Failure> {
        let held = held_of(&self.order);
        let slots = sql::semaphore::Slots {
            lock: self.lock,
            order: &self.order,
            held: &held,
            queue: self.slots.queue(),
        };
        as_client(&mut self.client, |client| {
            let reply = send(&slots, client)?;
            match Refusal::in_reply(&reply) {
                Some(refusal) => Err(Failure::Refused(refusal)),
                None => Ok(reply),
            }
        })
    }

    fn place_of(&self, reply: &str) -> Option<usize> {
        self.order.iter().position(|key| number(key) == reply)
    }

    /// Which slot the session has taken. If nobody can tell, the session is ended.
    fn taken<S: Session>(&self, session: &mut S, reply: Option<&String>) -> Result<u32, Failure> {
        let key = reply.and_then(|number| self.place_of(number));
        let slot = key.and_then(|place| self.slots.slot_of(&self.order[place]));
        slot.ok_or_else(|| {
            session.terminate();
            Failure::Lost("the server did not say which slot it granted".into())
        })
    }
}

/// A key as the server shows it.
fn number(key: &Key) -> String {
    key.as_i64().unwrap_or_default().to_string()
}

/// Begins with a random slot, so that two sessions that come at once seldom try the same one first.
/// Slots that this process holds come last, because they need a look at all locks.
fn order(keys: &[Key]) -> Vec<Key> {
    let mut order = keys.to_vec();
    let random = RandomState::new().hash_one(std::process::id());
    let length = u64::try_from(order.len().max(1)).unwrap_or(1);
    order.rotate_left(usize::try_from(random % length).unwrap_or_default());
    let held = held_of(&order);
    order.sort_by_key(|key| held.contains(key));
    order
}
