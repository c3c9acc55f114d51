//! A session's claim on a lock, read from a line of text.

use std::fmt;
use std::time::Duration;

use crate::escape::escaped;
use crate::key::Key;
use crate::targets::Mode;

/// What separates the fields of a line; it occurs in none of them.
const FIELD: char = '\x1f';

/// A session's claim on a lock: it holds it, or waits for it.
///
/// The server does not record when a lock was granted ([`pg_locks`] has the start of waits alone). A
/// session has held a lock for no longer than it has been connected
/// ([`connected_for`](Claim::connected_for)), and a transaction lock for no longer than its transaction
/// ([`transaction_for`](Claim::transaction_for)). pglock's own sessions say more where they ask whether a
/// lock with a label is held: [`held_for`](Claim::held_for).
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
///
/// Its texts are [`escaped`](crate::inspect::escaped): others have chosen them. A role that was created in a
/// database of another encoding shows bytes, as `caf\xe9`; so do all characters beyond ASCII in a database
/// whose encoding is neither UTF-8 nor one of the Latin ones and their like.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// use pglock::{Error, inspect, with_lock};
///
/// let mut other = Client::connect(&url, NoTls)?;
/// with_lock(&mut client, "doc:report", |_| {
///     for claim in inspect::holders(&mut other, "doc:report")? {
///         println!("{:?} {:?} connected for {:?}", claim.pid, claim.application, claim.connected_for);
///     }
///     Ok::<_, Error>(())
/// })?;
/// # }
/// # Ok(())
/// # }
/// ```
/// With the feature `serde`, it is written with its fields. Those that end in `_for` are seconds, and are called so:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(all(feature = "postgres", feature = "serde"))] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// use pglock::{inspect, with_lock};
///
/// let holders = with_lock(&mut client, "doc:json", |conn| inspect::holders(conn, "doc:json"))?;
/// let json = serde_json::to_value(&holders[0])?;
/// assert_eq!(json["key"], "doc:json");
/// assert_eq!(json["mode"], "exclusive");
/// assert!(json["connected_seconds"].is_f64());
/// assert!(json["waiting_seconds"].is_null());
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Claim {
    /// The key: by its name if the caller asked for it by name, otherwise as the number or pair
    /// that the server knows.
    pub key: Key,
    /// Exclusive or shared.
    pub mode: Mode,
    /// `true` if the session holds the lock, `false` if it waits for it.
    pub granted: bool,
    /// Whether it is a claim of the session that was asked.
    pub own: bool,
    /// The server process of the session. `None`: a prepared transaction, which has none.
    pub pid: Option<i32>,
    /// The session's `application_name`, if one is set.
    pub application: Option<String>,
    /// The user who is logged in.
    pub user: Option<String>,
    /// The client's IP address. `None` on a Unix socket too.
    pub client: Option<String>,
    /// What the session does: `active`, `idle`, `idle in transaction`, ….
    pub state: Option<String>,
    /// For how long it has been in that state. A session that is idle has sent its last statement so
    /// long ago.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "state_seconds", serialize_with = "as_seconds")
    )]
    pub state_for: Option<Duration>,
    /// For how long its transaction has been open, if one is.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "transaction_seconds", serialize_with = "as_seconds")
    )]
    pub transaction_for: Option<Duration>,
    /// For how long it has been connected.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "connected_seconds", serialize_with = "as_seconds")
    )]
    pub connected_for: Option<Duration>,
    /// For how long it has been waiting, if it is: the whole wait, even if it is sent in
    /// slices.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "waiting_seconds", serialize_with = "as_seconds")
    )]
    pub waiting_for: Option<Duration>,
    /// For how long it has held the lock, as far as it says so itself: its last statement was a question
    /// of pglock's about a lock with a [label](crate::Lock::labelled), as a [hold](crate::Lock::hold) and
    /// `pglock run` ask again and again, and [`is_held`](crate::LockGuard::is_held) asks once.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "held_seconds", serialize_with = "as_seconds")
    )]
    pub held_for: Option<Duration>,
    /// The processes it waits for, holders and earlier waiters (`pg_blocking_pids`); 0 stands for a
    /// prepared transaction. Empty for a holder.
    pub blocked_by: Vec<i32>,
    /// The name in its statement's label: see [`Lock::labelled`](crate::Lock::labelled). For an
    /// idle holder, the name in its last statement.
    pub label: Option<String>,
}

