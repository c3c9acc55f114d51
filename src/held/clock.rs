//! How long a hold lasts by its holder's own clock, and when the holder asks the server. Pure: the
//! time comes from outside, so that the elections' model can set it.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// A moment by two clocks of this machine. `steady` never steps, but on most systems it stands still
/// while the machine is suspended; `wall` goes on, but can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub(crate) steady: Duration,
    pub(crate) wall: Duration,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self {
            steady: START.elapsed(),
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// The longest time that can have passed. A hold ends by this: too early at worst.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.saturating_sub(earlier.wall);
        self.surely_since(earlier).max(wall)
    }

    /// The time that has surely passed. A successor waits by this for an earlier term to end.
    #[must_use]
    pub fn surely_since(self, earlier: Self) -> Duration {
        self.steady.saturating_sub(earlier.steady)
    }
}

/// How long the server waits to hear from a holder's session before it ends it. In whole milliseconds, as the
/// server counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence(Duration);

impl Silence {
    const SHORTEST: Duration = Duration::from_secs(1);
    /// As long as the server can count.
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

    /// `None`: too short or too long.
    #[must_use]
    pub fn new(time: Duration) -> Option<Self> {
        if !(Self::SHORTEST..=Self::LONGEST).contains(&time) {
            return None;
        }
        let millis = u64::try_from(time.as_millis()).ok()?;
        Some(Self(Duration::from_millis(millis)))
    }

    /// How long it is.
    #[must_use]
    pub fn time(self) -> Duration {
        self.0
    }

    /// How long a hold lasts after an answered question was sent. The rest of the silence is for clocks that
    /// run at different speeds.
    #[must_use]
    pub fn term(self) -> Duration {
        self.0 - self.0 / 10
    }

    /// From one question to the next.
    #[must_use]
    pub fn between_questions(self) -> Duration {
        self.0 / 3
    }
}

/// The end of a hold, which each answer from the server puts off.
#[derive(Debug)]
pub struct Clock {
    silence: Silence,
    /// When the last answered question was sent.
    asked: Moment,
    /// Once over, a hold stays over: somebody may have seen it.
    over: bool,
}

impl Clock {
    /// Begins with a question that was sent at `asked` and has been answered.
    #[must_use]
    pub fn start(silence: Silence, asked: Moment) -> Self {
        Self {
            silence,
            asked,
            over: false,
        }
    }

    /// Whether it is over.
    pub fn is_over(&mut self, now: Moment) -> bool {
        self.over |= now.since(self.asked) >= self.silence.term();
        self.over
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// A question that was sent at `asked` has been answered: the server knew this session at some
    /// time after that, and will wait for a whole silence from then on.
    pub fn answered(&mut self, asked: Moment, now: Moment) {
        if !self.is_over(now) {
            self.asked = asked;
        }
    }

    /// What is left of the hold if the server says nothing more.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        self.silence.term().saturating_sub(now.since(self.asked))
    }

    /// Whether it is time to ask again.
    #[must_use]
    pub fn is_question_due(&self, now: Moment) -> bool {
        now.since(self.asked) >= self.silence.between_questions()
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
    fn a_silence_is_a_second_at_least_and_what_the_server_can_count_at_most() {
        let silence = |time| Silence::new(time).map(|silence| silence.time().as_millis());
        assert_eq!(silence(Duration::ZERO), None);
        assert_eq!(silence(Duration::from_millis(999)), None);
        assert_eq!(silence(Duration::from_micros(1_234_567)), Some(1_234));
        let longest = i32::MAX as u64;
        assert_eq!(
            silence(Duration::from_millis(longest)),
            Some(longest.into())
        );
        assert_eq!(silence(Duration::from_millis(longest + 1)), None);
        assert_eq!(silence(Duration::MAX), None);
    }

    #[test]
    fn a_hold_is_over_by_whichever_clock_is_first() {
        let silence = Silence::new(Duration::from_secs(1)).unwrap();
        let clock = || Clock::start(silence, at(500, 10_000));
        assert!(!clock().is_over(at(1_399, 10_899)));
        assert!(clock().is_over(at(1_400, 10_000)), "the wall clock stands");
        assert!(
            clock().is_over(at(500, 10_900)),
            "the machine was suspended"
        );
        assert!(!clock().is_over(at(501, 0)), "the wall clock was set back");
    }

    #[test]
    fn a_hold_that_was_over_is_over() {
        let silence = Silence::new(Duration::from_secs(1)).unwrap();
        let mut clock = Clock::start(silence, at(0, 0));
        clock.answered(at(600, 600), at(1_000, 1_000)); // too late
        assert!(clock.is_over(at(1_000, 1_000)));
        assert!(clock.is_over(at(10, 10)));
    }

    proptest! {
        /// The client's hold is over before a silence that began after its last question, however the question
        /// travels, and with clocks that differ by a twentieth.
        #[test]
        fn a_hold_ends_before_the_silence(
            silence in 1_000..100_000_u64,
            sent in 0..1_000_000_u64,
            travelled in 0..200_000_u64,
            percent in 95..=105_u64,
        ) {
            let length = Silence::new(Duration::from_millis(silence)).unwrap();
            let mut clock = Clock::start(length, at(sent, 0));
            let ended = sent + (travelled + silence) * percent / 100;
            prop_assert!(clock.is_over(at(ended, 0)));
            prop_assert_eq!(clock.left(at(ended, 0)), Duration::ZERO);
        }

        /// There is time for a second question if the first is answered in less than half a silence.
        #[test]
        fn a_question_comes_long_before_the_end(length in 1_000..1_000_000_u64) {
            let silence = Silence::new(Duration::from_millis(length)).unwrap();
            prop_assert!(silence.between_questions() * 2 < silence.term());
        }
    }
}
