//! A target: one of all that can be locked.

use std::fmt;
use std::sync::Arc;

use super::first_free::FirstFree;
use super::range::KeyRange;
use super::row::{Columns, Row};
use super::slots::Slots;
use super::table::Table;
use crate::key::{IntoKey, Key};

/// What a lock is on, as [`LockInfo::target`](crate::LockInfo::target) says it.
///
/// ```
/// use pglock::{Lock, Row, Target};
///
/// let lock = Lock::new((), Row::new("seat", "id", 42));
/// assert!(matches!(lock.lock_info().target(), Target::Row(_)));
/// assert_eq!(lock.lock_info().target().to_string(), r#"row id = 42 of "seat""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// Advisory keys, in the order in which they are taken.
    Keys(Arc<[Key]>),
    /// A range of the numbers under a key.
    Range(Arc<KeyRange>),
    /// Rows of a table.
    Row(Arc<Row>),
    /// A whole table.
    Table(Arc<Table>),
    /// The first row of a table, or the first rows, that nobody else has locked.
    FirstFree(Arc<FirstFree>),
    /// The slots of a semaphore, or the one of them that is held.
    Slots(Arc<Slots>),
}

/// What [`Lock::new`](crate::Lock::new) and its siblings take: anything that is a [`Key`], a list of keys
/// (a `Vec`, an array or a slice), a [`KeyRange`], a [`Row`] or a [`Table`]. Implement it for a type of your own
/// that stands for a row.
///
/// ```
/// use pglock::{IntoTarget, Row};
///
/// struct Seat { id: i64 }
///
/// impl IntoTarget for &Seat {
///     type Target = Row;
///
///     fn into_target(self) -> Row {
///         Row::new("seat", "id", self.id)
///     }
/// }
/// ```
///
/// Nothing else is a target: a `FirstFree` may lock no row, and a body must not run then.
///
/// ```compile_fail,E0277
/// use pglock::{FirstFree, IntoTarget};
///
/// struct Job;
///
/// impl IntoTarget for Job {
///     type Target = FirstFree;
///
///     fn into_target(self) -> FirstFree {
///         FirstFree::new("job", "id")
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not something that pglock can lock",
    label = "not a key, a list of keys, a `KeyRange`, a `Row` or a `Table`",
    note = "a key is a name (`&str`, `String`, `Cow<str>`, `key!(…)`), an `i64`, or a pair of `i32`",
    note = "for an id of another type write `key!(\"seat:{{id}}\")`; `i64::from(id)` locks the bare number"
)]
pub trait IntoTarget {
    /// The kind of target: it decides how the [`Lock`](crate::Lock) can be used.
    type Target: Into<Target> + sealed::Lockable;

    /// The target.
    fn into_target(self) -> Self::Target;
}

/// A target whose lock can be held by a session, and not only by a transaction: a [`Key`], several, or a
/// [`KeyRange`].
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use pglock::{Error, Lock, SessionTarget};
/// use postgres::Client;
///
/// /// Whatever is locked, it is a session that holds it.
/// fn import<T: SessionTarget>(lock: &mut Lock<Client, T>) -> Result<(), Error> {
///     lock.run(|conn| Ok(conn.batch_execute("SELECT 'import'")?))
/// }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a `{Self}` is locked for a transaction, not for a session",
    note = "use `run_in_transaction`, `with_transaction_lock` or `transaction_lock`"
)]
pub trait SessionTarget: Into<Target> + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}

    #[diagnostic::on_unimplemented(
        message = "a `{Self}` is not a key, a list of keys, a `KeyRange`, a `Row` or a `Table`, and `Lock` takes nothing else",
        note = "a `FirstFree` has its own `run_in_transaction`, and slots have `Semaphore`"
    )]
    pub trait Lockable {}
}

impl sealed::Sealed for Key {}
impl sealed::Sealed for Vec<Key> {}
impl sealed::Sealed for KeyRange {}