#[cfg(feature = "serde")]
fn as_seconds<S: serde::Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&time.map(|time| time.as_secs_f64()), serializer)
}

impl Claim {
    pub(crate) fn read_all(lines: &[String], keys: &[Key]) -> Vec<Self> {
        let claims = lines.iter().map(|line| Self::read(line, keys));
        claims.flatten().collect()
    }

    pub(crate) fn read(line: &str, keys: &[Key]) -> Option<Self> {
        fn seconds(text: &str) -> Option<Duration> {
            Duration::try_from_secs_f64(text.parse::<f64>().ok()?.max(0.0)).ok()
        }
        let fields: Vec<_> = line.split(FIELD).collect();
        let &[
            classid,
            objid,
            objsubid,
            mode,
            granted,
            own,
            pid,
            application,
            user,
            client,
            state,
            state_for,
            transaction_for,
            connected_for,
            waiting_for,
            held_for,
            blocked_by,
            label,
        ] = fields.as_slice()
        else {
            return None;
        };
        let text = |text: &str| (!text.is_empty()).then(|| escaped(text));
        let key = Key::from_pg_locks(
            classid.parse().ok()?,
            objid.parse().ok()?,
            objsubid.parse().ok()?,
        );
        Some(Self {
            key: keys
                .iter()
                .find(|known| **known == key)
                .cloned()
                .unwrap_or(key),
            mode: match mode {
                "ShareLock" => Mode::Shared,
                _ => Mode::Exclusive,
            },
            granted: granted == "true",
            own: own == "true",
            pid: pid.parse().ok(),
            application: quoted(application),
            user: quoted(user),
            client: text(client),
            state: text(state),
            state_for: seconds(state_for),
            transaction_for: seconds(transaction_for),
            connected_for: seconds(connected_for),
            waiting_for: seconds(waiting_for),
            held_for: seconds(held_for).filter(|_| granted == "true"),
            blocked_by: blocked_by
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect(),
            label: quoted(label),
        })
    }
}

/// Reads what somebody else has written: the digits of a literal's bytes.
fn quoted(digits: &str) -> Option<String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |two: &[u8]| u8::try_from(digit(&two[0])? * 16 + digit(two.get(1)?)?).ok();
    let literal = digits
        .as_bytes()
        .chunks(2)
        .map(byte)
        .collect::<Option<Vec<_>>>()?;
    let literal = literal.strip_prefix(b"E").unwrap_or(&literal);
    let mut text = literal.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let mut unquoted = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        unquoted.push(*first);
        text = match first {
            b'\'' => rest.strip_prefix(b"'").unwrap_or(rest),
            _ => rest,
        };
    }
    (!unquoted.is_empty()).then(|| escaped(unquoted))
}

impl Claim {
    /// What is known of how long it has held the lock, or waited for it.
    fn since(&self) -> Vec<String> {
        let say = |words: &str, time: Option<Duration>| Some(words.replace("{}", &short(time?)));
        if !self.granted {
            return say("waits for {}", self.waiting_for).into_iter().collect();
        }
        if self.held_for.is_some() {
            return say("held for {}", self.held_for).into_iter().collect();
        }
        let state = self.state.as_deref().unwrap_or_default();
        let (transaction, statement) = match state {
            "active" => (None, "in a statement for {}"),
            "idle" => (None, "its last statement {} ago"),
            _ if state.starts_with("idle in transaction") => {
                (self.transaction_for, "its last statement {} ago")
            }
            _ => (None, ""),
        };
        let parts = [
            say("connected for {}", self.connected_for),
            say("in a transaction for {}", transaction),
            say(statement, self.state_for).filter(|text| !text.is_empty()),
        ];
        parts.into_iter().flatten().collect()
    }
}

