//! What can become a key.

use std::borrow::Cow;

use super::{Id, Key};

/// A [`Key`], or anything that is `Into<Key>`.
///
/// For a type of your own, implement `From` for `Key`:
///
/// ```
/// use pglock::{Key, key};
///
/// struct SeatId(u32);
///
/// impl From<SeatId> for Key {
///     fn from(id: SeatId) -> Key {
///         key!("seat:{}", id.0)
///     }
/// }
/// # fn key(key: impl pglock::IntoKey) -> Key { key.into() }
/// # assert_eq!(key(SeatId(7)), "seat:7".into());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a key",
    label = "not a key",
    note = "a key is a name (`&str`, `String`, `Cow<str>`, `key!(…)`), an `i64`, or a pair of `i32`",
    note = "for an id of another type write `key!(\"seat:{{id}}\")`; `i64::from(id)` locks the bare number",
    note = "a `Row` or a `Table` is locked for a transaction, by `with_transaction_lock`"
)]
pub trait IntoKey: Into<Key> {}

// Without this, the compiler talks about `From` instead of keys.
#[diagnostic::do_not_recommend]
impl<K: Into<Key>> IntoKey for K {}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self::named(Cow::Owned(name.to_owned()))
    }
}

/// Lets a slice of names be passed as it is.
impl From<&&str> for Key {
    fn from(name: &&str) -> Self {
        Self::from(*name)
    }
}

impl From<Cow<'_, str>> for Key {
    fn from(name: Cow<'_, str>) -> Self {
        Self::from(name.into_owned())
    }
}

impl From<Box<str>> for Key {
    fn from(name: Box<str>) -> Self {
        Self::from(name.into_string())
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Self::named(Cow::Owned(name))
    }
}

impl From<&String> for Key {
    fn from(name: &String) -> Self {
        Self::from(name.as_str())
    }
}

/// No other integer has a conversion, so that `5` needs no suffix.
impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self {
            id: Id::Bigint(number),
            name: None,
        }
    }
}

impl From<(i32, i32)> for Key {
    fn from((first, second): (i32, i32)) -> Self {
        Self {
            id: Id::Pair(first, second),
            name: None,
        }
    }
}

/// Lets a slice of numbers be passed as it is.
impl From<&i64> for Key {
    fn from(number: &i64) -> Self {
        Self::from(*number)
    }
}

/// Lets a slice of pairs be passed as it is.
impl From<&(i32, i32)> for Key {
    fn from(pair: &(i32, i32)) -> Self {
        Self::from(*pair)
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}
