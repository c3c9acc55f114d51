//! How much a lock keeps out.

use std::fmt;

/// Whether a lock keeps everybody out, or only those who want it exclusively.
///
/// ```
/// use pglock::{Lock, Mode};
///
/// # let client = ();
/// # let writes = false;
/// // Where the caller decides; else `Lock::shared` is shorter.
/// let mode = if writes { Mode::Exclusive } else { Mode::Shared };
/// let lock = Lock::new(client, "catalogue").mode(mode);
/// assert_eq!(lock.lock_info().to_string(), "\"catalogue\" (shared)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Mode {
    /// One holder at a time. The default.
    #[default]
    Exclusive,
    /// Any number of shared holders, and no exclusive one beside them.
    Shared,
}

/// `exclusive` or `shared`.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        })
    }
}

/// PostgreSQL's [table-level lock modes], the weakest first.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{Table, TableMode, with_transaction_lock};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// # client.batch_execute("CREATE TEMP TABLE account AS SELECT 7::bigint AS balance")?;
/// // Nobody writes while the two sums are read, and everybody reads. Others may hold it too.
/// let accounts = Table::new("account").in_mode(TableMode::Share);
/// let sums = with_transaction_lock(&mut client, accounts, |tx| {
///     let sum = "SELECT sum(balance)::bigint FROM account";
///     let (first, second) = (tx.query_one(sum, &[])?, tx.query_one(sum, &[])?);
///     Ok::<_, pglock::Error>((first.get::<_, i64>(0), second.get::<_, i64>(0)))
/// })?;
/// assert_eq!(sums.0, sums.1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// [table-level lock modes]: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableMode {
    /// What a SELECT takes: conflicts with `AccessExclusive` alone.
    AccessShare,
    /// What a row lock takes: conflicts with `Exclusive` and `AccessExclusive`.
    RowShare,
    /// What a write takes: conflicts with `Share` and all that are stronger.
    RowExclusive,
    /// Keeps out changes of the schema, and itself.
    ShareUpdateExclusive,
    /// Keeps out writers; others may hold it too.
    Share,
    /// Keeps out writers and itself; row locks go on.
    ShareRowExclusive,
    /// Keeps out writers and row locks; reads go on.
    Exclusive,
    /// Keeps out everybody.
    AccessExclusive,
}

impl TableMode {
    /// Whether two sessions cannot hold it at the same time: what PostgreSQL calls self-conflicting.
    pub(crate) fn is_self_conflicting(self) -> bool {
        match self {
            Self::AccessShare | Self::RowShare | Self::RowExclusive | Self::Share => false,
            Self::ShareUpdateExclusive
            | Self::ShareRowExclusive
            | Self::Exclusive
            | Self::AccessExclusive => true,
        }
    }
}

/// As SQL writes it.
impl fmt::Display for TableMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        })
    }
}
