//! For how long a statement waits.

use std::time::Duration;

/// How one message waits for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitTime {
    /// Not at all.
    No,
    /// In the server's queue, for at most this many milliseconds. `None`: for as long as the
    /// session's own `lock_timeout` allows, which is for ever unless somebody has set it.
    InPlace(Option<i32>),
    /// For one slice of this many milliseconds.
    Slice(i32),
    /// The same, but no longer than the session's own `lock_timeout`.
    OwnSlice(i32),
}

impl WaitTime {
    /// The milliseconds that `lock_timeout` is set to.
    pub(crate) fn limit(self) -> Option<i32> {
        match self {
            Self::No | Self::InPlace(None) => None,
            Self::InPlace(Some(millis)) | Self::Slice(millis) | Self::OwnSlice(millis) => {
                Some(millis)
            }
        }
    }
}

/// Converts a time to milliseconds for `lock_timeout`: rounded up, since 0 would mean for ever, and
/// at most what the setting can hold. `None` is no time at all.
pub(crate) fn millis(time: Duration) -> Option<i32> {
    match time.as_nanos().div_ceil(1_000_000) {
        0 => None,
        millis => Some(i32::try_from(millis).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_become_what_lock_timeout_can_hold() {
        assert_eq!(millis(Duration::ZERO), None);
        assert_eq!(millis(Duration::from_nanos(1)), Some(1));
        assert_eq!(millis(Duration::from_micros(1_500)), Some(2));
        assert_eq!(millis(Duration::from_secs(2)), Some(2_000));
        assert_eq!(millis(Duration::MAX), Some(i32::MAX));
    }

    proptest! {
        /// Never 0, which would wait for ever, never less than was asked for, and at most a
        /// millisecond more, up to what `lock_timeout` can hold.
        #[test]
        fn a_duration_of_any_length_is_kept(seconds: u64, nanos in 0..1_000_000_000_u32) {
            for seconds in [seconds, seconds % 3_000_000, 0] {
                let timeout = Duration::new(seconds, nanos);
                match millis(timeout) {
                    None => prop_assert_eq!(timeout, Duration::ZERO),
                    Some(i32::MAX) => prop_assert!(timeout.as_millis() >= i32::MAX as u128 - 1),
                    Some(millis) => {
                        prop_assert!(millis > 0);
                        let waited = Duration::from_millis(millis as u64);
                        prop_assert!(waited >= timeout);
                        prop_assert!(waited - timeout < Duration::from_millis(1));
                    }
                }
            }
        }
    }
}
