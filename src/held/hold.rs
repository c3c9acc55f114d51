//! The thread that takes locks on a session, and keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use super::Held;
use super::clock::{Clock, Moment, Silence};
use super::office::Office;
use super::session::{self, Question, keep};
use super::thread::{Heard, Thread};
use crate::driver::{Acquire, Failure, LockBackend, Refusal, Session, SessionHandle, insist};
use crate::error::Error;
use crate::lock::guard::Suspended;
use crate::lock::nesting;
use crate::lock::sections;
use crate::request::Request;
use crate::semaphore;
use crate::sql;
use crate::stop::StopToken;
use crate::targets::{LockInfo, Slots};

/// What is to be held.
#[derive(Debug, Clone)]
pub struct Order {
    pub(crate) request: Request,
    /// Of a semaphore.
    pub(crate) slots: Option<Slots>,
}

/// Why an order is not served.
#[derive(Debug)]
pub enum Refused {
    /// On this session it would be granted beside one that is held there already.
    Elsewhere,
    Failed(Error),
}

pub(super) type Reply = Sender<Result<Held, Refused>>;

/// What the thread of a session is asked to do.
pub(super) enum Job {
    Hold(Box<Order>, Reply),
    Release(u64, Option<Sender<Result<(), Error>>>),
}

pub(super) type Desk = Office<Job>;

/// Finds a session, and serves an order on it.
pub(super) type Serve = dyn FnOnce(&Arc<Desk>, &Order, &Reply) + Send;

/// How long a wait that was stopped may take to end: a slice, and some.
const STOPPED: Duration = Duration::from_secs(3);

impl Order {
    /// The time after which a caller waits no longer for a server that is silent.
    pub(super) fn patience(&self) -> impl FnMut() -> bool + use<> {
        let (start, stop) = (Instant::now(), self.request.stop.clone());
        let lease = self.request.lease;
        let limit = self.request.timeout.map(|time| time.saturating_add(lease));
        let mut stopped = None;
        move || {
            if stop.as_ref().is_some_and(StopToken::is_stopped) {
                stopped.get_or_insert_with(Instant::now);
            }
            stopped.is_some_and(|since: Instant| since.elapsed() > STOPPED)
                || limit.is_some_and(|limit| start.elapsed() > limit)
        }
    }

    pub(super) fn given_up(&self) -> Error {
        let lock = self.request.lock.clone();
        match self
            .request
            .stop
            .as_ref()
            .is_some_and(StopToken::is_stopped)
        {
            true => Error::Stopped { lock },
            false => self.lost("the server does not answer"),
        }
    }

    fn lost(&self, reason: &str) -> Error {
        let failure = Failure::Lost(reason.into());
        Error::acquire(self.request.lock.clone(), None, failure)
    }
}

/// Serves an order on a session of its own.
pub(super) fn start(serve: Box<Serve>, order: &Order) -> Result<(Held, Arc<Desk>), Error> {
    let desk = Arc::new(Office::new(StopToken::new()));
    let started = Thread::start({
        let (desk, order) = (Arc::clone(&desk), order.clone());
        move |reply: &Reply| serve(&desk, &order, reply)
    });
    let no_session = |error| Error::no_session(&order.request.lock, false, error);
    let mut thread = started.map_err(no_session)?;
    let mut gives_up = order.patience();
    match thread.hear(|| gives_up() || desk.has_lapsed()) {
        Heard::News(Ok(held)) => Ok((held, desk)),
        Heard::News(Err(Refused::Failed(error))) => Err(error),
        Heard::News(Err(Refused::Elsewhere)) | Heard::Nothing | Heard::Ended => {
            desk.leave();
            Err(order.given_up())
        }
    }
}

