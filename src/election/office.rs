//! What the two sides know of each other: the term or its campaign, and the thread that keeps its
//! connection. Nobody waits for the server with this locked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lease::{Moment, TermClock};
use crate::failure::BoxError;
use crate::stop::StopToken;

/// From one look of a leader at its connection to the next. A look sends nothing to the server.
pub(super) const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Office {
    stop: StopToken,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The clock of the term, once it has begun.
    clock: Option<TermClock>,
    /// When the thread last heard from the server.
    heard: Instant,
    /// Nobody wants the office any more.
    left: bool,
    /// Why the term ended before it was left.
    loss: Option<BoxError>,
}

impl State {
    fn has_lapsed(&mut self) -> bool {
        let clock = self.clock.as_mut();
        clock.is_some_and(|clock| clock.is_over(Moment::now()))
    }

    fn end(&mut self) {
        if let Some(clock) = &mut self.clock {
            clock.end();
        }
    }
}

impl Office {
    pub(super) fn new(stop: StopToken) -> Self {
        let state = State {
            clock: None,
            heard: Instant::now(),
            left: false,
            loss: None,
        };
        Self {
            stop,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// No user code runs under it, so its data is sound even after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Waits until `look` finds something, or the time is over.
    fn wait_for<T>(&self, time: Duration, look: impl Fn(&mut State) -> Option<T>) -> Option<T> {
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
            // Nobody announces the end of a term by its clock.
            let clock = state.clock.as_ref().map(|clock| clock.left(Moment::now()));
            let clock = clock.filter(|left| !left.is_zero()).unwrap_or(left);
            let waited = self.changed.wait_timeout(state, clock.min(left));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_stopped() || self.has_lapsed()
    }

    /// Whether the term has ended: by its clock, by a loss, or because it was left.
    pub(super) fn has_lapsed(&self) -> bool {
        self.lock().has_lapsed()
    }

    pub(super) fn wait_for_end(&self, time: Duration) -> bool {
        let over = |state: &mut State| (self.is_stopped() || state.has_lapsed()).then_some(());
        self.wait_for(time, over).is_some()
    }

    /// Ends the term, or the campaign. Returns `false` if the term was already over.
    pub(super) fn leave(&self) -> bool {
        self.change(|state| {
            let in_time = !state.has_lapsed();
            state.left = true;
            state.end();
            in_time
        })
    }

    pub(super) fn take_loss(&self) -> Option<BoxError> {
        self.lock().loss.take()
    }

    pub(super) fn silent(&self) -> Duration {
        self.lock().heard.elapsed()
    }
}

/// The side of the thread.
impl Office {
    pub(super) fn heard(&self) {
        self.lock().heard = Instant::now();
    }

    /// Sleeps for that long. Returns `true`, at once, if the office is left or the campaign stopped.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let start = Instant::now();
        let left = |state: &mut State| state.left.then_some(());
        loop {
            let time = time.saturating_sub(start.elapsed());
            if self.is_stopped() || self.wait_for(time.min(LOOK), left).is_some() {
                return true;
            }
            if time.is_zero() {
                return false;
            }
        }
    }

    /// Begins the term. Returns `false` if nobody wants it any more, or if it is already over.
    pub(super) fn begin(&self, mut clock: TermClock) -> bool {
        let mut state = self.lock();
        let begins = !state.left && !clock.is_over(Moment::now());
        state.clock = begins.then_some(clock);
        begins
    }

    /// Sleeps until the next look at the connection, unless something else is due. Returns what is
    /// due.
    pub(super) fn next_duty(&self) -> Duty {
        if self.is_stopped() {
            self.changed.notify_all(); // a thread that waits for the end does not look at the token
        }
        let duty = |state: &mut State| match (state.left || state.has_lapsed(), &state.clock) {
            (true, _) => Some(Duty::Leave),
            (_, Some(clock)) if clock.is_question_due(Moment::now()) => Some(Duty::Ask),
            _ => None,
        };
        self.wait_for(LOOK, duty).unwrap_or(Duty::Look)
    }

    pub(super) fn answered(&self, asked: Moment) {
        if let Some(clock) = &mut self.lock().clock {
            clock.answered(asked, Moment::now());
        }
    }

    pub(super) fn lose(&self, reason: BoxError) {
        self.change(|state| {
            state.end();
            state.loss.get_or_insert(reason);
        });
    }
}

/// What the thread of a term does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Looks whether the connection is still there.
    Look,
    /// Asks the server, which learns from it that the leader is there.
    Ask,
    /// Lets the key go: the leader has resigned, or the term is over by the clock.
    Leave,
}
