//! The queues of a queued pool, in every interleaving of their threads: the file itself, with
//! loom's primitives in place of the standard library's.
//!
//! The threads come for one key, each in its own way. Checked in all interleavings: one owner at a
//! time; what is handed over arrives once, at a thread that takes over; nobody is forgotten (loom
//! sees a thread that waits for ever as a deadlock); and nothing is left behind.

#[path = "../src/queued/queue.rs"]
mod queue;

mod sync {
    use std::time::Instant;

    use loom::sync::Mutex;

    pub(super) use loom::sync::MutexGuard;
    pub(super) use loom::thread::{Thread, ThreadId, current};
    pub(super) use std::sync::Arc;

    pub(super) struct Monitor<T>(Mutex<T>);

    impl<T> Monitor<T> {
        pub(super) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        /// A deadline is over when the thread looks next, however far the others are by then.
        pub(super) fn wait<'m>(
            &'m self,
            guard: MutexGuard<'m, T>,
            deadline: Option<Instant>,
        ) -> (MutexGuard<'m, T>, bool) {
            drop(guard);
            if deadline.is_none() {
                loom::thread::park();
            }
            (self.lock(), deadline.is_some())
        }
    }
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Instant;

use queue::{Patience, Queues};

/// How a thread comes for the key, and how it goes.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Waits, takes over, hands over.
    Section,
    /// Waits, but neither takes nor hands over.
    Transaction,
    /// Takes over, but hands nothing over: the body failed.
    Failure,
    /// A section with a timeout.
    Timeout,
    /// A section that does not wait.
    Try,
}
use Way::{Failure, Section, Timeout, Transaction, Try};

/// The lock at the server, which is handed over. loom does not look into these atomics.
#[derive(Default)]
struct Lock {
    owners: AtomicU32,
    taken: AtomicU32,
    freed: AtomicU32,
}

fn come(queues: &Arc<Queues<u32, Arc<Lock>>>, lock: &Arc<Lock>, way: Way) {
    let patience = match way {
        Section | Transaction | Failure => Patience::Forever,
        Timeout => Patience::Until(Instant::now()),
        Try => Patience::None,
    };
    let Some((mut turn, handed_over)) = queues.enter(1, way != Transaction, patience) else {
        assert!(matches!(way, Timeout | Try), "gave up");
        return;
    };
    assert_eq!(lock.owners.fetch_add(1, SeqCst), 0, "one owner at a time");
    assert!(
        way != Transaction || handed_over.is_none(),
        "handed over to the wrong one"
    );
    let held = handed_over.unwrap_or_else(|| {
        let before = lock.taken.fetch_add(1, SeqCst);
        assert_eq!(before, lock.freed.load(SeqCst), "taken while it is held");
        Arc::clone(lock)
    });
    loom::thread::yield_now();
    lock.owners.fetch_sub(1, SeqCst);
    let hands_over = !matches!(way, Transaction | Failure) && turn.next_takes_over();
    // By then, the next thread may have given up.
    if !hands_over || turn.hand_over(held).is_err() {
        lock.freed.fetch_add(1, SeqCst);
    }
}

/// Runs the threads in all interleavings. Each item is a thread, and what it does in turn.
fn explore<const N: usize>(threads: [&'static [Way]; N]) {
    loom::model(move || {
        let (queues, lock) = (Queues::new(), Arc::<Lock>::default());
        let threads = threads.map(|ways| {
            let (queues, lock) = (Arc::clone(&queues), Arc::clone(&lock));
            loom::thread::spawn(move || {
                for way in ways {
                    come(&queues, &lock, *way);
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(queues.size().0, 0, "a queue is left behind");
        assert_eq!(queues.waiting(), 0);
        let (taken, freed) = (lock.taken.load(SeqCst), lock.freed.load(SeqCst));
        assert_eq!(taken, freed, "a lock was dropped on the floor");
    });
}

#[test]
fn sections() {
    explore([&[Section], &[Section], &[Section]]);
    explore([&[Section, Section], &[Section, Section]]);
}

#[test]
fn what_hands_nothing_over() {
    explore([&[Section], &[Transaction], &[Section]]);
    explore([&[Failure], &[Section], &[Transaction]]);
}

#[test]
fn what_gives_up() {
    explore([&[Section], &[Timeout], &[Section]]);
    explore([&[Section], &[Timeout], &[Timeout]]);
    explore([&[Section], &[Timeout], &[Transaction]]);
    explore([&[Section], &[Try], &[Timeout]]);
}
