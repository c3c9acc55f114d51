//! What a queued pool hands out, and how it goes from thread to thread.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, Pool, PooledConnection};

use super::QueuedPool;
use super::owners::Owner;
use super::queue::Turn;
use crate::backends::{Session, SessionHandle};
use crate::failure::{Answer, Failure};
use crate::request::{LockInfo, Standing};
use crate::sql;

/// A section that was shorter cannot have had an answer from the server, for a round trip takes four
/// system calls and two wake-ups of a process besides the statement. The fastest of 100,000 seen on
/// a local socket took 6.8 µs for an empty query, 8.2 µs for `BEGIN; COMMIT`. And none of the
/// drivers' calls returns without an answer after having sent something that matters here.
pub(super) const QUICK: Duration = Duration::from_micros(2);

/// For how long nobody has to hear from the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) handovers: u32,
    pub(super) hold: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handovers: 256,
            hold: Duration::from_millis(10),
        }
    }
}

/// What one thread leaves for the next: a connection, and how the lock stands on it.
pub(super) struct Legacy<M: ManageConnection> {
    connection: PooledConnection<M>,
    /// Since when the pool has been without it.
    checked_out: Instant,
    lock: Left,
}

/// Left instead: it has waited for a connection of the pool, in vain.
pub(super) struct InVain;

pub(super) type Bequest<M> = Result<Legacy<M>, InVain>;

#[derive(Clone, Copy)]
enum Left {
    /// Not held. The connection is left all the same: the next thread is sooner at the server with
    /// it than by the pool.
    Free,
    Held(Unheard),
    /// Held, but the server is to be asked before the next section, and others come first.
    Overdue,
}

/// What has happened to a held lock since the server was last heard of.
#[derive(Clone, Copy)]
struct Unheard {
    handovers: u32,
    since: Instant,
}

/// A connection from a [`QueuedPool`](crate::QueuedPool): what a guard on it is a guard over.
pub struct QueuedConnection<M: ManageConnection<Connection: Session>> {
    /// `None` once it has been handed over. It goes back to the pool before the turn ends, so that
    /// the next thread finds it there.
    connection: Option<PooledConnection<M>>,
    /// `None` for a lock that does not queue.
    place: Option<Place<M>>,
    _owner: Option<Owner>,
}

struct Place<M: ManageConnection> {
    turn: Turn<LockInfo, Bequest<M>>,
    pool: Pool<M>,
    limits: Limits,
    waited: Duration,
    checked_out: Instant,
    lock: Left,
    /// Whether somebody answers for the lock.
    adopted: bool,
}

impl<M: ManageConnection<Connection: Session>> QueuedConnection<M> {
    pub(super) fn unqueued(connection: PooledConnection<M>, owner: Option<Owner>) -> Self {
        Self {
            connection: Some(connection),
            place: None,
            _owner: owner,
        }
    }

    pub(super) fn queued(
        legacy: Legacy<M>,
        turn: Turn<LockInfo, Bequest<M>>,
        pool: &QueuedPool<M>,
        owner: Owner,
        waited: Duration,
    ) -> Self {
        let place = Place {
            turn,
            pool: pool.pool.clone(),
            limits: pool.limits,
            waited,
            checked_out: legacy.checked_out,
            lock: legacy.lock,
            adopted: false,
        };
        Self {
            connection: Some(legacy.connection),
            place: Some(place),
            _owner: Some(owner),
        }
    }
}

impl<M: ManageConnection> Legacy<M> {
    pub(super) fn new(connection: PooledConnection<M>) -> Self {
        Self {
            connection,
            checked_out: Instant::now(),
            lock: Left::Free,
        }
    }
}

impl<M: ManageConnection<Connection: Session>> SessionHandle for QueuedConnection<M> {
    fn adopt(&mut self) -> Standing {
        let Some(place) = &mut self.place else {
            return Standing::Free;
        };
        place.adopted = true;
        match place.lock {
            Left::Free => Standing::Free,
            Left::Held(_) => Standing::Held,
            Left::Overdue => Standing::Overdue,
        }
    }

