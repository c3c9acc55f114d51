//! Times on the command line.

use std::time::Duration;

use humantime::{format_duration, parse_duration};

/// Longer than anybody waits, and short enough to add to any clock: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Each look locks the server's whole lock table for a moment.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The same as the library's.
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// The longest that the server can count.
const LONGEST_LEASE: Duration = Duration::from_millis(i32::MAX as u64);

/// Seconds, or numbers with their units, such as `1m 30s`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let is_number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let time = match text.parse::<f64>() {
        Ok(seconds) if is_number => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST),
        _ => parse_duration(text).map_err(
            |_| "no time: write seconds, or numbers with units, such as 5, 300ms or \"1m 30s\"",
        )?,
    };
    Ok(time.min(LONGEST))
}

/// The time between two looks.
pub(crate) fn pause(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST_PAUSE, text)
}

pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST_LEASE, text).map(|time| time.min(LONGEST_LEASE))
}

fn at_least(least: Duration, text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    match time < least {
        true => Err(format!("it must be at least {}", format_duration(least))),
        false => Ok(time),
    }
}