/// `3m 12s`: the two largest units.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `pid 4711 "mailer", connected for 40m 2s, in a transaction for 3m 12s, its last statement 1m 5s ago`: who
/// it is, and what is known of how long it has held the lock; `held for 8m 2s` if it says so itself. Without
/// the key.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("a prepared transaction")?,
        }
        if let Some(application) = &self.application {
            write!(f, " {application:?}")?; // it may have quotes
        }
        if let Some(client) = &self.client {
            write!(f, " from {client}")?;
        }
        for part in self.since() {
            write!(f, ", {part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: [&str; 18]) -> String {
        fields.join("\x1f")
    }

    /// As the server writes it: `quote_literal`, as bytes, as digits.
    fn digits(text: &[u8]) -> String {
        let mut literal = vec![b'\''];
        for byte in text {
            literal.push(*byte);
            if *byte == b'\'' {
                literal.push(*byte);
            }
        }
        literal.push(b'\'');
        if text.contains(&b'\\') {
            literal.insert(0, b'E');
        }
        literal.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn is_harmless(text: &str) -> bool {
        escaped(text) == text
    }

    /// All characters, of which many are commands. (A `String` of proptest's has none.)
    const ANY: &str = "([\\x00-\\x9f\\u{200e}-\\u{202e}\\u{2066}-\\u{206f}]|(?s:.)){0,12}";

    proptest::proptest! {
        #[test]
        fn all_bytes_are_read_and_shown(bytes: Vec<u8>, text in ANY, quotes in "['\\\\E\u{1b}]{1,9}") {
            for text in [&bytes, text.as_bytes(), quotes.as_bytes()] {
                let read = quoted(&digits(text)).unwrap_or_default();
                proptest::prop_assert_eq!(read, escaped(text));
            }
        }

        /// Also from a server that lies.
        #[test]
        fn nothing_that_a_server_says_commands_a_terminal(any in ANY, fields in proptest::array::uniform18(ANY)) {
            proptest::prop_assert!(quoted(&any).is_none_or(|text| is_harmless(&text)));
            let mut fields = fields.map(|field| field.replace(FIELD, ""));
            for (place, number) in ["1", "2", "1"].into_iter().enumerate() {
                fields[place] = number.to_owned();
            }
            for place in [7, 8, 17] {
                fields[place] = digits(fields[place].as_bytes());
            }
            let claim = Claim::read(&fields.join("\x1f"), &[]).unwrap();
            let shown = claim.to_string();
            let texts = [&claim.application, &claim.user, &claim.client, &claim.state, &claim.label];
            let mut texts = texts.into_iter().flatten().chain([&shown]);
            proptest::prop_assert!(texts.all(|text| is_harmless(text)), "{claim:?}");
        }
    }

    #[test]
    fn a_line_is_read_and_shown() {
        let line = line([
            "4294967295",
            "4294967295",
            "1",
            "ShareLock",
            "true",
            "false",
            "4711",
            &digits(b"mailer\" from ::2"),
            &digits(b"app"),
            "::1",
            "idle in transaction",
            "192.7",
            "200",
            "3600.5",
            "",
            "",
            "",
            "",
        ]);
        let claim = Claim::read(&line, &[]).unwrap();
        assert_eq!(claim.key, Key::from(-1));
        assert_eq!((claim.mode, claim.granted), (Mode::Shared, true));
        assert_eq!(claim.connected_for, Some(Duration::from_millis(3_600_500)));
        assert_eq!((claim.waiting_for, &*claim.blocked_by), (None, &[][..]));
        assert_eq!(
            claim.to_string(),
            r#"pid 4711 "mailer\" from ::2" from ::1, connected for 1h 0m, in a transaction for 3m 20s, its last statement 3m 12s ago"#
        );
        let held_for = Some(Duration::from_secs(481));
        let says_so = Claim { held_for, ..claim };
        assert!(says_so.to_string().ends_with(", held for 8m 1s"));
    }

    #[test]
    fn what_may_not_be_seen_is_left_out() {
        let line = line([
            "1",
            "2",
            "2",
            "ExclusiveLock",
            "false",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "-0.5",
            "",
            "3 0",
            "",
        ]);
        let claim = Claim::read(&line, &[]).unwrap();
        assert_eq!(claim.key, Key::from((1, 2)));
        assert_eq!((claim.pid, &claim.user, &claim.state), (None, &None, &None));
        assert_eq!(
            claim.waiting_for,
            Some(Duration::ZERO),
            "clocks may step back"
        );
        assert_eq!(claim.blocked_by, [3, 0]);
        assert_eq!(claim.to_string(), "a prepared transaction, waits for 0s");
    }
}
