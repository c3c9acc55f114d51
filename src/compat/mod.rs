//! Keys that other libraries share: how each of them turns a name into the number that PostgreSQL
//! locks, so that a Rust worker and a Python or Ruby service contend for the same lock.
//!
//! ```
//! use pglock::compat::Scheme;
//!
//! let key = Scheme::PostgresqlLock.key("nightly-report");
//! assert_eq!(key.as_i64(), Some(-5058049524606569111));
//! assert_eq!(key.to_string(), "\"nightly-report\""); // errors name it as you do
//! ```
//!
//! Both sides must ask for locks that conflict: a session lock keeps a transaction lock of the same
//! key out, and an exclusive one a shared one. With the schemes of 31 and 32 bits, chance
//! collisions begin at some ten thousand names.
//!
//! If a name is a number, most of these libraries lock the number itself, which is `Key::from(7)`
//! here. postgresql-lock makes a text of it: `Scheme::PostgresqlLock.key("7")`. with_advisory_lock
//! makes it the first of a pair: [`WithAdvisoryLock::number`].

use std::fmt;
use std::str::FromStr;

use blake2::Blake2b;
use blake2::digest::{Digest, consts::U8};
use hkdf::Hkdf;
use sha1::Sha1;
use sha2::Sha256;

use crate::key::Key;

mod with_advisory_lock;

pub use with_advisory_lock::WithAdvisoryLock;

/// A library, or a range of its versions, by how it makes keys from names.
///
/// ```
/// use pglock::compat::Scheme;
///
/// let scheme: Scheme = "sqlx".parse()?;
/// assert_eq!(scheme, Scheme::Sqlx);
/// assert_eq!(scheme.to_string(), "sqlx");
/// # Ok::<_, pglock::compat::UnknownScheme>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// Python, [django-concurrency-safe]: BLAKE2b with 8 bytes of digest, big-endian.
    ///
    /// [django-concurrency-safe]: https://pypi.org/project/django-concurrency-safe/
    DjangoConcurrencySafe,
    /// Python, [postgresql-lock]: SHA-1 of `str(key)`, so that the number 7 is the name "7"; the
    /// first 8 bytes, big-endian.
    ///
    /// [postgresql-lock]: https://pypi.org/project/postgresql-lock/
    PostgresqlLock,
    /// Python, [django-pglocks] up to 1.0.4: CRC-32 as a signed 32-bit number, widened to a
    /// `bigint`. The next version, 2.1.0, passes its calls on to django-pgware.
    ///
    /// [django-pglocks]: https://pypi.org/project/django-pglocks/
    DjangoPglocks,
    /// Python, [django-pgware], and django-pglocks 2.1.0, which imports it: SHA-256, the first 8
    /// bytes, big-endian.
    ///
    /// [django-pgware]: https://pypi.org/project/django-pgware/
    DjangoPgware,
    /// Python, [django-pglock]: SHA-256, the first 8 bytes, little-endian.
    ///
    /// [django-pglock]: https://pypi.org/project/django-pglock/
    DjangoPglock,
    /// Rust, [sqlx]'s `PgAdvisoryLock::new`: HKDF-SHA256 without salt, the first 8 bytes,
    /// little-endian.
    ///
    /// [sqlx]: https://docs.rs/sqlx/latest/sqlx/postgres/struct.PgAdvisoryLock.html
    Sqlx,
    /// Ruby, [with_advisory_lock]: the pair of CRC-32 without its highest bit, and 0. For names that
    /// are numbers, and for `WITH_ADVISORY_LOCK_PREFIX`, use [`WithAdvisoryLock`](struct@WithAdvisoryLock).
    ///
    /// [with_advisory_lock]: https://rubygems.org/gems/with_advisory_lock
    WithAdvisoryLock,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::DjangoConcurrencySafe,
        Self::PostgresqlLock,
        Self::DjangoPglocks,
        Self::DjangoPgware,
        Self::DjangoPglock,
        Self::Sqlx,
        Self::WithAdvisoryLock,
    ];

    /// The name of the library, as in its package index, with the version where it matters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DjangoConcurrencySafe => "django-concurrency-safe",
            Self::PostgresqlLock => "postgresql-lock",
            Self::DjangoPglocks => "django-pglocks-1",
            Self::DjangoPgware => "django-pgware",
            Self::DjangoPglock => "django-pglock",
            Self::Sqlx => "sqlx",
            Self::WithAdvisoryLock => "with_advisory_lock",
        }
    }

    /// The key under which the library locks this name. It is shown by its name, as all keys are.
    #[must_use]
    pub fn key(self, name: &str) -> Key {
        let bytes = name.as_bytes();
        let number = match self {
            Self::DjangoConcurrencySafe => i64::from_be_bytes(first(&Blake2b::<U8>::digest(bytes))),
            Self::PostgresqlLock => i64::from_be_bytes(first(&Sha1::digest(bytes))),
            Self::DjangoPglocks => i64::from(crc32fast::hash(bytes) as i32),
            Self::DjangoPgware => i64::from_be_bytes(first(&Sha256::digest(bytes))),
            Self::DjangoPglock => i64::from_le_bytes(first(&Sha256::digest(bytes))),
            Self::Sqlx => i64::from_le_bytes(sqlx(bytes)),
            Self::WithAdvisoryLock => return WithAdvisoryLock::new().name(name),
        };
        Key::from(number).known_as(name)
    }
}

fn first(digest: &[u8]) -> [u8; 8] {
    std::array::from_fn(|i| digest[i])
}

fn sqlx(name: &[u8]) -> [u8; 8] {
    let mut key = [0; 8];
    // The only error is an output that is too long, and 8 bytes are not.
    let _ = Hkdf::<Sha256>::new(None, name).expand(b"SQLx (Rust) Postgres advisory lock", &mut key);
    key
}

/// As [`Scheme::name`].
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No scheme has that name. Its text lists those that there are.
///
/// ```
/// use pglock::compat::{Scheme, UnknownScheme};
///
/// let unknown: UnknownScheme = "django-pglocks".parse::<Scheme>().unwrap_err();
/// let text = unknown.to_string();
/// assert!(text.ends_with("django-pglocks is django-pglocks-1 up to 1.0.4, django-pgware from 2 on"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no key scheme is called {0:?}: there are {list}{hint}", list = list(), hint = hint(.0))]
pub struct UnknownScheme(String);

fn list() -> String {
    Scheme::ALL.map(Scheme::name).join(", ")
}

fn hint(name: &str) -> &'static str {
    match name {
        "django-pglocks" => {
            "; django-pglocks is django-pglocks-1 up to 1.0.4, django-pgware from 2 on"
        }
        _ => "",
    }
}

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, UnknownScheme> {
        let mut all = Self::ALL.into_iter();
        all.find(|scheme| scheme.name() == name)
            .ok_or_else(|| UnknownScheme(name.to_owned()))
    }
}
