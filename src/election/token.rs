//! A number that grows with every term.

use std::fmt;

/// A number that is greater in every later term of an election, for what is outside the database.
///
/// The receiver of a request keeps the greatest token that it has seen, and refuses requests with a
/// smaller one: they come from a former leader.
///
/// It is the number of a transaction of the leader's ([`pg_current_xact_id`]), ordered after the
/// server's [timeline], which grows when a standby is promoted: the new primary may not have seen the
/// last transactions of the old one. The transaction is on disk before the term begins, so a crash of
/// the server does not repeat its number.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// use pglock::election::Election;
///
/// let election = Election::new(move || Client::connect(&url, NoTls), "doc:token");
/// let first = election.campaign()?.token();
/// let second = election.campaign()?.token();
/// assert!(second > first);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// After `pg_upgrade`, or a dump that is restored elsewhere, the server counts timelines from 1 again, and tokens
/// may be smaller than before. Let the receivers forget what they have seen then, while nobody leads.
///
/// [`pg_current_xact_id`]: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
/// [timeline]: https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    timeline: u32,
    transaction: u64,
}

impl Token {
    /// Reads the server's reply: a transaction, and the name of a WAL file, which begins with the
    /// timeline in hexadecimal.
    pub(super) fn read(line: &str) -> Option<Self> {
        let (transaction, file) = line.split_once(' ')?;
        Some(Self {
            timeline: u32::from_str_radix(file.get(..8)?, 16).ok()?,
            transaction: transaction.parse().ok()?,
        })
    }

    /// The token as one number, which grows for as long as the database stays on one server. After
    /// the promotion of a standby it may be smaller than before; the token itself is not.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.transaction
    }
}

/// `1-4711`: the timeline and the transaction.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.timeline, self.transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_ordered_by_the_timeline_first() {
        let token = |line| Token::read(line).unwrap();
        let old = token("5000 000000090000000000000001");
        let new = token("4000 0000000A0000000000000001");
        assert!(old < new);
        assert!(new < token("4001 0000000A0000000000000001"));
        assert_eq!((new.to_string(), new.as_u64()), ("10-4000".into(), 4000));
    }

    #[test]
    fn other_words_are_no_token() {
        for line in ["", "1", "x 00000001", "1 0000001", "1 g0000001", "1 "] {
            assert_eq!(Token::read(line), None, "{line:?}");
        }
    }
}
