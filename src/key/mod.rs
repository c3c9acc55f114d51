//! What a lock is called: names, numbers, pairs and namespaces.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

mod convert;
#[cfg(feature = "serde")]
mod serialize;
#[cfg(test)]
mod tests;

pub use convert::IntoKey;

/// The key of an advisory lock.
///
/// PostgreSQL knows two separate key spaces: one `bigint`, or a pair of `integer`s ([Advisory Lock
/// Functions]). A key is made from
///
/// | from | key | |
/// | --- | --- | --- |
/// | a name (`&str`, `String`, `Cow<str>`, [`key!`](crate::key!)) | `bigint` | XXH3-64 of the UTF-8 bytes with seed 0, read as a two's-complement `i64` |
/// | a name in a namespace, [`Key::namespaced`] | `bigint` | the same hash, with the XXH3-64 of the namespace as its seed |
/// | an `i64` | `bigint` | as it is |
/// | a pair `(i32, i32)` | pair | as it is |
///
/// The hash is part of the crate's contract and will not change: a name gives the same lock in
/// every version of pglock, and any language with an XXH3 library can share it. Two different names
/// share a lock with a chance of 1 in 2⁶⁴: with some 600 million names, the chance of any collision
/// is one per cent. It is not a cryptographic hash: whoever chooses names freely can make two
/// collide, which costs waiting, never safety.
///
/// Two keys are equal when they are the same lock, however they were written. They are ordered by
/// number, not by name: several keys of one lock are acquired in this order.
///
/// No integer but `i64` becomes a key by itself, so that `5` needs no suffix. For an id of another
/// type write `key!("seat:{id}")`, which also keeps the ids of two tables apart. `i64::from(id)`
/// locks the bare number.
///
/// ```
/// use pglock::{Key, key};
///
/// assert_eq!(Key::from("seat:12A").as_i64(), Some(4328960076536664018));
/// assert_eq!(key!("seat:{}{}", 12, 'A'), Key::from("seat:12A"));
/// assert_eq!(Key::from(42).as_i64(), Some(42));
/// assert_ne!(Key::from((0, 42)), Key::from(42)); // the two key spaces never meet
/// assert_ne!(Key::namespaced("billing", "7"), Key::namespaced("mail", "7"));
/// ```
///
/// With the feature `serde`, a key is read from a file of settings, and written, as you write it here:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use pglock::Key;
///
/// let keys: Vec<Key> = serde_json::from_str(
///     r#"["seat:12A", 42, [7, 42], {"namespace": "billing", "name": "7"}]"#,
/// )?;
/// assert_eq!(keys[0], Key::from("seat:12A"));
/// assert_eq!(keys[1], Key::from(42));
/// assert_eq!(keys[2], Key::from((7, 42)));
/// assert_eq!(keys[3], Key::namespaced("billing", "7"));
/// # let text = serde_json::to_string(&keys)?;
/// # assert_eq!(text, r#"["seat:12A",42,[7,42],{"namespace":"billing","name":"7"}]"#);
/// # let wrong = serde_json::from_str::<Key>("1.5").unwrap_err().to_string();
/// # assert!(wrong.starts_with("a key is a name, a number"), "{wrong}");
/// # assert!(serde_json::from_str::<Key>(r#"{"name": "7"}"#).is_err());
/// # #[cfg(feature = "compat")] {
/// # let other = pglock::compat::Scheme::Sqlx.key("seat:12A");
/// # assert_eq!(serde_json::to_string(&other)?, other.as_i64().unwrap().to_string());
/// # }
/// # }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// [Advisory Lock Functions]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
#[derive(Clone)]
pub struct Key {
    id: Id,
    name: Option<Name>,
}

/// The number that PostgreSQL locks. Several keys are acquired in the derived order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Id {
    Bigint(i64),
    Pair(i32, i32),
}

#[derive(Clone)]
struct Name {
    namespace: Option<Cow<'static, str>>,
    name: Cow<'static, str>,
}

impl Key {
    /// A name inside a namespace: the same name in another namespace, or in none, is another lock.
    pub fn namespaced(
        namespace: impl Into<Cow<'static, str>>,
        name: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        let seed = xxh3_64(namespace.as_bytes());
        Self {
            id: Id::hashed(&name, seed),
            name: Some(Name {
                namespace: Some(namespace),
                name,
            }),
        }
    }

    /// The key of a part of something that this key names, such as a slot of a semaphore. A name stands for itself;
    /// any other key for the numbers that the server locks, in a namespace of their own.
    pub(crate) fn part(&self, namespace: &'static str, part: &str) -> Self {
        match &self.name {
            Some(Name {
                namespace: None,
                name,
            }) => Self::namespaced(namespace, format!("{part}{name}")),
            _ => {
                let (classid, objid, objsubid) = self.pg_locks();
                let numbers = format!("{part}{classid}:{objid}:{objsubid}");
                Self::namespaced(format!("{namespace}.key"), numbers)
            }
        }
    }

    fn named(name: Cow<'static, str>) -> Self {
        Self {
            id: Id::hashed(&name, 0),
            name: Some(Name {
                namespace: None,
                name,
            }),
        }
    }

