//! The error texts that depend on the fields of the error.

use std::time::Duration;

use super::find::causes;
use crate::claim::Claim;
use crate::key::{ELECTIONS, Key};
use crate::targets::{LockInfo, Target};

pub(super) fn timeout_text(
    lock: &LockInfo,
    timeout: Option<Duration>,
    holders: &[Claim],
) -> String {
    let held = if holders.is_empty() {
        "another session holds it".to_owned()
    } else {
        let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
        format!("held by {}", names.join(" and "))
    };
    match timeout {
        Some(Duration::ZERO) => format!(
            "cannot acquire {lock}, and this attempt does not wait: {held}; try again later"
        ),
        Some(timeout) => format!(
            "timed out after {timeout:?} waiting for {lock}: {held}; try again, or allow a longer timeout"
        ),
        None => format!(
            "timed out waiting for {lock}, by the session's own lock_timeout: {held}; try again, or set a timeout on the lock"
        ),
    }
}

pub(super) fn connection_lost_text(lock: &LockInfo, committing: bool) -> String {
    if committing {
        format!(
            "the connection was lost at the COMMIT under {lock}: whether the work was committed is not known; look before doing it again"
        )
    } else {
        format!(
            "the connection was lost while acquiring {lock}: nothing is held; reconnect and try again"
        )
    }
}

pub(super) fn not_committed_text(lock: &LockInfo, contention: bool) -> String {
    let instead = match contention {
        true => "another transaction was in the way; do the whole work again",
        false => "the body returned Ok after a statement had failed, or the COMMIT itself failed",
    };
    format!("the work under {lock} was not committed but rolled back: {instead}")
}

pub(super) fn checkout_text(lock: &LockInfo, in_use: bool) -> String {
    let instead = match in_use {
        true => ": all of the pool's are in use; try again, or give the pool more",
        false => "",
    };
    format!("no connection to acquire {lock} on{instead}")
}

/// With the reason, where it is known: the innermost error has it, and libpq explains it in more lines.
pub(super) fn lock_lost_text(
    lock: &LockInfo,
    source: Option<&(dyn std::error::Error + Send + Sync + 'static)>,
) -> String {
    let reason = source.and_then(|source| causes(source).last());
    let reason = reason.map(ToString::to_string);
    let reason = reason.as_deref().and_then(|reason| reason.lines().next());
    let reason = reason.unwrap_or(
        "the body released it or ended its transaction, or a pooler in transaction mode moved the session",
    );
    format!(
        "the lock {lock} was lost before its release: the section may have run unprotected; check its work ({reason})"
    )
}

pub(super) fn in_transaction_text(lock: &LockInfo) -> String {
    if lock
        .keys()
        .first()
        .and_then(Key::namespace)
        .is_some_and(|namespace| namespace.starts_with(ELECTIONS))
    {
        return format!(
            "cannot stand in the {lock}: a transaction is open on its connection, and holds a snapshot for as long as the term lasts; let its function connect without one"
        );
    }
    let instead = match lock.target() {
        Target::Slots(_) => "acquire it before the transaction begins",
        _ => "use Scope::Transaction, or take the lock before the transaction begins",
    };
    format!(
        "cannot acquire {lock}: a transaction is open already, and the lock would be released before its COMMIT; {instead}"
    )
}