impl sealed::Lockable for Key {}
impl sealed::Lockable for Vec<Key> {}
impl sealed::Lockable for KeyRange {}
impl sealed::Lockable for Row {}
impl sealed::Lockable for Table {}

impl SessionTarget for Key {}
impl SessionTarget for Vec<Key> {}
impl SessionTarget for KeyRange {}

// Without this, the compiler talks about `From` instead of locks.
#[diagnostic::do_not_recommend]
impl<K: IntoKey> IntoTarget for K {
    type Target = Key;

    fn into_target(self) -> Key {
        self.into()
    }
}

impl From<Key> for Target {
    fn from(key: Key) -> Self {
        Self::Keys([key].into())
    }
}

/// In the order of their numbers, and each once: two locks on several keys cannot deadlock.
impl From<Vec<Key>> for Target {
    fn from(mut keys: Vec<Key>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self::Keys(keys.into())
    }
}

#[diagnostic::do_not_recommend]
impl<K: IntoKey> IntoTarget for Vec<K> {
    type Target = Vec<Key>;

    fn into_target(self) -> Vec<Key> {
        self.into_iter().map(Into::into).collect()
    }
}

#[diagnostic::do_not_recommend]
impl<K: IntoKey, const N: usize> IntoTarget for [K; N] {
    type Target = Vec<Key>;

    fn into_target(self) -> Vec<Key> {
        self.into_iter().map(Into::into).collect()
    }
}

#[diagnostic::do_not_recommend]
impl<'a, K> IntoTarget for &'a [K]
where
    &'a K: IntoKey,
{
    type Target = Vec<Key>;

    fn into_target(self) -> Vec<Key> {
        self.iter().map(Into::into).collect()
    }
}

#[diagnostic::do_not_recommend]
impl<'a, K> IntoTarget for &'a Vec<K>
where
    &'a K: IntoKey,
{
    type Target = Vec<Key>;

    fn into_target(self) -> Vec<Key> {
        self.as_slice().into_target()
    }
}

#[diagnostic::do_not_recommend]
impl<'a, K, const N: usize> IntoTarget for &'a [K; N]
where
    &'a K: IntoKey,
{
    type Target = Vec<Key>;

    fn into_target(self) -> Vec<Key> {
        self.as_slice().into_target()
    }
}

impl From<KeyRange> for Target {
    fn from(range: KeyRange) -> Self {
        Self::Range(Arc::new(range))
    }
}

macro_rules! targets {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Target {
            fn from(target: $kind) -> Self {
                Self::$kind(Arc::new(target))
            }
        }
    )*};
}
targets!(Row, Table, FirstFree, Slots);

macro_rules! into_targets {
    ($($kind:ident),*) => {$(
        // The message names them; the compiler would list these lines.
        #[diagnostic::do_not_recommend]
        impl IntoTarget for $kind {
            type Target = $kind;

            fn into_target(self) -> $kind {
                self
            }
        }

        #[diagnostic::do_not_recommend]
        impl IntoTarget for &$kind {
            type Target = $kind;

            fn into_target(self) -> $kind {
                self.clone()
            }
        }
    )*};
}
into_targets!(KeyRange, Row, Table);

