//! How long a client whose host or network vanishes keeps its locks.

use std::time::Duration;

use humantime::format_duration;

use super::facts::Facts;
use super::finding::{Finding, Level};

/// A lock that nobody works under for longer than this is worth a warning.
const LONG: u64 = 60;

pub(super) fn findings(facts: &Facts) -> [Finding; 2] {
    let noticed = match facts.says("socket") {
        true => Some(0),
        false => Keepalives::of(facts).and_then(|keepalives| keepalives.seconds()),
    };
    [idle(facts, noticed), busy(facts, noticed)]
}

/// While the server waits for the client's next statement.
fn idle(facts: &Facts, noticed: Option<u64>) -> Finding {
    const NAME: &str = "vanished_client";
    if facts.says("socket") {
        return Finding::fine(
            NAME,
            "The connection is a Unix socket: the server notices at once that an idle client is gone, and frees its locks.",
        );
    }
    let advice = "Set tcp_keepalives_idle = 10, tcp_keepalives_interval = 5 and tcp_keepalives_count = 3 \
                  on the server, for 25 s.";
    match noticed {
        None => Finding::new(
            Level::Warning,
            NAME,
            "A client whose host vanishes keeps its locks for a time that the server does not report.",
            advice,
        ),
        Some(seconds) if seconds > LONG => {
            Finding::new(Level::Warning, NAME, kept(facts, seconds), advice)
        }
        Some(seconds) => Finding::fine(NAME, kept(facts, seconds)),
    }
}

fn kept(facts: &Facts, seconds: u64) -> String {
    let setting = |name: &str| facts.setting(name).unwrap_or("0").to_owned();
    format!(
        "A client whose host vanishes keeps its locks for {seconds} s{}: tcp_keepalives_idle is {} s, \
         tcp_keepalives_interval {} s, tcp_keepalives_count {}, tcp_user_timeout {} ms.",
        in_words(seconds),
        setting("tcp_keepalives_idle"),
        setting("tcp_keepalives_interval"),
        setting("tcp_keepalives_count"),
        setting("tcp_user_timeout"),
    )
}

fn in_words(seconds: u64) -> String {
    match seconds < 120 {
        true => String::new(),
        false => format!(" ({})", format_duration(Duration::from_secs(seconds))),
    }
}

/// While a statement runs, or waits for a lock: by default the server does not check the connection then.
fn busy(facts: &Facts, noticed: Option<u64>) -> Finding {
    const NAME: &str = "vanished_waiter";
    let interval = facts
        .number("client_connection_check_interval")
        .unwrap_or(0);
    let advice =
        "Set client_connection_check_interval = '2s' on the server (PostgreSQL 14, Linux).";
    match (interval, noticed) {
        (0, _) => Finding::new(
            Level::Warning,
            NAME,
            "The server notices only at the end of a statement that its client is gone: until then a waiting \
             statement keeps its place in the queue, may acquire the lock, and holds it.",
            advice,
        ),
        (interval, Some(noticed)) => {
            let seconds = noticed + interval.div_ceil(1000);
            Finding::fine(
                NAME,
                format!(
                    "If a client is gone while its statement runs or waits for a lock, the server notices after {seconds} s{}: client_connection_check_interval is {interval} ms.",
                    in_words(seconds)
                ),
            )
        }
        (interval, None) => Finding::fine(
            NAME,
            format!(
                "client_connection_check_interval is {interval} ms: the server ends a wait whose connection is known to be closed."
            ),
        ),
    }
}

/// The server's settings for this connection, as its operating system has them.
struct Keepalives {
    idle: u64,
    interval: u64,
    count: u64,
    user_timeout_ms: u64,
}

impl Keepalives {
    fn of(facts: &Facts) -> Option<Self> {
        Some(Self {
            idle: facts.number("tcp_keepalives_idle")?,
            interval: facts.number("tcp_keepalives_interval")?,
            count: facts.number("tcp_keepalives_count")?,
            user_timeout_ms: facts.number("tcp_user_timeout").unwrap_or(0),
        })
    }

    /// The first probe is sent after `idle`, another one every `interval`; when `count` of them are
    /// unanswered, the connection is given up. With a user timeout, Linux checks that in place of the
    /// count, each time that a probe is due except the first (tcp_keepalive_timer).
    fn seconds(&self) -> Option<u64> {
        let Self { idle, interval, .. } = *self;
        if idle == 0 || interval == 0 {
            return None;
        }
        let probes = match self.user_timeout_ms {
            0 => self.count,
            ms => ms
                .div_ceil(1000)
                .saturating_sub(idle)
                .div_ceil(interval)
                .max(1),
        };
        Some(idle + interval * probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(idle: u64, interval: u64, count: u64, user_timeout_ms: u64) -> Option<u64> {
        let keepalives = Keepalives {
            idle,
            interval,
            count,
            user_timeout_ms,
        };
        keepalives.seconds()
    }

    #[test]
    fn the_time_to_notice_is_that_of_the_probes() {
        assert_eq!(seconds(7200, 75, 9, 0), Some(7875));
        assert_eq!(seconds(10, 5, 3, 0), Some(25));
    }

    #[test]
    fn a_user_timeout_takes_the_place_of_the_count() {
        assert_eq!(seconds(10, 5, 3, 1), Some(15));
        assert_eq!(seconds(10, 5, 3, 12_000), Some(15));
        assert_eq!(seconds(10, 5, 3, 15_001), Some(20));
        assert_eq!(seconds(10, 5, 3, 60_000), Some(60));
    }

    #[test]
    fn what_the_server_does_not_tell_is_not_known() {
        assert_eq!(seconds(0, 0, 0, 0), None);
    }
}
