//! A range of the numbers under a key, as nodes of a tree over all `i64`.

use std::fmt;
use std::ops::Range;

use super::mode::Mode;
use crate::key::{IntoKey, Key};

/// A range of the numbers under a key. A lock on it keeps out all overlapping ranges under the same key, and no
/// others: nights of a room, bytes of a file, ids of a batch.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// use pglock::{KeyRange, key, with_lock};
///
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut client = Client::connect(&url, NoTls)?;
/// let (room, arrival, departure) = (7, 20261224, 20261227);
/// let nights = KeyRange::new(key!("doc:room:{room}"), arrival..departure);
/// with_lock(&mut client, nights, |conn| {
///     conn.batch_execute("SELECT 'book the nights'")?;
///     anyhow::Ok(())
/// })?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// The numbers are any `i64` except the greatest, and the end is not in the range. A lock on
/// the bare key is another lock: for all numbers, take the range `i64::MIN..i64::MAX`. A range without a number is
/// [`Error::EmptyRange`](crate::Error::EmptyRange) when it is used.
///
/// An exclusive range takes some 35 advisory locks if it is short, and at most 250, however
/// long it is. They are acquired in one statement
/// and in a fixed order, so that two ranges cannot deadlock. Each has a place in the server's
/// lock table ([`max_locks_per_transaction`]).
///
/// Shared ranges let each other in, and keep out exclusive ones that overlap. A shared range
/// also takes a lock for each of its numbers, so it has at most 366 of them
/// ([`Error::SharedRangeTooLong`](crate::Error::SharedRangeTooLong)). Count days there,
/// not dates as above: 20261231 and 20270101 are 8870 numbers apart.
///
/// While a range waits in the server's queue, it keeps out the ranges that overlap it. A
/// guard's mode cannot be changed. On a pool, a thread that holds a range cannot wait
/// for another of the same key on a second connection
/// ([`Error::AlreadyHeld`](crate::Error::AlreadyHeld)), overlapping or not: a waiter for both
/// may be between them.
///
/// [`max_locks_per_transaction`]: https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-MAX-LOCKS-PER-TRANSACTION
///
/// # The keys behind it
///
/// It is held as advisory locks on nodes of a tree. Like the hash of names they are part of the
/// crate's contract. A node of b bits is the 2ᵇ numbers from a multiple of 2ᵇ on, for b = 0, 2, 4,
/// … 62; below it are four nodes of b − 2 bits. Its key is the name `"C:O:S F/B"` in the namespace
/// `pglock.range` (see [`Key::namespaced`]), where C, O and S are what [`Key::pg_locks`] gives for
/// the range's key, F is the first number of the node and B its bits.
///
/// | node | exclusive range | shared range |
/// | --- | --- | --- |
/// | some of its numbers are in the range | shared | shared |
/// | all of them are, not all of those above it | exclusive | shared |
/// | all of them are, and all of those above it | – | shared |
///
/// If two ranges overlap, one of them has a node that covers numbers of the other: exclusive ranges
/// meet there. A shared range has every node that contains one of its numbers, so it meets whatever
/// an exclusive one covers.
///
/// ```
/// use pglock::{KeyRange, Lock, Target};
///
/// let lock = Lock::new((), KeyRange::new("room:7", 24..27)); // errors give this too: `lock_info`
/// let Target::Range(range) = lock.lock_info().target() else { unreachable!() };
/// assert_eq!((range.key().name(), range.numbers()), (Some("room:7"), 24..27));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct KeyRange {
    key: Key,
    numbers: Range<i64>,
    nodes: Vec<Key>,
    modes: Vec<Mode>,
}

/// The most numbers that a shared range can have. Exclusive ranges that do not overlap have no
/// exclusive node in common; a shared range that overlaps them all must meet each, so it has at
/// least as many nodes as numbers.
const MOST_SHARED: u64 = 366;

/// How many bits of a number each step down the tree decides. With two, a range has no more nodes
/// at worst than with one, and fewer on average.
const STEP: u32 = 2;

impl KeyRange {
    /// The numbers under that key, from the start on and without the end.
    pub fn new(key: impl IntoKey, numbers: Range<i64>) -> Self {
        Self::of(key.into(), numbers, Mode::default())
    }

    fn of(key: Key, numbers: Range<i64>, mode: Mode) -> Self {
        let mut range = Self {
            key,
            numbers,
            nodes: Vec::new(),
            modes: Vec::new(),
        };
        range.find_nodes(mode);
        range
    }

    /// The same range in another mode.
    pub(crate) fn in_mode(&self, mode: Mode) -> Self {
        Self::of(self.key.clone(), self.numbers.clone(), mode)
    }

    /// The key that the numbers are under.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The numbers, without the end.
    #[must_use]
    pub fn numbers(&self) -> Range<i64> {
        self.numbers.clone()
    }

    /// The keys of the nodes, in the order in which they are acquired.
    pub(crate) fn nodes(&self) -> &[Key] {
        &self.nodes
    }

    /// The modes in which they are acquired.
    pub(crate) fn modes(&self) -> &[Mode] {
        &self.modes
    }

    pub(crate) fn is_too_long(&self, mode: Mode) -> bool {
        mode == Mode::Shared && self.numbers.end.abs_diff(self.numbers.start) > MOST_SHARED
    }

    fn find_nodes(&mut self, mode: Mode) {
        if self.numbers.is_empty() || self.is_too_long(mode) {
            return; // refused when it is used
        }
        let mut found = Vec::new();
        let span = (self.numbers.start, self.numbers.end - 1);
        for first in children(i64::MIN, 64) {
            visit(first, 64 - STEP, span, mode, &mut found);
        }
        let (classid, objid, objsubid) = self.key.pg_locks();
        let mut nodes: Vec<_> = found
            .into_iter()
            .map(|(first, bits, mode)| {
                let name = format!("{classid}:{objid}:{objsubid} {first}/{bits}");
                (Key::namespaced("pglock.range", name), mode)
            })
            .collect();
        // Of two nodes with the same hash, the exclusive one comes first and stays.
        nodes.sort_unstable_by_key(|(key, mode)| (key.as_i64(), *mode == Mode::Shared));
        nodes.dedup_by(|(one, _), (other, _)| one == other);
        (self.nodes, self.modes) = nodes.into_iter().unzip();
    }
}

/// Finds the nodes that the numbers from `span.0` to `span.1` need, from this node down.
fn visit(first: i64, bits: u32, span: (i64, i64), mode: Mode, found: &mut Vec<(i64, u32, Mode)>) {
    let last = first + ((1_i64 << bits) - 1);
    if last < span.0 || first > span.1 {
        return;
    }
    let covered = span.0 <= first && last <= span.1;
    if covered && mode == Mode::Exclusive {
        found.push((first, bits, Mode::Exclusive));
        return;
    }
    found.push((first, bits, Mode::Shared));
    if bits > 0 {
        for child in children(first, bits) {
            visit(child, bits - STEP, span, mode, found);
        }
    }
}

/// The first numbers of a node's children.
fn children(first: i64, bits: u32) -> impl Iterator<Item = i64> {
    (0..1_i64 << STEP).map(move |child| first.wrapping_add(child << (bits - STEP)))
}

/// `20261224..20261227 of "room:7"`
impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.numbers, self.key)
    }
}

#[cfg(test)]
mod tests;
