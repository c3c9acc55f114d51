//! What the threads of this process hold and wait for through pools. A thread that holds a lock on one
//! connection and waits for another lock on a second can wait for ever: for itself, or for a thread that
//! waits for it. The server sees two sessions of which one is idle, and no deadlock.
//!
//! A lock that a closure holds is its thread's until the closure ends. A guard may have moved to another
//! thread, so it counts only in the queue that its connection came from.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::driver::Place;
use crate::error::Error;
use crate::targets::LockInfo;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until it gets the lock, and no timeout ends that.
    Waits,
    /// In a closure, which this thread runs.
    Holds,
    /// Neither, as far as other threads can tell.
    Unclear,
}

struct Entry {
    id: u64,
    places: Vec<Place>,
    lock: LockInfo,
    state: State,
}

type Threads = HashMap<ThreadId, Vec<Entry>>;

static THREADS: LazyLock<Mutex<Threads>> = LazyLock::new(Mutex::default);

/// What this thread waits for or holds, until this value is dropped, on any thread.
#[derive(Debug)]
pub(crate) struct Note {
    thread: ThreadId,
    id: u64,
}

/// Notes that this thread is about to wait for a lock.
///
/// # Errors
///
/// [`Error::AlreadyHeld`] if it could wait for itself, and [`Error::Deadlock`] if it would wait for a
/// thread that waits for it.
pub(crate) fn enter(
    place: Place,
    lock: &LockInfo,
    timeout: Option<Duration>,
) -> Result<Note, Error> {
    let me = thread::current().id();
    let mut threads = all();
    let mine = threads.get(&me).map_or(&[][..], Vec::as_slice);
    let held = |entry: &Entry| entry.places.contains(&place) && lock.may_wait_for(&entry.lock);
    if timeout != Some(Duration::ZERO) && mine.iter().any(held) {
        return Err(Error::AlreadyHeld { lock: lock.clone() });
    }
    let for_ever = timeout.is_none();
    if for_ever && !mine.is_empty() && is_waited_for(&threads, me, &place, lock) {
        let source = "a thread of this process holds it, and waits for what this thread holds on \
                      another connection; lock on the connection that the section was given, or \
                      take all keys at once with one Lock";
        return Err(Error::Deadlock {
            lock: lock.clone(),
            source: source.into(),
        });
    }
    let state = if for_ever {
        State::Waits
    } else {
        State::Unclear
    };
    Ok(add(&mut threads, me, vec![place], lock, state))
}

/// Notes that this thread runs a closure under a lock.
pub(crate) fn hold(places: impl IntoIterator<Item = Place>, lock: &LockInfo) -> Option<Note> {
    let places: Vec<_> = places.into_iter().collect();
    let me = thread::current().id();
    (!places.is_empty()).then(|| add(&mut all(), me, places, lock, State::Holds))
}

/// Whether this thread holds nothing through a pool, and waits for nothing.
pub(crate) fn is_idle() -> bool {
    !all().contains_key(&thread::current().id())
}

/// Whether this thread, if it waited for a lock, would in the end wait for itself through others.
fn is_waited_for(threads: &Threads, me: ThreadId, place: &Place, lock: &LockInfo) -> bool {
    let (mut wanted, mut seen) = (vec![(place, lock)], HashSet::new());
    while let Some((place, lock)) = wanted.pop() {
        let holds = |entry: &Entry| {
            entry.state == State::Holds
                && entry.places.contains(place)
                && lock.conflicts_with(&entry.lock)
        };
        for (thread, entries) in threads {
            if !entries.iter().any(holds) || !seen.insert(*thread) {
                continue;
            }
            if *thread == me {
                return true;
            }
            let waits = entries.iter().filter(|entry| entry.state == State::Waits);
            wanted.extend(waits.map(|entry| (&entry.places[0], &entry.lock)));
        }
    }
    false
}

fn add(
    threads: &mut Threads,
    thread: ThreadId,
    places: Vec<Place>,
    lock: &LockInfo,
    state: State,
) -> Note {
    let id = number();
    let lock = lock.clone();
    threads.entry(thread).or_default().push(Entry {
        id,
        places,
        lock,
        state,
    });
    Note { thread, id }
}

/// A number that is used once in this process.
pub(crate) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// No user code runs under it, so what it guards is sound even after a panic.
fn all() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Note {
    /// The wait is over: a closure begins.
    pub(crate) fn holds(&self, also: Option<Place>) {
        self.with(|entry| {
            entry.state = State::Holds;
            entry.places.extend(also);
        });
    }

    /// The wait is over: what follows may move to another thread.
    #[cfg(feature = "r2d2")]
    pub(crate) fn waits_no_more(&self) {
        self.with(|entry| entry.state = State::Unclear);
    }

    fn with(&self, change: impl FnOnce(&mut Entry)) {
        let mut threads = all();
        let entries = threads.get_mut(&self.thread);
        let entry = entries.and_then(|entries| entries.iter_mut().find(|e| e.id == self.id));
        entry.map(change);
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let mut threads = all();
        if let Some(entries) = threads.get_mut(&self.thread) {
            entries.retain(|entry| entry.id != self.id);
            if entries.is_empty() {
                threads.remove(&self.thread);
            }
        }
    }
}
