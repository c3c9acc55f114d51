//! Who is in the way of a lock.

use crate::claim::Claim;
use crate::driver::{Failure, Session, while_canceled};
use crate::sql;
use crate::targets::{LockInfo, Target};

/// Enough for an error's text.
const FEW: usize = 10;

/// The sessions that hold a lock, ten at most, asked behind these statements; and what became of the
/// statements. If asking fails there are none: the failure must not replace the error that the holders
/// explain.
pub(super) fn after<S: Session>(
    session: &mut S,
    statements: &str,
    lock: &LockInfo,
) -> (Result<(), Failure>, Vec<Claim>) {
    // One session may hold all keys of a range. Their nodes mean nothing to the caller.
    let is_range = matches!(lock.target(), Target::Range(_));
    let mut question = sql::claims_in_the_way(lock);
    if !is_range {
        question = format!("SELECT line FROM ({question}) AS claims LIMIT {FEW}");
    }
    let Ok(lines) = session.message(statements, &question) else {
        return (while_canceled(|| session.send(statements)), Vec::new());
    };
    let mut claims = Claim::read_all(&lines, lock.keys());
    if is_range {
        claims.sort_by_key(|claim| claim.pid);
        claims.dedup_by_key(|claim| claim.pid);
        claims.truncate(FEW);
    }
    (Ok(()), claims)
}