/// Acquires a lock, or a slot.
fn acquire<H: SessionHandle>(
    order: &Order,
    find: impl FnOnce(&Acquire<'_>) -> Result<H, Error>,
) -> Result<Suspended, Error> {
    let request = &order.request;
    let guard = match &order.slots {
        None => sections::guard(request, find)?,
        Some(slots) => semaphore::permit(request, slots, find)?.guard,
    };
    Ok(guard.suspend())
}

/// Takes the first lock on a session of the backend, and keeps it, and those that come after it.
pub(super) fn serve<B: LockBackend>(
    backend: &mut B,
    desk: &Arc<Desk>,
    order: &Order,
    reply: &Reply,
) {
    let mut found = None;
    let acquired = acquire(order, {
        let (found, request) = (&mut found, &order.request);
        // Threads of this process have no order among those that hold a lock by a session of its own.
        move |acquire| {
            let handle = backend.session_for(&Acquire {
                one_message: true,
                ..*acquire
            })?;
            let (handle, kept) = found.insert((handle, None));
            *kept = Some(settle(&mut **handle, request)?);
            Ok(&mut **handle)
        }
    });
    let outcome = match (acquired, &mut found) {
        (Ok(tenant), Some((handle, Some(kept)))) => {
            let session = &mut **handle;
            let mut keeper = Keeper {
                session,
                desk,
                silence: kept.0,
                pid: kept.1,
                tenants: BTreeMap::new(),
            };
            keeper.serve(tenant, order.request.at_least, reply)
        }
        (Err(error), Some((handle, Some(_)))) => {
            let is_known = !matches!(error, Error::ConnectionLost { .. });
            session::leave(&mut **handle, &[], is_known);
            Outcome::Refused(error)
        }
        (Err(error), _) => Outcome::Refused(error),
        (Ok(_), _) => return, // a lock is on a session
    };
    drop(found); // a connection is in its pool before anybody is told
    match outcome {
        Outcome::Refused(error) => drop(reply.send(Err(Refused::Failed(error)))),
        Outcome::Released(Some(told), released) => drop(told.send(released)),
        Outcome::Released(None, _) | Outcome::Ended => {}
    }
    for job in desk.abandoned() {
        if let Job::Hold(_, reply) = job {
            let _ = reply.send(Err(Refused::Elsewhere));
        }
    }
}

/// What is told once the session is left.
enum Outcome {
    Refused(Error),
    Released(Option<Sender<Result<(), Error>>>, Result<(), Error>),
    Ended,
}

/// Lets the server end the session after a silence. Returns that, and the server process.
fn settle<S: Session>(session: &mut S, request: &Request) -> Result<(Silence, Option<i32>), Error> {
    let lock = &request.lock;
    match session.in_transaction() {
        true => Err(Error::InTransaction { lock: lock.clone() }),
        false => session::settle(session, request.lease, 1, lock),
    }
}

/// Keeps a session, and what is held on it.
struct Keeper<'s, S> {
    session: &'s mut S,
    desk: &'s Arc<Desk>,
    silence: Silence,
    /// The server process.
    pid: Option<i32>,
    tenants: BTreeMap<u64, Suspended>,
}

