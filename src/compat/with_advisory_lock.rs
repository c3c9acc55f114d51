//! Ruby's with_advisory_lock: pairs of numbers, the second from the environment.

use crate::key::Key;

/// The keys of Ruby's [with_advisory_lock], also for names that are numbers and with a prefix.
///
/// The gem locks a pair of numbers, each cut to its lowest 31 bits:
///
/// - The name: the CRC-32 of a text, or a number as it is (`with_advisory_lock(42)`, since 5.0).
///   The text `"42"` is hashed like any other.
/// - The prefix: the number at the beginning of the Ruby process's environment variable
///   `WITH_ADVISORY_LOCK_PREFIX`, read as Ruby's `to_i` does. It is 0 if the variable is not set,
///   and also for `staging`, which does not begin with a number.
///
/// ```
/// use pglock::compat::{Scheme, WithAdvisoryLock};
///
/// let ruby = WithAdvisoryLock::new().prefix("7");
/// assert_eq!(ruby.name("some lock").as_pair(), Some((1941864819, 7)));
/// assert_eq!(ruby.number(42).as_pair(), Some((42, 7)));
///
/// // Without a prefix, the scheme says the same.
/// let plain = WithAdvisoryLock::new();
/// assert_eq!(plain.name("some lock"), Scheme::WithAdvisoryLock.key("some lock"));
/// ```
///
/// [with_advisory_lock]: https://rubygems.org/gems/with_advisory_lock
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct WithAdvisoryLock {
    prefix: i32,
}

impl WithAdvisoryLock {
    /// The keys of a Ruby process without a prefix.
    #[must_use]
    pub const fn new() -> Self {
        Self { prefix: 0 }
    }

    /// The keys of a Ruby process that has the same `WITH_ADVISORY_LOCK_PREFIX` as this process.
    #[must_use]
    pub fn from_env() -> Self {
        let prefix = std::env::var_os("WITH_ADVISORY_LOCK_PREFIX").unwrap_or_default();
        Self::new().prefix(&prefix.to_string_lossy())
    }

    /// Sets the value of `WITH_ADVISORY_LOCK_PREFIX`. Defaults to none.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        Self {
            prefix: low(to_i(prefix)),
        }
    }

    /// The key of a name that is a text. It is shown by its name, as all keys are.
    #[must_use]
    pub fn name(&self, name: &str) -> Key {
        Key::from((low(crc32fast::hash(name.as_bytes())), self.prefix)).known_as(name)
    }

    /// The key of a name that is a number.
    #[must_use]
    pub fn number(&self, number: i64) -> Key {
        Key::from((low(number as u32), self.prefix))
    }
}

fn low(bits: u32) -> i32 {
    (bits & 0x7fff_ffff) as i32
}

/// The low bits of Ruby's `String#to_i`: spaces, a sign, `0d`, and digits with single underscores
/// between them. The rest is ignored.
fn to_i(text: &str) -> u32 {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = text.strip_prefix("0d").or(text.strip_prefix("0D"));
    let (mut value, mut previous) = (0_u32, '_');
    for c in digits.unwrap_or(text).chars() {
        match c.to_digit(10) {
            Some(digit) => value = value.wrapping_mul(10).wrapping_add(digit),
            None if c == '_' && previous != '_' => {}
            None => break,
        }
        previous = c;
    }
    if negative {
        value.wrapping_neg()
    } else {
        value
    }
}
