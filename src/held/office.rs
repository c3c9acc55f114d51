//! What the two sides know of each other: those who hold something, or wait for it, and the thread that keeps
//! their session. Nobody waits for the server with this locked.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use super::clock::{Clock, Moment};
use crate::error::Error;
use crate::failure::BoxError;
use crate::stop::StopToken;
use crate::targets::LockInfo;

/// From one look of the thread at its connection to the next. A look sends nothing to the server.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// From one look at the clocks to the next, of those who wait for the end of a hold.
const LOOK_AT_CLOCKS: Duration = Duration::from_millis(100);

/// What is to be called when the hold with that number is lost.
type Callback = Box<dyn FnOnce(&Loss) + Send>;

/// `J` is what the thread can be asked to do beside keeping the session.
pub(crate) struct Office<J = ()> {
    stop: StopToken,
    state: Mutex<State<J>>,
    /// Something is to be done: for the thread.
    bell: Condvar,
    /// What the session holds is lost, or let go: for all others.
    news: Condvar,
}

struct State<J> {
    /// Runs from the first grant on.
    clock: Option<Clock>,
    /// When the thread last heard from the server.
    heard: Instant,
    /// Nobody wants the session any more.
    left: bool,
    /// Each from its moment on, in the order in which they came.
    jobs: BTreeMap<(Instant, u64), J>,
    number: u64,
    /// Why the clock ended before the session was left.
    loss: Option<Loss>,
    on_loss: Vec<(u64, Callback)>,
    /// A thread waits to call them.
    watched: bool,
}

impl<J> State<J> {
    fn has_lapsed(&mut self) -> bool {
        let clock = self.clock.as_mut();
        clock.is_some_and(|clock| clock.is_over(Moment::now()))
    }

    fn end(&mut self) {
        if let Some(clock) = &mut self.clock {
            clock.end();
        }
    }

    fn next_job(&mut self) -> Option<J> {
        let first = self.jobs.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }
}

/// Why what a session held is lost.
#[derive(Clone)]
pub(crate) struct Loss(Arc<dyn std::error::Error + Send + Sync>);

impl Loss {
    pub(crate) fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into().into())
    }
}

fn silent() -> Loss {
    Loss::new("the server did not answer within the lease")
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Loss {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl<J> Office<J> {
    pub(crate) fn new(stop: StopToken) -> Self {
        let state = State {
            clock: None,
            heard: Instant::now(),
            left: false,
            jobs: BTreeMap::new(),
            number: 0,
            loss: None,
            on_loss: Vec::new(),
            watched: false,
        };
        Self {
            stop,
            state: Mutex::new(state),
            bell: Condvar::new(),
            news: Condvar::new(),
        }
    }

    /// No user code runs under it, so its data is sound even after a panic.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State<J>) -> T) -> T {
        let changed = change(&mut self.lock());
        self.bell.notify_all();
        self.news.notify_all();
        changed
    }

    /// Waits until `look` finds something, or the time is over.
    fn wait_for<T>(
        &self,
        changed: &Condvar,
        time: Duration,
        look: impl Fn(&mut State<J>) -> Option<T>,
    ) -> Option<T> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return None;
            }
            // Nobody announces the end of a hold by its clocks, one of which goes on while the machine sleeps.
            let waited = changed.wait_timeout(state, left.min(LOOK_AT_CLOCKS));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_stopped() || self.has_lapsed()
    }

    /// Whether the hold has ended: by its clock, by a loss, or because it was left.
    pub(crate) fn has_lapsed(&self) -> bool {
        self.lock().has_lapsed()
    }

    /// What is left of the hold if the server says nothing more.
    pub(crate) fn left(&self) -> Duration {
        let mut state = self.lock();
        let clock = (!state.has_lapsed())
            .then_some(state.clock.as_ref())
            .flatten();
        clock.map_or(Duration::ZERO, |clock| clock.left(Moment::now()))
    }

    pub(crate) fn wait_for_end(&self, time: Duration) -> bool {
        let over = |state: &mut State<J>| (self.is_stopped() || state.has_lapsed()).then_some(());
        self.wait_for(&self.news, time, over).is_some()
    }

    /// Ends the hold, or the wait for it. Returns `false` if it was already over.
    pub(crate) fn leave(&self) -> bool {
        self.change(|state| {
            let in_time = !state.has_lapsed();
            if in_time {
                state.on_loss.clear(); // those of a loss are still called
            } else if !state.left {
                state.loss.get_or_insert_with(silent);
            }
            state.left = true;
            state.end();
            in_time
        })
    }

    /// Why the hold ended before it was left.
    pub(crate) fn loss(&self) -> Option<Loss> {
        let mut state = self.lock();
        match state.loss.clone() {
            None if !state.left && state.has_lapsed() => Some(silent()),
            loss => loss,
        }
    }

    pub(crate) fn silent(&self) -> Duration {
        self.lock().heard.elapsed()
    }

    /// Has the thread do something, not before that moment. Returns `false` if it keeps the session no longer.
    pub(crate) fn submit(&self, when: Instant, job: J) -> bool {
        let mut state = self.lock();
        let open = !state.left && !state.has_lapsed();
        if open {
            state.number += 1;
            let place = (when, state.number);
            state.jobs.insert(place, job);
            self.bell.notify_all();
        }
        open
    }

    /// Forgets what was to be called for the hold with that number, unless it is lost.
    pub(crate) fn forget(&self, id: u64) {
        let mut state = self.lock();
        if !state.has_lapsed() {
            state.on_loss.retain(|(of, _)| *of != id);
        }
    }
}