    fn waited(&self) -> Duration {
        let place = self.place.as_ref();
        place.map_or(Duration::ZERO, |place| place.waited)
    }

    fn pass_on(&mut self, lock: &LockInfo, took: Duration) -> bool {
        let (Some(place), Some(session)) = (&mut self.place, self.connection.as_deref_mut()) else {
            return false;
        };
        let fit = !thread::panicking() && !session.is_broken() && !session.in_transaction();
        if !fit || place.is_wanted_back() {
            return false;
        }
        let unheard = place.leave_unheard(took);
        let brisk = unheard.is_some();
        let left = match unheard {
            Some(left) => left,
            None if !place.turn.has_heir() => return false,
            None => match confirm(session, lock) {
                Ok(left) => left,
                Err(_) => return false, // the release will say what is wrong, and right it
            },
        };
        let Some(connection) = self.connection.take() else {
            return false;
        };
        let legacy = Legacy {
            connection,
            checked_out: place.checked_out,
            lock: left,
        };
        if let Err(Ok(legacy)) = place.turn.hand_over(Ok(legacy), brisk) {
            self.connection = Some(legacy.connection); // the heir has given up
            return matches!(legacy.lock, Left::Free);
        }
        true
    }
}

impl<M: ManageConnection<Connection: Session>> Place<M> {
    /// Whether the pool has been without the connection for long, and has no other. Those who wait
    /// there, for other keys, are as many as they like, and cannot be seen.
    fn is_wanted_back(&self) -> bool {
        self.checked_out.elapsed() >= self.limits.hold && {
            let state = self.pool.state();
            state.idle_connections == 0 && state.connections >= self.pool.max_size()
        }
    }

    /// How the lock is left without a word from the server, if it may be.
    fn leave_unheard(&self, took: Duration) -> Option<Left> {
        if took >= QUICK {
            return None;
        }
        let now = Instant::now();
        let (handovers, since) = match self.lock {
            Left::Held(unheard) => (unheard.handovers, unheard.since),
            // The server has given the lock at the beginning of this section.
            Left::Free | Left::Overdue => (0, now.checked_sub(took).unwrap_or(now)),
        };
        let Limits {
            handovers: limit,
            hold,
        } = self.limits;
        if handovers >= limit {
            return None;
        }
        let handovers = handovers + 1;
        Some(if handovers < limit && now - since < hold {
            Left::Held(Unheard { handovers, since })
        } else {
            Left::Overdue
        })
    }
}

/// Asks the server, and lets waiters of other sessions go first.
fn confirm<S: Session>(session: &mut S, lock: &LockInfo) -> Result<Left, Failure> {
    match session.send(&sql::give_way(lock, S::ANSWERS)) {
        Ok(()) => Ok(Left::Held(Unheard {
            handovers: 0,
            since: Instant::now(),
        })),
        Err(Failure::Refused(Answer::Busy)) => Ok(Left::Free),
        Err(failure) => Err(failure),
    }
}

/// A lock that nobody has adopted must not go back to the pool.
impl<M: ManageConnection<Connection: Session>> Drop for QueuedConnection<M> {
    fn drop(&mut self) {
        if let (Some(place), Some(session)) = (&self.place, self.connection.as_deref_mut())
            && !place.adopted
            && !matches!(place.lock, Left::Free)
        {
            session.end();
        }
    }
}

impl<M: ManageConnection<Connection: Session>> Deref for QueuedConnection<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        self.connection.as_ref().expect(IN_USE)
    }
}

impl<M: ManageConnection<Connection: Session>> DerefMut for QueuedConnection<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        self.connection.as_mut().expect(IN_USE)
    }
}

const IN_USE: &str = "only a guard that is being consumed hands its connection over";

impl<M: ManageConnection<Connection: Session>> fmt::Debug for QueuedConnection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedConnection").finish_non_exhaustive()
    }
}