impl<S: Session> Keeper<'_, S> {
    fn serve(&mut self, first: Suspended, at_least: Duration, reply: &Reply) -> Outcome {
        if let Err(error) = self.begin(&first) {
            // Of another session there is nothing to put back.
            if !matches!(error, Error::MovedSession { .. }) {
                let released = first.release(self.session);
                session::leave(self.session, &[], released.is_ok());
            }
            return Outcome::Refused(error);
        }
        self.give(first, at_least, reply);
        let mut last = (None, Ok(()));
        let mut closed = self.is_closed();
        while !closed {
            let Some(job) = self.keep() else { break };
            match job {
                Job::Hold(order, reply) => self.hold(&order, &reply),
                Job::Release(id, told) => {
                    let tenant = self.tenants.remove(&id);
                    let released = tenant.map_or(Ok(()), |held| held.release(self.session));
                    match &released {
                        Ok(()) => self.desk.forget(id),
                        Err(error) => self.desk.lose(why(error)),
                    }
                    closed = self.is_closed();
                    match told {
                        Some(told) if closed => last = (Some(told), released),
                        Some(told) => drop(told.send(released)),
                        None => {}
                    }
                }
            }
            closed = closed || self.is_closed();
        }
        if closed {
            session::leave(self.session, &[], true);
            return Outcome::Released(last.0, last.1);
        }
        self.tenants.clear();
        if !self.session.is_broken() {
            self.session.terminate(); // the locks are free from now on, whatever became of the session
        }
        Outcome::Ended
    }

    /// Begins to count, and asks for the first time. The server has just answered, so that nobody waits for longer
    /// than a lease for it to answer again.
    fn begin(&mut self, first: &Suspended) -> Result<(), Error> {
        let lock = || first.lock().clone();
        let clock = Clock::start(self.silence, Moment::now());
        let held = sql::held_by_session(first.lock()).raising().text();
        let label = first.label(); // some drivers send the two one after the other
        let (held, here) = ([&*label, &held, "; "].concat(), label + sql::lease::PID);
        let begun = self.desk.begin(clock);
        let mut answer = insist(|| self.session.message(&held, &here));
        if let Err(Failure::Sql { .. }) = answer {
            answer = insist(|| self.session.query(&here)); // it may not ask for the lock
        }
        let here = match answer {
            Ok(lines) => lines.first().and_then(|line| line.parse().ok()),
            Err(Failure::Refused(Refusal::NotHeld)) => None, // a pooler has reset the session, or moved it
            Err(failure) => return Err(Error::acquire(lock(), None, failure)),
        };
        if here.is_none() || here != self.pid {
            if let Some(pid) = self.pid {
                // The lock and the settings are there, where others may come by.
                let _ = self.session.send(&sql::lease::end(pid));
            }
            return Err(Error::MovedSession { lock: lock() });
        }
        match begun && !self.desk.has_lapsed() {
            true => Ok(()),
            false => {
                let late = "the server took longer than the lease to answer";
                let failure = Failure::Lost(late.into());
                Err(Error::acquire(lock(), None, failure))
            }
        }
    }

    /// Keeps what is held until something is to be done. The question is about one lock, since nobody else lets
    /// one go on this session: what ends one ends all.
    fn keep(&mut self) -> Option<Job> {
        let lock = self.tenants.values().next();
        let question = Question {
            lock: lock.map(Suspended::lock),
            pid: self.pid,
            label: || lock.map(Suspended::label).unwrap_or_default(),
        };
        keep(self.session, self.desk, &question)
    }

    fn is_closed(&self) -> bool {
        self.tenants.is_empty() && self.desk.close()
    }

    /// Tries to take a lock beside those that are held.
    fn hold(&mut self, order: &Order, reply: &Reply) {
        let lock = &order.request.lock;
        let beside = |tenant: &Suspended| lock.may_wait_for(tenant.lock());
        let one_is_a_slot = |tenant: &Suspended| {
            let held = tenant.lock().keys();
            tenant.lock().slot().is_some() != order.slots.is_some()
                && lock.keys().iter().any(|key| held.contains(key))
        };
        if self
            .tenants
            .values()
            .any(|tenant| beside(tenant) || one_is_a_slot(tenant))
        {
            let _ = reply.send(Err(Refused::Elsewhere));
            return;
        }
        match acquire(order, |_| Ok(&mut *self.session)) {
            Ok(tenant) => self.give(tenant, order.request.at_least, reply),
            Err(error) => drop(reply.send(Err(Refused::Failed(error)))),
        }
    }

    /// Gives what is held to whoever wanted it, if he still does.
    fn give(&mut self, tenant: Suspended, at_least: Duration, reply: &Reply) {
        let id = nesting::number();
        let held = Held {
            desk: Arc::clone(self.desk),
            id,
            lock: tenant.lock().clone(),
            slot: tenant.lock().slot(),
            lease: self.silence.time(),
            until: Instant::now().checked_add(at_least),
            ended: false,
        };
        if let Err(mpsc::SendError(unwanted)) = reply.send(Ok(held)) {
            if let Ok(mut held) = unwanted {
                held.ended = true; // this thread would wait for itself
            }
            let _ = tenant.release(self.session);
        } else {
            self.tenants.insert(id, tenant);
        }
    }
}

/// Why a release found the lock lost.
fn why(error: &Error) -> String {
    use std::error::Error as _;
    error.source().unwrap_or(error).to_string()
}

/// Says that a lock is lost, and why.
pub(super) fn lost(lock: &LockInfo, desk: &Desk, otherwise: &str) -> Error {
    let source = desk.loss().map_or_else(|| otherwise.into(), Into::into);
    Error::LockLost {
        lock: lock.clone(),
        source: Some(source),
    }
}
