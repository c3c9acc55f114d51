//! What the two sides know of each other: the term or its campaign, and the keeper of its
//! connection. Nobody waits for the server with this locked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lease::{Lease, Moment, TermClock};
use super::predecessor::LOOK;
use super::token::Token;
use crate::error::Error;
use crate::failure::BoxError;
use crate::stop::StopToken;

/// A term that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elected {
    pub(super) lease: Lease,
    pub(super) token: Token,
    pub(super) number: i32,
}

/// The outcome of a campaign. `None`: somebody else leads, or may still lead.
pub(super) type Outcome = Result<Option<Elected>, Error>;

#[derive(Debug)]
pub(super) struct Office {
    stop: Option<StopToken>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The clock of the term, once it has begun.
    clock: Option<TermClock>,
    /// The outcome, for the campaign.
    outcome: Option<Outcome>,
    /// Nobody wants the office any more.
    left: bool,
    /// Why the term ended before it was left.
    loss: Option<BoxError>,
    /// The keeper has released the connection.
    finished: bool,
}

impl Office {
    pub(super) fn new(stop: Option<StopToken>) -> Self {
        Self {
            stop,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(StopToken::is_stopped)
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
    fn wait_for<T>(
        &self,
        time: Duration,
        mut look: impl FnMut(&mut State) -> Option<T>,
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
            // Nobody announces the end of a term by its clock.
            let clock = state.clock.as_ref();
            let left = clock.map_or(left, |clock| left.min(clock.left(Moment::now())));
            let left = left.max(Duration::from_micros(1));
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The side of the term and its campaign.
impl Office {
    /// Waits for the outcome of a campaign. Returns `None` if it was stopped and the server has not
    /// answered for longer than `patience`, or if the thread has panicked.
    pub(super) fn outcome(&self, patience: Duration) -> Option<Outcome> {
        let mut stopped: Option<Instant> = None;
        let news = |state: &mut State| match state.outcome.take() {
            None if state.finished => Some(None),
            outcome => outcome.map(Some),
        };
        loop {
            if let Some(outcome) = self.wait_for(LOOK, news) {
                return outcome;
            }
            if self.is_stopped() && stopped.get_or_insert_with(Instant::now).elapsed() > patience {
                return None;
            }
        }
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
            if let Some(clock) = &mut state.clock {
                clock.end();
            }
            in_time
        })
    }

    /// Waits until the keeper has released the connection.
    pub(super) fn wait_for_keeper(&self, time: Duration) -> bool {
        let start = Instant::now();
        let mut state = self.lock();
        while !state.finished {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn take_loss(&self) -> Option<BoxError> {
        self.lock().loss.take()
    }
}

impl State {
    fn has_lapsed(&mut self) -> bool {
        let clock = self.clock.as_mut();
        clock.is_some_and(|clock| clock.is_over(Moment::now()))
    }
}

/// The side of the keeper.
impl Office {
    pub(super) fn is_left(&self) -> bool {
        self.lock().left
    }

    /// Sleeps for that long. Returns `true`, at once, if the office is left or the campaign stopped.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let start = Instant::now();
        loop {
            let left = time.saturating_sub(start.elapsed()).min(LOOK);
            if self.is_stopped()
                || self
                    .wait_for(left, |state| state.left.then_some(()))
                    .is_some()
            {
                return true;
            }
            if start.elapsed() >= time {
                return false;
            }
        }
    }

    /// Begins the term. Returns `false` if nobody wants it any more, or if it is already over.
    pub(super) fn begin(&self, mut clock: TermClock, elected: Elected) -> bool {
        self.change(|state| {
            if state.left || clock.is_over(Moment::now()) {
                return false;
            }
            state.clock = Some(clock);
            state.outcome = Some(Ok(Some(elected)));
            true
        })
    }

    pub(super) fn report(&self, outcome: Outcome) {
        self.change(|state| state.outcome = Some(outcome));
    }

    /// Sleeps until the next look at the connection, unless something else is due. Returns what is
    /// due.
    pub(super) fn next_duty(&self) -> Duty {
        let duty = |state: &mut State| {
            if state.left {
                return Some(Duty::Leave);
            }
            if state.has_lapsed() {
                return Some(Duty::GiveUp);
            }
            let clock = state.clock.as_ref()?;
            clock.is_question_due(Moment::now()).then_some(Duty::Ask)
        };
        if self.is_stopped() {
            self.changed.notify_all(); // a thread that waits for the end does not look at the token
        }
        self.wait_for(LOOK, duty).unwrap_or(Duty::Look)
    }

    pub(super) fn answered(&self, asked: Moment) {
        if let Some(clock) = &mut self.lock().clock {
            clock.answered(asked, Moment::now());
        }
    }

    pub(super) fn lose(&self, reason: BoxError) {
        self.change(|state| {
            if let Some(clock) = &mut state.clock {
                clock.end();
            }
            state.loss.get_or_insert(reason);
        });
    }

    pub(super) fn finish(&self) {
        self.change(|state| state.finished = true);
    }
}

/// What a keeper does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Looks whether the connection is still there.
    Look,
    /// Asks the server, which learns from it that the leader is there.
    Ask,
    /// Resigns.
    Leave,
    /// Ends a term that is over by the clock.
    GiveUp,
}
