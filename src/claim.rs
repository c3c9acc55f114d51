//! A session's claim on a lock, read from a line of text.

use std::fmt;
use std::time::Duration;

use crate::escape::escaped;
use crate::key::Key;
use crate::request::Mode;

/// What separates the fields of a line; it occurs in none of them.
const FIELD: char = '\x1f';

/// A session's claim on a lock: it holds it, or waits for it.
///
/// The server does not record when a lock was granted. A session has held a lock for no longer than
/// it has been connected ([`connected_for`](Claim::connected_for)), and a transaction lock for no
/// longer than its transaction ([`transaction_for`](Claim::transaction_for)).
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
///         println!("{:?} {:?} since {:?}", claim.pid, claim.application, claim.connected_for);
///     }
///     Ok::<_, Error>(())
/// })?;
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// For how long it has been in that state.
    pub state_for: Option<Duration>,
    /// For how long its transaction has been open, if one is.
    pub transaction_for: Option<Duration>,
    /// For how long it has been connected.
    pub connected_for: Option<Duration>,
    /// For how long it has been waiting, if it is: the whole wait, even if it is sent in
    /// slices.
    pub waiting_for: Option<Duration>,
    /// The processes it waits for, holders and earlier waiters (`pg_blocking_pids`); 0 stands for a
    /// prepared transaction. Empty for a holder.
    pub blocked_by: Vec<i32>,
    /// The name in its statement's label: see [`Lock::labelled`](crate::Lock::labelled). For an
    /// idle holder, the name in its last statement.
    pub label: Option<String>,
}

impl Claim {
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

/// `pid 4711 "mailer", idle in transaction for 00:03:12`: who it is, without the key.
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
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        if let (Some(_), Some(duration)) = (&self.state, self.state_for) {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            write!(f, " for {hours:02}:{minutes:02}:{:02}", seconds % 60)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: [&str; 17]) -> String {
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
        fn nothing_that_a_server_says_commands_a_terminal(any in ANY, fields in proptest::array::uniform17(ANY)) {
            proptest::prop_assert!(quoted(&any).is_none_or(|text| is_harmless(&text)));
            let mut fields = fields.map(|field| field.replace(FIELD, ""));
            for (place, number) in ["1", "2", "1"].into_iter().enumerate() {
                fields[place] = number.to_owned();
            }
            for place in [7, 8, 16] {
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
        ]);
        let claim = Claim::read(&line, &[]).unwrap();
        assert_eq!(claim.key, Key::from(-1));
        assert_eq!((claim.mode, claim.granted), (Mode::Shared, true));
        assert_eq!(claim.connected_for, Some(Duration::from_millis(3_600_500)));
        assert_eq!((claim.waiting_for, &*claim.blocked_by), (None, &[][..]));
        assert_eq!(
            claim.to_string(),
            r#"pid 4711 "mailer\" from ::2" from ::1, idle in transaction for 00:03:12"#
        );
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
        assert_eq!(claim.to_string(), "a prepared transaction");
    }
}