impl Target {
    /// Whether a name or a value contains a NUL, which no text in PostgreSQL may.
    pub(crate) fn has_nul(&self) -> bool {
        let nul = |text: &str| text.contains('\0');
        let any = |columns: &Columns| {
            columns
                .iter()
                .any(|(column, value)| nul(column) || nul(value))
        };
        match self {
            Self::Keys(_) | Self::Range(_) | Self::Slots(_) => false,
            Self::Row(row) => row.table.has_nul() || any(&row.columns),
            Self::Table(table) => table.name.has_nul(),
            Self::FirstFree(pick) => {
                pick.table.has_nul()
                    || nul(&pick.id)
                    || any(&pick.columns)
                    || pick.filters.iter().any(|filter| nul(filter))
                    || pick.order.iter().any(|order| nul(&order.column))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => {
                for (i, key) in keys.iter().take(FEW).enumerate() {
                    let separator = if i == 0 { "" } else { ", " };
                    write!(f, "{separator}{key}")?;
                }
                match keys.len().saturating_sub(FEW) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Range(range) => range.fmt(f),
            Self::Row(row) => {
                f.write_str("row ")?;
                conditions(f, &row.columns)?;
                write!(f, " of {}", row.table)
            }
            Self::Table(table) => write!(f, "table {}", table.name),
            Self::Slots(slots) => slots.fmt(f),
            Self::FirstFree(pick) => {
                match pick.limit {
                    1 => f.write_str("the first free row of ")?,
                    limit => write!(f, "up to {limit} free rows of ")?,
                }
                write!(f, "{}", pick.table)?;
                if !pick.columns.is_empty() {
                    f.write_str(" with ")?;
                }
                conditions(f, &pick.columns)?;
                for (i, filter) in pick.filters.iter().enumerate() {
                    let separator = if i == 0 { " where" } else { " and" };
                    write!(f, "{separator} {}", Shown(filter))?;
                }
                Ok(())
            }
        }
    }
}

/// How many keys are shown of many.
const FEW: usize = 10;

fn conditions(f: &mut fmt::Formatter<'_>, columns: &Columns) -> fmt::Result {
    for (i, (column, value)) in columns.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        write!(f, "{separator}{} = {}", Shown(column), Shown(value))?;
    }
    Ok(())
}

/// Plain if that is unambiguous, otherwise in quotes, so that it is safe in a log.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "_-.:".contains(c);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Lock;
    use crate::targets::{LockInfo, Mode, TableMode};

    #[test]
    fn a_bare_number_is_still_a_key() {
        assert_eq!(Lock::new((), 5).lock_info().keys(), [Key::from(5)]);
        assert_eq!(
            Lock::new((), (1, 2)).lock_info().keys(),
            [Key::from((1, 2))]
        );
    }

    #[test]
    fn targets_are_shown_as_they_were_written() {
        let shown = |target: Target, mode| LockInfo::new(target, mode).to_string();
        let row = Row::new("seat", "id", 42).and("day", "a\n\0'");
        assert_eq!(
            shown(row.into(), Mode::Exclusive),
            r#"row id = 42, day = "a\n\0'" of "seat" (exclusive)"#
        );
        let table = Table::new(("app", "seat"));
        assert_eq!(
            shown(table.clone().into(), Mode::Shared),
            r#"table "app"."seat" (shared)"#
        );
        let table = table.in_mode(TableMode::RowShare);
        assert_eq!(
            shown(table.into(), Mode::Shared),
            r#"table "app"."seat" (ROW SHARE)"#
        );
        let free = FirstFree::new("job", "id").with("state", "new");
        assert_eq!(
            shown(free.filter("n > 1").into(), Mode::Exclusive),
            r#"the first free row of "job" with state = new where "n > 1" (exclusive)"#
        );
    }

    proptest::proptest! {
        #[test]
        fn no_name_commands_a_terminal(any in "(?s:.){0,9}", hostile in "[a\\x00-\\x9f\\u{200e}-\\u{202e}\\u{2066}-\\u{206f}]{0,9}") {
            for text in [any, hostile] {
                let text = text.as_str();
                let targets: [Target; 5] = [
                    Key::from(text.to_owned()).into(),
                    Key::namespaced(text.to_owned(), text.to_owned()).into(),
                    Row::new((text, text), text, text).into(),
                    Table::new(text).into(),
                    FirstFree::new(text, text).with(text, text).filter(text).into(),
                ];
                for target in targets {
                    let lock = LockInfo::new(target, Mode::Shared);
                    for shown in [lock.to_string(), format!("{lock:?}")] {
                        proptest::prop_assert_eq!(crate::escape::escaped(&shown), shown);
                    }
                }
            }
        }
    }
}
