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

/// How long a leader can keep others out after its last sign of life. Half of it is the silence: how long the
/// server waits to hear from a session before it ends it, and how long a successor waits without a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    silence: Duration,
}

impl Lease {
    pub(super) const DEFAULT: Duration = Duration::from_secs(10);
    pub(super) const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
    /// As long as the server can count.
    const LONGEST_SILENCE: Duration = Duration::from_millis(i32::MAX as u64);

    /// `None`: too short or too long.
    pub(super) fn new(length: Duration) -> Option<Self> {
        Self::of_silence(length / 2)
    }

    /// In whole milliseconds, as the server counts.
    pub(super) fn of_silence(silence: Duration) -> Option<Self> {
        if !(Self::SHORTEST_SILENCE..=Self::LONGEST_SILENCE).contains(&silence) {
            return None;
        }
        let silence = Duration::from_millis(u64::try_from(silence.as_millis()).ok()?);
        Some(Self { silence })
    }

    pub(super) fn length(self) -> Duration {
        self.silence * 2
    }

    pub(super) fn silence(self) -> Duration {
        self.silence
    }

    /// How long a term lasts after an answered question was sent. The rest of the silence is for clocks that
    /// run at different speeds.
    pub(super) fn term(self) -> Duration {
        self.silence - self.silence / 10
    }

    /// From one question to the next.
    pub(super) fn between_questions(self) -> Duration {
        self.silence / 3
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
    /// time after that, and will wait for a whole silence from then on.
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
    fn a_lease_is_two_seconds_at_least_and_what_the_server_can_count_at_most() {
        let silence = |lease: Lease| lease.silence().as_millis();
        let lease = |millis| Lease::new(Duration::from_millis(millis)).map(silence);
        assert_eq!(lease(1_999), None);
        assert_eq!(lease(2_000), Some(1_000));
        let longest = 2 * i32::MAX as u64;
        assert_eq!(lease(longest), Some(i32::MAX as u128));
        assert_eq!(lease(longest + 2), None);
        assert_eq!(Lease::new(Duration::MAX), None);
        let fraction = Lease::new(Duration::from_micros(2_469_134));
        assert_eq!(fraction.map(silence), Some(1_234));
    }

    #[test]
    fn a_term_is_over_by_whichever_clock_is_first() {
        let lease = Lease::new(Duration::from_secs(2)).unwrap();
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
        let lease = Lease::new(Duration::from_secs(2)).unwrap();
        let mut clock = TermClock::start(lease, at(0, 0));
        clock.answered(at(600, 600), at(1_000, 1_000)); // too late
        assert!(clock.is_over(at(1_000, 1_000)));
        assert!(clock.is_over(at(10, 10)));
    }

    proptest! {
        /// The client's term is over before a silence that began after its last question, however the question
        /// travels, and with clocks that differ by a twentieth.
        #[test]
        fn a_term_ends_before_the_silence(
            silence in 1_000..100_000_u64,
            sent in 0..1_000_000_u64,
            travelled in 0..200_000_u64,
            percent in 95..=105_u64,
        ) {
            let lease = Lease::of_silence(Duration::from_millis(silence)).unwrap();
            let mut clock = TermClock::start(lease, at(sent, 0));
            let ended = sent + (travelled + silence) * percent / 100;
            prop_assert!(clock.is_over(at(ended, 0)));
            prop_assert_eq!(clock.left(at(ended, 0)), Duration::ZERO);
        }

        /// There is time for a second question if the first is answered in less than half a silence.
        #[test]
        fn a_question_comes_long_before_the_end(length in 2_000..1_000_000_u64) {
            let lease = Lease::new(Duration::from_millis(length)).unwrap();
            prop_assert!(lease.between_questions() * 2 < lease.term());
        }
    }
}
