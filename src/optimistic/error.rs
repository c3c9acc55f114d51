//! Why a row was not saved.

#[cfg(any(feature = "postgres", feature = "diesel"))]
use super::Version;
use crate::answer::BoxError;

/// Why a row was not saved. It is as it was, after any of them but [`Error::UnusableVersion`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The row has another version than the one that was read.
    #[error(
        "a row of {table} was read at version {expected}, and is at version {actual} now: somebody else has saved it; read it again"
    )]
    Conflict {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        expected: i64,
        /// The version that the row had just after the save was refused.
        actual: i64,
    },

    /// The row was not saved, although it still has the version that was read: a trigger that
    /// returns NULL, or a row security policy, suppressed the save. Trying again does not help.
    ///
    /// In the rare case that the row was deleted and inserted again while the save ran, it looks
    /// the same.
    #[error(
        "a row of {table} was not saved, although it still is at version {version}: a trigger that returns NULL or a row security policy suppressed the save; look at both (\\d in psql lists them)"
    )]
    Suppressed {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read, and that the row still has.
        version: i64,
    },

    /// The transaction is REPEATABLE READ or SERIALIZABLE, and the row was saved by somebody else
    /// since its snapshot (SQLSTATE 40001).
    #[error("a row was saved by somebody else since this transaction began; run all of it again")]
    Serialization(#[source] BoxError),

    /// There is no such row, or there is none any more.
    #[error("there is no such row of {table} to save at version {expected}")]
    NotFound {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        expected: i64,
    },

    /// The row has no version, and was not saved: its column is NULL.
    #[error(
        "a row of {table} was not saved, for its version is NULL; give it one, and declare the column NOT NULL"
    )]
    NullVersion {
        /// The table, as SQL names it.
        table: String,
    },

    /// The row was saved, but the next save cannot name its new version: a trigger has set it to
    /// NULL, or to a number that the type of the version that was read cannot hold.
    #[error("a row of {table} was saved, but {}", unusable(*.version))]
    UnusableVersion {
        /// The table, as SQL names it.
        table: String,
        /// The version that the row has now; `None` is NULL.
        version: Option<i64>,
    },

    /// The version column is neither `integer` nor `bigint`.
    #[error("a version column of type {found}, in {table}: it must be integer or bigint")]
    VersionType {
        /// The table, as SQL names it.
        table: String,
        /// The column's type.
        found: String,
    },

    /// The version is the highest that its type holds: that of the column, or that of the version
    /// that was read.
    #[error(
        "version {version}, in {table}, is the last that its type can hold; use bigint and i64"
    )]
    LastVersion {
        /// The table, as SQL names it.
        table: String,
        /// The version that was read.
        version: i64,
    },

    /// There is nothing to change.
    #[error("a save of {table} without a change: give it at least one column")]
    NoChanges {
        /// The table, as SQL names it.
        table: String,
    },

    /// There is no column to find the row by: every row would be saved.
    #[error("a save of {table} without a key: give it at least one column to find the row by")]
    NoKey {
        /// The table, as SQL names it.
        table: String,
    },

    /// A name has a NUL byte, which none in PostgreSQL can have. Nothing was sent.
    #[error("a name in a save of {table} contains a NUL byte")]
    NulByte {
        /// The table, as SQL names it.
        table: String,
    },

    /// Any other error of the server or the driver, which is the source. If the connection was lost,
    /// it is not known whether the row was saved.
    #[error("a statement of an optimistic save failed")]
    Database(#[source] BoxError),
}

impl Error {
    /// Whether somebody else was faster, so that reading the row again and deciding again may
    /// succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Serialization(_))
    }
}

fn unusable(version: Option<i64>) -> String {
    match version {
        None => "a trigger has set its version to NULL; declare the column NOT NULL".to_owned(),
        Some(version) => format!(
            "a trigger has set its version to {version}, which is too large for the type of the version that was read; use bigint and i64"
        ),
    }
}

/// So that a save can stand in the body of a lock.
impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::body(error)
    }
}

/// Why a save has changed no row, by the version that the row has just after it.
#[cfg(any(feature = "postgres", feature = "diesel"))]
pub(super) fn refusal(table: String, expected: i64, found: Option<Option<i64>>) -> Error {
    match found {
        None => Error::NotFound { table, expected },
        Some(None) => Error::NullVersion { table },
        Some(Some(version)) if version == expected => Error::Suppressed { table, version },
        Some(Some(actual)) => Error::Conflict {
            table,
            expected,
            actual,
        },
    }
}

/// Refuses a version that has no next one, before anything is sent.
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

/// The version that a save has returned.
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
