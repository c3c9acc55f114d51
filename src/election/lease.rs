//! How long a term lasts by its leader's own clock, and when the leader asks the server. Pure: the
//! time comes from outside, so that `model` can set it.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// A moment by two clocks of this machine. `steady` never steps, but on most systems it stands still
/// while the machine is suspended; `wall` goes on, but can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) steady: Duration,
    pub(super) wall: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self {
            steady: START.elapsed(),
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// The longest time that can have passed. A term ends by this: too early at worst.
    pub(super) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.saturating_sub(earlier.wall);
        self.surely_since(earlier).max(wall)
    }

    /// The time that has surely passed. A successor waits by this for an earlier term to end.
    pub(super) fn surely_since(self, earlier: Self) -> Duration {
        self.steady.saturating_sub(earlier.steady)
    }
}

/// How long the server waits to hear from the leader before it ends the leader's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease(Duration);

impl Lease {
    pub(super) const DEFAULT: Duration = Duration::from_secs(10);
    const SHORTEST: Duration = Duration::from_secs(1);
    /// As long as the server can count.
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

    /// In whole milliseconds, as the server counts. `None`: too short or too long.
    pub(super) fn new(length: Duration) -> Option<Self> {
        if !(Self::SHORTEST..=Self::LONGEST).contains(&length) {
            return None;
        }
        let millis = u64::try_from(length.as_millis()).ok()?;
        Some(Self(Duration::from_millis(millis)))
    }

    pub(super) fn length(self) -> Duration {
        self.0
    }

    pub(super) fn millis(self) -> i32 {
        i32::try_from(self.0.as_millis()).unwrap_or(i32::MAX)
    }

    /// How long a term lasts after an answered question was sent. The rest of the lease is for
    /// clocks that run at different speeds.
    pub(super) fn term(self) -> Duration {
        self.0 - self.0 / 10
    }

    /// From one question to the next.
    pub(super) fn between_questions(self) -> Duration {
        self.0 / 3
    }
}

/// The end of a term, which each answer from the server puts off.
#[derive(Debug)]
pub(super) struct TermClock {
    lease: Lease,
    /// When the last answered question was sent.
    asked: Moment,
    /// Once over, a term stays over: somebody may have seen it.
    over: bool,
}

impl TermClock {
    pub(super) fn start(lease: Lease, asked: Moment) -> Self {
        Self {
            lease,
            asked,
            over: false,
        }
    }

    pub(super) fn is_over(&mut self, now: Moment) -> bool {
        self.over |= now.since(self.asked) >= self.lease.term();
        self.over
    }

    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// A question that was sent at `asked` has been answered: the server knew this session at some
    /// time after that, and will wait for a whole lease from then on.
    pub(super) fn answered(&mut self, asked: Moment, now: Moment) {
        if !self.is_over(now) {
            self.asked = asked;
        }
    }

    /// What is left of the term if the server says nothing more.
    pub(super) fn left(&self, now: Moment) -> Duration {
        self.lease.term().saturating_sub(now.since(self.asked))
    }

    pub(super) fn is_question_due(&self, now: Moment) -> bool {
        now.since(self.asked) >= self.lease.between_questions()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(steady: u64, wall: u64) -> Moment {
        Moment {
            steady: Duration::from_millis(steady),
            wall: Duration::from_millis(wall),
        }
    }

    #[test]
    fn a_lease_is_one_second_at_least_and_what_the_server_can_count_at_most() {
        let lease = |millis| Lease::new(Duration::from_millis(millis));
        assert_eq!(lease(999), None);
        assert_eq!(lease(1_000).map(Lease::millis), Some(1_000));
        assert_eq!(lease(i32::MAX as u64).map(Lease::millis), Some(i32::MAX));
        assert_eq!(lease(i32::MAX as u64 + 1), None);
        assert_eq!(Lease::new(Duration::MAX), None);
        let fraction = Lease::new(Duration::from_micros(1_234_567));
        assert_eq!(fraction.map(Lease::millis), Some(1_234));
    }

    #[test]
    fn a_term_is_over_by_whichever_clock_is_first() {
        let lease = Lease::new(Duration::from_secs(1)).unwrap();
        let clock = || TermClock::start(lease, at(500, 10_000));
        assert!(!clock().is_over(at(1_399, 10_899)));
        assert!(clock().is_over(at(1_400, 10_000)), "the wall clock stands");
        assert!(
            clock().is_over(at(500, 10_900)),
            "the machine was suspended"
        );
        assert!(!clock().is_over(at(501, 0)), "the wall clock was set back");
    }

    #[test]
    fn a_term_that_was_over_is_over() {
        let lease = Lease::new(Duration::from_secs(1)).unwrap();
        let mut clock = TermClock::start(lease, at(0, 0));
        clock.answered(at(600, 600), at(1_000, 1_000)); // too late
        assert!(clock.is_over(at(1_000, 1_000)));
        assert!(clock.is_over(at(10, 10)));
    }

    proptest! {
        /// The client's term is over before the server can have let anybody else in, however the
        /// question travels, and with clocks that differ by a twentieth.
        #[test]
        fn a_term_ends_before_the_lease(
            length in 1_000..100_000_u64,
            sent in 0..1_000_000_u64,
            travelled in 0..200_000_u64,
            percent in 95..=105_u64,
        ) {
            let lease = Lease::new(Duration::from_millis(length)).unwrap();
            let mut clock = TermClock::start(lease, at(sent, 0));
            let ended = sent + (travelled + length) * percent / 100;
            prop_assert!(clock.is_over(at(ended, 0)));
            prop_assert_eq!(clock.left(at(ended, 0)), Duration::ZERO);
        }

        /// There is time for a second question if the first is answered in less than half a lease.
        #[test]
        fn a_question_comes_long_before_the_end(length in 1_000..1_000_000_u64) {
            let lease = Lease::new(Duration::from_millis(length)).unwrap();
            prop_assert!(lease.between_questions() * 2 < lease.term());
        }
    }
}
