//! Who is in the way of a lock.

use crate::claim::Claim;
use crate::driver::{Failure, Session, while_canceled};
use crate::sql;
use crate::targets::{LockInfo, Target};

/// The sessions that hold a lock, ten at most, asked behind these statements; and what became of the
/// statements. If asking fails there are none: the failure must not replace the error that the holders
/// explain.
pub(super) fn after<S: Session>(
    session: &mut S,
    statements: &str,
    lock: &LockInfo,
) -> (Result<(), Failure>, Vec<Claim>) {
    match session.message(statements, &holders_query(lock)) {
        Ok(lines) => (Ok(()), read_holders(&lines, lock)),
        Err(_) => (while_canceled(|| session.send(statements)), Vec::new()),
    }
}

/// Enough for an error's text.
const FEW: usize = 10;

fn holders_query(lock: &LockInfo) -> String {
    let claims = sql::claims_in_the_way(lock);
    match lock.target() {
        Target::Range(_) => claims, // one session may hold all of the keys
        _ => format!("SELECT line FROM ({claims}) AS claims LIMIT {FEW}"),
    }
}

/// For a range, names each session once: the nodes on which they meet mean nothing to the caller.
fn read_holders(lines: &[String], lock: &LockInfo) -> Vec<Claim> {
    let mut claims = Claim::read_all(lines, lock.keys());
    if let Target::Range(_) = lock.target() {
        claims.sort_by_key(|claim| claim.pid);
        claims.dedup_by_key(|claim| claim.pid);
        claims.truncate(FEW);
    }
    claims
}
