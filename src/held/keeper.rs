//! Many holds on one session.

use std::fmt;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use super::Held;
use super::backend::by_connecting;
use super::hold::{Desk, Job, Order, Refused, Reply, start};
use super::office::LOOK;
use crate::driver::{BoxError, LockBackend};
use crate::error::Error;

/// Keeps many holds on one connection and one thread, so that a process that holds 200 keys does not need 200
/// connections.
///
/// It connects with the first hold, and closes the connection (or gives it back to its pool) with the last. A hold
/// takes a connection of its own, which later ones share, if it has to wait, if this process already holds one of its
/// keys by the shared connection (the server would grant it to its session again), or if it has another lease.
///
/// All that is held on one connection is lost with it.
///
/// Clones are the same keeper.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// use pglock::held::Keeper;
/// use pglock::{Lock, key};
///
/// let keeper = Keeper::new(move || Client::connect(&url, NoTls));
/// let tenants = ["ada", "bob", "eve"];
/// let held = tenants.map(|tenant| Lock::new(&keeper, key!("doc:keeper:{tenant}")).hold());
/// for held in held {
///     assert!(!held?.is_lost()); // all three by one connection
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    connect: Box<Connect>,
    desks: Mutex<Vec<(Duration, Arc<Desk>)>>,
    /// While somebody connects for a first hold, others wait for him, and not for a connection each.
    opening: Mutex<()>,
}

type Connect = dyn Fn(&Arc<Desk>, &Order, &Reply) + Send + Sync;

/// What a try on the sessions that there are has brought.
enum Tried {
    Held(Held),
    /// Somebody else holds it.
    Busy(Error),
    Failed(Error),
    /// No session could try.
    Nowhere,
}

impl Keeper {
    /// A keeper whose connections come from `connect`: `Client::connect(…)`, `PgConnection::establish(…)`, or
    /// `pool.get()`.
    pub fn new<C: LockBackend, E: Into<BoxError>>(
        connect: impl Fn() -> Result<C, E> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            connect: Box::new(move |desk, order, reply| {
                by_connecting(&connect, desk, order, reply);
            }),
            desks: Mutex::default(),
            opening: Mutex::default(),
        }))
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open_desks(None).len()
    }

    pub(super) fn serve(&self, order: &Order) -> Result<Held, Error> {
        let waits = order.request.timeout != Some(Duration::ZERO);
        let mut attempt = order.clone();
        if waits {
            attempt.request.timeout = Some(Duration::ZERO);
            attempt.request.name_holders = Some(false);
        }
        let mut tried = self.try_on_all(&attempt);
        if let Tried::Nowhere = tried {
            let Some(_opening) = self.opening(order) else {
                return Err(order.given_up());
            };
            tried = self.try_on_all(&attempt); // somebody may have connected meanwhile
            if let Tried::Nowhere = tried {
                tried = match self.open(&attempt) {
                    Ok(held) => Tried::Held(held),
                    Err(busy @ Error::Timeout { .. }) => Tried::Busy(busy),
                    Err(error) => Tried::Failed(error),
                };
            }
        }
        match tried {
            Tried::Held(held) => Ok(held),
            Tried::Busy(_) | Tried::Nowhere if waits => self.open(order),
            Tried::Busy(error) | Tried::Failed(error) => Err(error),
            Tried::Nowhere => Err(order.given_up()),
        }
    }

    /// Waits until nobody else connects, for no longer than for the server.
    fn opening(&self, order: &Order) -> Option<MutexGuard<'_, ()>> {
        let mut gives_up = order.patience();
        loop {
            match self.0.opening.try_lock() {
                Ok(opening) => return Some(opening),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if gives_up() => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
            }
        }
    }

    /// Takes a lock by a new connection.
    fn open(&self, order: &Order) -> Result<Held, Error> {
        let lease = order.request.lease;
        let shared = Arc::clone(&self.0);
        let serve = Box::new(move |desk: &Arc<Desk>, order: &Order, reply: &Reply| {
            (shared.connect)(desk, order, reply);
        });
        let (held, desk) = start(serve, order)?;
        lock(&self.0.desks).push((lease, desk));
        Ok(held)
    }

    fn try_on_all(&self, order: &Order) -> Tried {
        for desk in self.open_desks(Some(order.request.lease)) {
            let (reply, news) = mpsc::channel();
            if !desk.submit(Instant::now(), Job::Hold(order.clone().into(), reply)) {
                continue;
            }
            let mut gives_up = order.patience();
            let answer = loop {
                match news.recv_timeout(LOOK) {
                    Err(mpsc::RecvTimeoutError::Timeout) if !desk.has_lapsed() && !gives_up() => {}
                    answer => break answer,
                }
            };
            match answer {
                Ok(Ok(held)) => return Tried::Held(held),
                Ok(Err(Refused::Failed(busy @ Error::Timeout { .. }))) => return Tried::Busy(busy),
                Ok(Err(Refused::Failed(Error::ConnectionLost { .. }))) => {}
                Ok(Err(Refused::Failed(error))) => return Tried::Failed(error),
                Ok(Err(Refused::Elsewhere)) | Err(_) => {}
            }
        }
        Tried::Nowhere
    }

    fn open_desks(&self, lease: Option<Duration>) -> Vec<Arc<Desk>> {
        let mut desks = lock(&self.0.desks);
        desks.retain(|(_, desk)| !desk.has_lapsed());
        let same = desks
            .iter()
            .filter(|(of, _)| lease.is_none_or(|lease| lease == *of));
        same.map(|(_, desk)| Arc::clone(desk)).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
