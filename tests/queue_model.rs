//! The queues of a queued pool, in all interleavings of their threads: the source file itself, with
//! loom's primitives in place of the standard library's.
//!
//! The threads want one key, each in its own way. Each interleaving is checked: there is one owner at a
//! time; what is handed over arrives once, at a thread that takes over; no thread is forgotten (to loom,
//! a thread that waits for ever is a deadlock); nothing is left behind; and a stopped thread does not
//! wait for its turn.

#[path = "../src/queued/queue.rs"]
mod queue;

mod sync {
    use std::time::Instant;

    use loom::sync::{Condvar, Mutex};

    pub(super) use loom::sync::MutexGuard;
    pub(super) use loom::thread::ThreadId;
    pub(super) use std::sync::Arc;

    loom::thread_local! {
        static CURRENT: Thread = Thread {
            id: loom::thread::current().id(),
            unparked: Arc::default(),
        };
    }

    /// Not loom's own, whose `unpark` also wakes a thread that waits for a mutex.
    #[derive(Clone)]
    pub(super) struct Thread {
        id: ThreadId,
        unparked: Arc<(Mutex<bool>, Condvar)>,
    }

    pub(super) fn current() -> Thread {
        CURRENT.with(Clone::clone)
    }

    impl Thread {
        pub(super) fn id(&self) -> ThreadId {
            self.id
        }

        pub(super) fn unpark(&self) {
            let (unparked, changed) = &*self.unparked;
            *unparked.lock().unwrap() = true;
            changed.notify_one();
        }

        fn park(&self) {
            let (unparked, changed) = &*self.unparked;
            let mut unparked = unparked.lock().unwrap();
            while !*unparked {
                unparked = changed.wait(unparked).unwrap();
            }
            *unparked = false;
        }
    }

    pub(super) struct Monitor<T>(Mutex<T>);

    impl<T> Monitor<T> {
        pub(super) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        /// A deadline has passed when the thread next checks it, however far the others are by then.
        pub(super) fn wait<'m>(
            &'m self,
            guard: MutexGuard<'m, T>,
            deadline: Option<Instant>,
        ) -> (MutexGuard<'m, T>, bool) {
            drop(guard);
            if deadline.is_none() {
                current().park();
            }
            (self.lock(), deadline.is_some())
        }
    }
}

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Release, SeqCst},
};
use std::time::Instant;

use loom::sync::Mutex;
use queue::{Patience, Queues};
use sync::Thread;

/// How a thread asks for the key, and how it leaves.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Waits, takes over, hands over.
    Section,
    /// Waits, but neither takes nor hands over.
    Transaction,
    /// Takes over, but does not hand the lock over, since the body failed. It tells the next thread.
    Failure,
    /// A section with a timeout.
    Timeout,
    /// A section that does not wait.
    Try,
    /// A section that can be stopped.
    Stoppable,
    /// Does not want the key, but stops those that can be stopped.
    Stop,
}
use Way::{Failure, Section, Stop, Stoppable, Timeout, Transaction, Try};

/// Stops waits as a caller would.
#[derive(Default)]
struct Stopper {
    stopped: loom::sync::atomic::AtomicBool,
    threads: Mutex<Vec<Thread>>,
}

impl Stopper {
    fn wakes_this_thread(&self) {
        self.threads.lock().unwrap().push(sync::current());
    }

    fn stop(&self) {
        self.stopped.store(true, Release);
        for thread in self.threads.lock().unwrap().drain(..) {
            thread.unpark();
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Acquire)
    }
}

/// The lock at the server, which is handed over. loom does not look into these atomics.
#[derive(Default)]
struct Lock {
    owners: AtomicU32,
    taken: AtomicU32,
    freed: AtomicU32,
}

/// The lock, if there is one to hand over.
type HandOver = Option<Arc<Lock>>;

fn come(queues: &Arc<Queues<u32, HandOver>>, lock: &Arc<Lock>, stopper: &Stopper, way: Way) {
    if way == Stop {
        return stopper.stop();
    }
    if way == Stoppable {
        stopper.wakes_this_thread();
    }
    let stopped = || way == Stoppable && stopper.stopped();
    let patience = match way {
        Section | Transaction | Failure | Stoppable | Stop => Patience::Forever,
        Timeout => Patience::Until(Instant::now()),
        Try => Patience::None,
    };
    let Some((mut turn, handed_over)) = queues.enter(1, way != Transaction, patience, stopped)
    else {
        assert!(matches!(way, Timeout | Try | Stoppable), "gave up");
        return;
    };
    assert_eq!(lock.owners.fetch_add(1, SeqCst), 0, "one owner at a time");
    let handed_over = handed_over.flatten();
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
    if !hands_over || turn.hand_over(Some(held)).is_err() {
        lock.freed.fetch_add(1, SeqCst);
    }
    if way == Failure {
        let _ = turn.hand_to_any(None);
    }
}

/// Runs the threads in all interleavings with at most three interruptions. Each item is a thread, with
/// what it does one after the other.
fn explore<const N: usize>(threads: [&'static [Way]; N]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let (queues, lock) = (Queues::new(), Arc::<Lock>::default());
        let stopper = Arc::<Stopper>::default();
        let threads = threads.map(|ways| {
            let (queues, lock) = (Arc::clone(&queues), Arc::clone(&lock));
            let stopper = Arc::clone(&stopper);
            loom::thread::spawn(move || {
                for way in ways {
                    come(&queues, &lock, &stopper, *way);
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

#[test]
fn what_is_stopped() {
    explore([&[Section], &[Stoppable], &[Stop]]);
    explore([&[Stoppable], &[Stoppable], &[Stop]]);
    explore([&[Section], &[Stoppable, Section], &[Stop]]);
    explore([&[Section, Stop], &[Stoppable], &[Timeout]]);
}

/// Otherwise the threads would wait for each other.
#[test]
fn who_is_stopped_does_not_wait_for_its_turn() {
    loom::model(|| {
        let (queues, stopper) = (Queues::<_, ()>::new(), Arc::<Stopper>::default());
        let turn = queues.enter(1, true, Patience::Forever, || false);
        let waiter = loom::thread::spawn({
            let (queues, stopper) = (Arc::clone(&queues), Arc::clone(&stopper));
            move || {
                stopper.wakes_this_thread();
                let turn = queues.enter(1, true, Patience::Forever, || stopper.stopped());
                assert!(turn.is_none());
            }
        });
        let stop = loom::thread::spawn(move || stopper.stop());
        waiter.join().unwrap();
        assert_eq!(queues.waiting(), 0);
        drop(turn);
        assert_eq!(queues.size().0, 0);
        stop.join().unwrap();
    });
}
