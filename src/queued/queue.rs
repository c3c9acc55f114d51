//! The queues in memory: whose turn it is for each key, and who waits. They know nothing of
//! connections and locks, and use threads only through `super::sync`, so that
//! `tests/queue_model.rs` can run this file in all interleavings.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Instant;

use super::sync::{Arc, Monitor, MutexGuard, Thread, ThreadId, current};

/// The queues of all keys that are in use; a key that nobody wants has none. The map does not
/// shrink: it keeps room for the most keys that were ever in use at one time.
pub(crate) struct Queues<K, T> {
    keys: Monitor<HashMap<K, Queue<T>>>,
}

struct Queue<T> {
    /// The thread whose turn it is. It may not have woken up yet.
    owner: ThreadId,
    /// What the last owner handed over to this one.
    handed_over: Option<T>,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    thread: Thread,
    takes_over: bool,
}

/// How long a thread waits for its turn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    Until(Instant),
    Forever,
}

/// A thread's turn. It ends when this is dropped, and the next thread's begins.
pub(crate) struct Turn<K: Eq + Hash + Clone, T> {
    queues: Arc<Queues<K, T>>,
    key: K,
    /// Whether another thread has the turn by now.
    over: bool,
}

impl<K: Eq + Hash + Clone, T> Queues<K, T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            keys: Monitor::new(HashMap::new()),
        })
    }

    /// Waits for this thread's turn, first come first served, and returns what the last owner has
    /// handed over to it. Returns `None` if the wait timed out or was `stopped`.
    ///
    /// Whoever stops it unparks this thread afterwards, and the wait ends at once. `stopped` is
    /// called with the queues locked, so it must not block.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: K,
        takes_over: bool,
        patience: Patience,
        stopped: impl Fn() -> bool,
    ) -> Option<(Turn<K, T>, Option<T>)> {
        let thread = current();
        let me = thread.id();
        let turn = |key| Turn {
            queues: Arc::clone(self),
            key,
            over: false,
        };
        let mut keys = self.keys.lock();
        let queue = match keys.entry(key.clone()) {
            Entry::Vacant(place) => {
                place.insert(Queue::of(me));
                return Some((turn(key), None));
            }
            Entry::Occupied(queue) => queue.into_mut(),
        };
        let deadline = match patience {
            Patience::None => return None,
            Patience::Until(deadline) => Some(deadline),
            Patience::Forever => None,
        };
        queue.waiters.push_back(Waiter { thread, takes_over });
        let mut out_of_time = false;
        loop {
            let queue = queue_of(&mut keys, &key);
            // Also at the end of the wait: what was handed over to this thread is nobody else's.
            if queue.owner == me {
                let handed_over = queue.handed_over.take();
                return Some((turn(key), handed_over));
            }
            if out_of_time || stopped() {
                queue.waiters.retain(|waiter| waiter.thread.id() != me);
                return None;
            }
            (keys, out_of_time) = self.keys.wait(keys, deadline);
        }
    }

    /// How many threads wait, for any key.
    pub(crate) fn waiting(&self) -> usize {
        let keys = self.keys.lock();
        keys.values().map(|queue| queue.waiters.len()).sum()
    }

    /// How many keys are in use, and for how many there is room.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        let keys = self.keys.lock();
        (keys.len(), keys.capacity())
    }
}

impl<T> Queue<T> {
    fn of(owner: ThreadId) -> Self {
        Self {
            owner,
            handed_over: None,
            waiters: VecDeque::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, T> Turn<K, T> {
    /// Whether there is a next thread that takes over.
    pub(crate) fn next_takes_over(&self) -> bool {
        let mut keys = self.queues.keys.lock();
        let next = queue_of(&mut keys, &self.key).waiters.front();
        next.is_some_and(|next| next.takes_over)
    }

    /// Ends the turn and hands something over to the next thread, or gives it back if there is none
    /// that takes over.
    pub(crate) fn hand_over(&mut self, what: T) -> Result<(), T> {
        self.end(what, |next| next.takes_over)
    }

    /// The same to whichever thread is next.
    pub(crate) fn hand_to_any(&mut self, what: T) -> Result<(), T> {
        self.end(what, |_| true)
    }

    fn end(&mut self, what: T, fit: impl FnOnce(&Waiter) -> bool) -> Result<(), T> {
        let mut keys = self.queues.keys.lock();
        let queue = queue_of(&mut keys, &self.key);
        if !queue.waiters.front().is_some_and(fit) {
            return Err(what);
        }
        queue.handed_over = Some(what);
        self.over = true;
        next(keys, &self.key);
        Ok(())
    }
}

impl<K: Eq + Hash + Clone, T> Drop for Turn<K, T> {
    fn drop(&mut self) {
        if !self.over {
            next(self.queues.keys.lock(), &self.key);
        }
    }
}

/// Makes it the next thread's turn. If there is none, removes the queue.
fn next<K: Eq + Hash + Clone, T>(mut keys: MutexGuard<'_, HashMap<K, Queue<T>>>, key: &K) {
    let Entry::Occupied(mut queue) = keys.entry(key.clone()) else {
        unreachable!("{IN_USE}");
    };
    let Some(Waiter { thread, .. }) = queue.get_mut().waiters.pop_front() else {
        queue.remove();
        return;
    };
    queue.get_mut().owner = thread.id();
    drop(keys); // or the thread that wakes up would wait for it at once
    thread.unpark();
}

fn queue_of<'q, K: Eq + Hash, T>(keys: &'q mut HashMap<K, Queue<T>>, key: &K) -> &'q mut Queue<T> {
    keys.get_mut(key).expect(IN_USE)
}

const IN_USE: &str = "a key has a queue for as long as a thread owns it";
