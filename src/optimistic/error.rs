//! Why a row was not saved.

#[cfg(any(feature = "postgres", feature = "diesel"))]
use super::Version;
use crate::failure::BoxError;

/// Why a save or a delete failed.
///
/// The row is unchanged, except after [`Error::UnusableVersion`], which says that it was saved, and
/// after an [`Error::Database`] that lost the connection: then nobody knows.
///
/// ```
/// use pglock::optimistic::Error;
///
/// fn answer(error: &Error) -> &'static str {
///     match error {
///         Error::Conflict { .. } => "somebody else has changed it: please look again",
///         Error::NotFound { .. } => "somebody else has deleted it",
///         _ => "sorry, that did not work",
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The row no longer has the version that was read.
    #[error(
        "a row of {table} was read at version {expected}, and is at version {actual} now: somebody else has saved it; read it again"
    )]
    #[non_exhaustive]
    Conflict {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        expected: i64,
        /// The version of the row just after the save was refused.
        actual: i64,
    },

    /// The row was not saved, although it still has the version that was read: a trigger that
    /// returns NULL, or a row security policy, suppressed the save. Trying again does not help.
    ///
    /// A row that was deleted and inserted again while the save ran looks the same.
    #[error(
        "a row of {table} was not saved, although it is still at version {version}: a trigger that returns NULL, or a row security policy, suppressed the save; \\d in psql lists both"
    )]
    #[non_exhaustive]
    Suppressed {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read, and that the row still has.
        version: i64,
    },

    /// The transaction is REPEATABLE READ or SERIALIZABLE, and somebody else has changed the row
    /// since it began (SQLSTATE 40001).
    #[error(
        "somebody else has changed a row since this transaction began; run the whole transaction again"
    )]
    Serialization(#[source] BoxError),

    /// There is no such row: it was deleted, or never inserted, or a policy hides it.
    #[error("there is no such row of {table} to save at version {expected}")]
    #[non_exhaustive]
    NotFound {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        expected: i64,
    },

    /// The row was not saved, because its version is NULL.
    #[error(
        "a row of {table} was not saved, because its version is NULL; give it one, and declare the column NOT NULL"
    )]
    #[non_exhaustive]
    NullVersion {
        /// The table, as SQL names it.
        table: String,
    },

    /// The row was saved, but no further save can name its new version: a trigger has set it to NULL,
    /// or to a number that is too large for the type of the version that was read.
    #[error("a row of {table} was saved, but {}", unusable(*.version))]
    #[non_exhaustive]
    UnusableVersion {
        /// The table, as SQL names it.
        table: String,
        /// The version that the row has now; `None` is NULL.
        version: Option<i64>,
    },

    /// The version column is neither `integer` nor `bigint`.
    #[error("the version column of {table} is of type {found}; it must be integer or bigint")]
    #[non_exhaustive]
    VersionType {
        /// The table, as SQL names it.
        table: String,
        /// The column's type.
        found: String,
    },

    /// The row was not saved, because there is no next version: the type of the column, or of the
    /// version that was read, holds none.
    #[error("version {version} of {table} is the last that its type can hold; use bigint and i64")]
    #[non_exhaustive]
    LastVersion {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        version: i64,
    },

    /// The save names no column to change.
    #[error("the save of {table} changes nothing: name at least one column to change")]
    #[non_exhaustive]
    NoChanges {
        /// The table, as SQL names it.
        table: String,
    },

    /// The save names no row, and would change them all: it has no key, or no filter.
    #[error("the save of {table} names no row: give it a key or a filter that identifies one")]
    #[non_exhaustive]
    NoKey {
        /// The table, as SQL names it.
        table: String,
    },

    /// The key or the filter matches more than one row. None was changed.
    #[error(
        "the save of {table} matches more than one row, and has changed none: give it a key or a filter that identifies one"
    )]
    #[non_exhaustive]
    SeveralRows {
        /// The table, as SQL names it.
        table: String,
    },

    /// A name contains a NUL byte, which PostgreSQL does not allow. Nothing was sent.
    #[error("a name in the save of {table} contains a NUL byte")]
    #[non_exhaustive]
    NulByte {
        /// The table, as SQL names it.
        table: String,
    },

    /// Any other error of the server or the driver, which is the source.
    ///
    /// If the connection was lost, nobody knows whether the row was saved.
    #[error("a statement of an optimistic save failed")]
    Database(#[source] BoxError),
}

fn unusable(version: Option<i64>) -> String {
    match version {
        None => "a trigger has set its version to NULL; declare the column NOT NULL".to_owned(),
        Some(version) => format!(
            "a trigger has set its version to {version}, which is too large for the type of the version that was read; use bigint and i64"
        ),
    }
}

/// For saves in the body of a lock.
impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        Self::body(error)
    }
}

/// Says why a save has changed no row, by the versions of the rows that match just after it.
#[cfg(any(feature = "postgres", feature = "diesel"))]
pub(super) fn refusal(table: String, expected: i64, found: &[Option<i64>]) -> Error {
    match *found {
        [] => Error::NotFound { table, expected },
        [_, _, ..] => Error::SeveralRows { table },
        [None] => Error::NullVersion { table },
        [Some(version)] if version == expected => Error::Suppressed { table, version },
        [Some(actual)] => Error::Conflict {
            table,
            expected,
            actual,
        },
    }
}

/// Refuses the last version, before anything is sent.
#[cfg(any(feature = "postgres", feature = "diesel"))]
pub(super) fn check_next<V: Version>(
    version: V,
    table: impl FnOnce() -> String,
) -> Result<(), Error> {
    let version = version.into();
    let next = version.checked_add(1).map(V::try_from);
    if !matches!(next, Some(Ok(_))) {
        let table = table();
        return Err(Error::LastVersion { table, version });
    }
    Ok(())
}

/// Reads the version that a save returned.
#[cfg(any(feature = "postgres", feature = "diesel"))]
pub(super) fn saved<V: Version>(
    version: Option<i64>,
    table: impl FnOnce() -> String,
) -> Result<V, Error> {
    let usable = version.and_then(|version| V::try_from(version).ok());
    usable.ok_or_else(|| Error::UnusableVersion {
        table: table(),
        version,
    })
}