    /// The name that it was made from, without its namespace; `None` for a number or a pair.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &*name.name)
    }

    /// The `bigint` that is locked, or `None` for a pair.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self.id {
            Id::Bigint(number) => Some(number),
            Id::Pair(..) => None,
        }
    }

    /// The pair that is locked, or `None` for a `bigint`.
    #[must_use]
    pub fn as_pair(&self) -> Option<(i32, i32)> {
        match self.id {
            Id::Bigint(_) => None,
            Id::Pair(first, second) => Some((first, second)),
        }
    }

    /// The columns `classid`, `objid` and `objsubid` under which [`pg_locks`] shows this key.
    ///
    /// A `bigint` appears there as its high and low half with `objsubid` 1, a pair as its two
    /// numbers with `objsubid` 2, all of them unsigned.
    ///
    /// ```
    /// use pglock::Key;
    ///
    /// assert_eq!(Key::from(42).pg_locks(), (0, 42, 1));
    /// assert_eq!(Key::from((7, 42)).pg_locks(), (7, 42, 2));
    /// ```
    ///
    /// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
    #[must_use]
    pub fn pg_locks(&self) -> (u32, u32, u16) {
        match self.id {
            Id::Bigint(number) => {
                let bits = number as u64;
                ((bits >> 32) as u32, (bits & 0xffff_ffff) as u32, 1)
            }
            Id::Pair(first, second) => (first as u32, second as u32, 2),
        }
    }

    /// The same key, shown under a name.
    #[cfg(feature = "compat")]
    pub(crate) fn known_as(self, name: &str) -> Self {
        let name = Name {
            namespace: None,
            name: Cow::Owned(name.to_owned()),
        };
        Self {
            name: Some(name),
            ..self
        }
    }

    /// The same key by another's name, for errors.
    pub(crate) fn shown_as(self, other: &Self) -> Self {
        let name = other.name.clone();
        Self { name, ..self }
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.name.as_ref()?.namespace.as_deref()
    }

    /// The key that has these columns in [`pg_locks`](Key::pg_locks).
    pub(crate) fn from_pg_locks(classid: u32, objid: u32, objsubid: u16) -> Self {
        match objsubid {
            2 => Self::from((classid as i32, objid as i32)),
            _ => Self::from(((u64::from(classid) << 32) | u64::from(objid)) as i64),
        }
    }

    /// The mutex of the head of this key's line: a `bigint` key.
    pub(crate) fn head(&self) -> i64 {
        self.derived("pglock.head")
    }

    /// What the members of this key's line hold shared: a `bigint` key.
    pub(crate) fn member(&self) -> i64 {
        self.derived("pglock.member")
    }

    /// The first half of the places in this key's line, which are pairs.
    pub(crate) fn class(&self) -> i32 {
        self.derived("pglock.place") as i32
    }

    /// Part of the crate's contract, as the hash of names is: all versions must stand in the same line.
    /// `tests/data/line-vectors.json` says how it is derived.
    fn derived(&self, role: &str) -> i64 {
        let number = match self.id {
            Id::Bigint(number) => number.to_string(),
            Id::Pair(first, second) => format!("{first},{second}"),
        };
        xxh3_64_with_seed(number.as_bytes(), xxh3_64(role.as_bytes())) as i64
    }

    /// The key as the arguments of a lock function. The digits are quoted, since a bare
    /// -9223372036854775808 reads as `numeric`. They have a type, since the server may prefer a
    /// function of the same name that takes a text, in any schema of the `search_path`, for digits
    /// without one.
    pub(crate) fn arguments(&self) -> String {
        match self.id {
            Id::Bigint(number) => ["bigint '", &number.to_string(), "'"].concat(), // the fastest
            Id::Pair(first, second) => format!("int '{first}',int '{second}'"),
        }
    }
}

/// Seeds the hash of an election's name, so that it shares no lock with a section of that name.
pub(crate) const ELECTIONS: &str = "pglock.election";

impl Id {
    fn hashed(name: &str, seed: u64) -> Self {
        Id::Bigint(xxh3_64_with_seed(name.as_bytes(), seed) as i64)
    }
}

/// Builds a [`Key`] in place, with the syntax of [`format!`].
///
/// ```
/// let user_id = 42;
/// assert_eq!(pglock::key!("withdraw:user:{user_id}"), "withdraw:user:42".into());
/// ```
///
/// Put a separator that the values cannot contain between two of them: `{a}:{b}` is the same lock
/// for `x:y` with `z` as for `x` with `y:z`.
#[macro_export]
macro_rules! key {
    ($($template:tt)+) => {
        $crate::Key::from(::std::format!($($template)+))
    };
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The key as the user wrote it: a name in quotes (control characters escaped, so that it is safe
/// in a log), a number or a pair bare, an election's as `election "scheduler"`. Width and alignment apply, as in `{key:<30}`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match (&self.name, self.id) {
            (Some(name), _) => match name.namespace.as_deref() {
                Some(ELECTIONS) => format!("election {:?}", name.name),
                // Of a number, a pair, or a name in a namespace.
                Some(of) if of.strip_prefix(ELECTIONS) == Some(".key") => {
                    format!("election {}", name.name)
                }
                Some(namespace) => format!("{:?} in {namespace:?}", name.name),
                None => format!("{:?}", name.name),
            },
            (None, Id::Bigint(number)) => number.to_string(),
            (None, Id::Pair(first, second)) => format!("({first}, {second})"),
        };
        f.pad(&shown)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}