impl<J: Send + 'static> Office<J> {
    /// Calls that when the hold is lost: from a thread of its own, since the one that keeps the session may wait
    /// for a server that is silent.
    pub(crate) fn on_loss(
        self: &Arc<Self>,
        id: u64,
        lock: LockInfo,
        callback: impl FnOnce(&Error) + Send + 'static,
    ) {
        let mut state = self.lock();
        if state.left {
            return;
        }
        let callback = move |loss: &Loss| {
            let source = Some(loss.clone().into());
            callback(&Error::LockLost { lock, source });
        };
        state.on_loss.push((id, Box::new(callback)));
        if std::mem::replace(&mut state.watched, true) {
            return;
        }
        drop(state);
        let office = Arc::clone(self);
        let thread = thread::Builder::new().name("pglock loss".to_owned());
        if thread.spawn(move || office.call_on_loss()).is_err() {
            self.lock().watched = false; // the next one tries again
        }
    }

    fn call_on_loss(&self) {
        loop {
            let ended = |state: &mut State<J>| {
                let ended = state.left || state.has_lapsed();
                ended.then(|| {
                    state.watched = false;
                    std::mem::take(&mut state.on_loss)
                })
            };
            let Some(callbacks) = self.wait_for(&self.news, Duration::MAX, ended) else {
                continue;
            };
            let loss = self.loss();
            for (_, callback) in callbacks {
                if let Some(loss) = &loss {
                    // The others are called all the same.
                    let call = std::panic::AssertUnwindSafe(|| callback(loss));
                    let _ = std::panic::catch_unwind(call);
                }
            }
            return;
        }
    }
}

/// The side of the thread.
impl<J> Office<J> {
    pub(crate) fn heard(&self) {
        self.lock().heard = Instant::now();
    }

    /// Sleeps for that long. Returns `true`, at once, if the office is left or the wait stopped.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let start = Instant::now();
        let left = |state: &mut State<J>| state.left.then_some(());
        loop {
            let time = time.saturating_sub(start.elapsed());
            let look = || self.wait_for(&self.bell, time.min(LOOK), left).is_some();
            if self.is_stopped() || look() {
                return true;
            }
            if time.is_zero() {
                return false;
            }
        }
    }

    /// Begins the hold. Returns `false` if nobody wants it any more, or if it is already over.
    pub(crate) fn begin(&self, mut clock: Clock) -> bool {
        let mut state = self.lock();
        let begins = !state.left && !clock.is_over(Moment::now());
        state.clock = begins.then_some(clock);
        begins
    }

    /// Sleeps until the next look at the connection, unless something else is due. Returns what is
    /// due.
    pub(crate) fn next_duty(&self) -> Duty<J> {
        if self.is_stopped() {
            self.news.notify_all(); // a thread that waits for the end does not look at the token
        }
        let duty = |state: &mut State<J>| {
            if state.left || state.has_lapsed() {
                return Some(Duty::Leave);
            }
            let clock = state.clock.as_ref();
            if clock.is_some_and(|clock| clock.is_question_due(Moment::now())) {
                return Some(Duty::Ask);
            }
            state.next_job().map(Duty::Do)
        };
        let duty = self.wait_for(&self.bell, LOOK, duty);
        if let Some(Duty::Leave) = duty {
            self.news.notify_all(); // the session is about to end, and the next holder to begin
        }
        duty.unwrap_or(Duty::Look)
    }

    pub(crate) fn answered(&self, asked: Moment) {
        if let Some(clock) = &mut self.lock().clock {
            clock.answered(asked, Moment::now());
        }
    }

    pub(crate) fn lose(&self, reason: impl Into<BoxError>) {
        let loss = Loss::new(reason);
        self.change(|state| {
            state.end();
            state.loss.get_or_insert(loss);
        });
    }

    /// Ends the office where the thread has nothing to do any more. Returns whether it has not.
    pub(crate) fn close(&self) -> bool {
        self.change(|state| {
            state.left |= state.jobs.is_empty();
            if state.left {
                state.end();
            }
            state.left
        })
    }

    /// What is left to be done by somebody else.
    pub(crate) fn abandoned(&self) -> Vec<J> {
        std::mem::take(&mut self.lock().jobs)
            .into_values()
            .collect()
    }
}

impl<J> fmt::Debug for Office<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Office").finish_non_exhaustive()
    }
}

/// What the thread does next.
#[derive(Debug)]
pub(crate) enum Duty<J> {
    /// Looks whether the connection is still there.
    Look,
    /// Asks the server, which learns from it that the holder is there.
    Ask,
    /// Something that it was asked to do.
    Do(J),
    /// Lets go: nobody wants the session any more, or the hold is over by the clock.
    Leave,
}
