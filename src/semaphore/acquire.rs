//! Acquiring a slot: at once if there is room, otherwise in the queue and at its head.

use std::hash::{BuildHasher, RandomState};

use super::permit::Permit;
use crate::driver::{self, Acquire, Failure, Refusal, Session, SessionHandle, insist};
use crate::error::Error;
use crate::failure::answer;
use crate::key::Key;
use crate::lock::guard::LockGuard;
use crate::lock::held_slots::held_of;
use crate::lock::sections::begin;
use crate::lock::wait::{self, Attempt, SLICE, Within};
use crate::request::{Request, Scope};
use crate::sql::{self, WaitTime};
use crate::targets::{LockInfo, Mode, Slots, Target};

/// Acquires a slot on the session that `find` returns.
pub(crate) fn permit<H: SessionHandle>(
    request: &Request,
    slots: &Slots,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<Permit<H>, Error> {
    if slots.keys().is_empty() {
        let (lock, count) = (request.lock.clone(), slots.count());
        return Err(Error::InvalidPermits { lock, count });
    }
    let (mut handle, mut attempt, waiting) = begin(request, Scope::Session, false, find)?;
    driver::recall(&mut handle);
    let slot = on_session(&mut *handle, &mut attempt, slots);
    driver::keep(&mut handle, false);
    match slot {
        Ok(slot) => {
            let hold = waiting.acquired();
            let target = Target::from(slots.with_taken(slot));
            let taken = Request {
                lock: LockInfo::new(target, Mode::Exclusive),
                ..request.clone()
            };
            let guard = LockGuard::new(handle, &taken, Scope::Session, hold);
            Ok(Permit { guard, slot })
        }
        Err(error) => Err(waiting.failed(error)),
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
    attempt.go_on()?;
    let mut asked = Asked {
        lock,
        slots,
        order: order(slots.keys()),
    };
    let before = attempt.before();
    match asked.attempt(session, &before, false) {
        Ok(slot) => return Ok(slot),
        Err(Failure::Refused(Refusal::Busy)) if attempt.first_wait(SLICE) != WaitTime::No => {}
        Err(failure) => return Err(attempt.failed(session, Within::Session, failure)),
    }
    let queue = sql::semaphore::queue(slots.queue());
    let impatient = [attempt.first(), &*sql::semaphore::impatient()].concat();
    if let Err(failure) = session.send(&impatient) {
        return Err(attempt.failed(session, Within::Session, failure));
    }
    let mut in_queue = false;
    let slot = wait::session::acquire(session, attempt, &queue).and_then(|()| {
        in_queue = true;
        asked.at_head(session, attempt)
    });
    if slot.is_err() {
        let left = insist(|| {
            session.send(&sql::semaphore::patient_again())?;
            match in_queue {
                true => answer(session.prepared("", &sql::release(&queue))),
                false => Ok(()),
            }
        });
        match left {
            Ok(()) | Err(Failure::Lost(_)) => {}
            Err(_) => session.terminate(),
        }
    }
    slot
}

/// How often others may take a slot that looked free before the semaphore counts as full.
const RACES: usize = 10;

/// What each attempt asks for.
struct Asked<'a> {
    lock: &'a LockInfo,
    slots: &'a Slots,
    order: Vec<Key>,
}

impl Asked<'_> {
    /// The statements of these slots, of which the session holds some already.
    fn slots<'s>(&'s self, held: &'s [Key]) -> sql::semaphore::Slots<'s> {
        sql::semaphore::Slots {
            lock: self.lock,
            order: &self.order,
            held,
            queue: self.slots.queue(),
        }
    }

    /// Takes a slot if there is room.
    fn attempt<S: Session>(
        &mut self,
        session: &mut S,
        before: &str,
        at_head: bool,
    ) -> Result<u32, Failure> {
        for _ in 0..RACES {
            let held = held_of(&self.order);
            let slots = self.slots(&held);
            let attempt = |client| slots.attempt(client, at_head);
            let lines = wait::session::as_client(WaitTime::No, attempt, |attempt| {
                let lines = session.prepared(before, attempt)?;
                answer(Ok(lines.clone())).map(|()| lines)
            })?;
            let free = lines.iter().find_map(|line| line.strip_prefix("free "));
            let free = free.and_then(|place| place.parse::<usize>().ok());
            match free.filter(|place| *place < self.order.len()) {
                Some(place) => self.order.swap(0, place),
                None => {
                    let slot = self.order.first().and_then(|key| self.slots.slot_of(key));
                    return slot.ok_or(Failure::Refused(Refusal::Busy));
                }
            }
        }
        Err(Failure::Refused(Refusal::Busy))
    }

    /// Looks for a slot, as the only one who does: it holds the queue's key, and lets it go with the slot.
    fn at_head<S: Session>(
        &mut self,
        session: &mut S,
        attempt: &mut Attempt<'_>,
    ) -> Result<u32, Error> {
        loop {
            attempt.go_on()?;
            match self.attempt(session, attempt.first(), true) {
                Ok(slot) => return Ok(slot),
                Err(Failure::Refused(Refusal::Busy)) if !attempt.is_over() => {}
                Err(failure) => return Err(attempt.failed(session, Within::Session, failure)),
            }
            if let Err(failure) = self.look(session, attempt) {
                return Err(attempt.failed(session, Within::Session, failure));
            }
        }
    }

    /// Waits until a slot looks free, for a slice.
    fn look<S: Session>(&self, session: &mut S, attempt: &mut Attempt<'_>) -> Result<(), Failure> {
        let Some(millis) = attempt.later_wait(SLICE) else {
            return Err(Failure::timed_out("no slot has become free"));
        };
        let held = held_of(&self.order);
        let text = attempt.before() + &self.slots(&held).look(millis);
        session.send(&text)?;
        if attempt.waited().as_millis() < SLICE.unsigned_abs().into() {
            return Ok(());
        }
        if attempt.situation.is_none() {
            attempt.situation = attempt.ask(session)?;
        }
        attempt.slice_in()?;
        let stuck = session.query(&sql::all_slots_wait_for_us(self.lock))?;
        match stuck.first().is_some_and(|stuck| stuck == "true") {
            true => Err(Failure::deadlock(
                "the holders of all slots wait for this session",
            )),
            false => Ok(()),
        }
    }
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
