//! Acquiring locks on keys for a transaction.

use super::conditions::Locks;
use super::keys::{
    CLIENT, Client, FRESH_SNAPSHOT, IDLE, IN_RECOVERY, NOT_POSTGRES, ON_POSTGRES, ON_PRIMARY,
    OPEN_TRANSACTION, STALE_SNAPSHOT, form, found, held_by_another, held_here, parameters,
};
use super::ours;
use super::statement::{Conditions, Statement};
use super::time::WaitTime;
use crate::failure::Refusal;
use crate::process;
use crate::targets::LockInfo;

/// A name for the transaction in which a lock is acquired: see [`super::commit`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named<'a> {
    Transaction(&'a str),
    Message(&'a str),
}

impl Named<'_> {
    pub(super) fn in_conditions(self, conditions: &mut Conditions) -> String {
        let sets = match self {
            Self::Transaction(name) => {
                let name = conditions.text_parameter(name);
                ours::named(ours::TRANSACTION, &name)
            }
            Self::Message(name) => {
                let name = conditions.text_parameter(name);
                ours::named_message(&name)
            }
        };
        sets + " IS NOT NULL"
    }

    /// The same as an expression.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Transaction(name) => ours::named(ours::TRANSACTION, &format!("'{name}'")),
            Self::Message(name) => ours::named_message(&format!("'{name}'")),
        }
    }
}

/// Where in a transaction a lock is acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// In an open one.
    Transaction,
    /// In an open one, behind a block that has waited for the lock: that has looked at the session.
    Waited,
    /// In the message's, in front of a BEGIN or of statements.
    Message,
}

/// Acquires a lock for a transaction. A transaction that pglock opens gets a name: see [`super::commit`].
pub(crate) fn acquire_in_transaction(
    lock: &LockInfo,
    time: WaitTime,
    inside: Inside,
    client: Client,
    named: Option<Named<'_>>,
) -> Statement {
    let write = || write_acquire_in_transaction(lock, time, inside, client, named);
    let (name, kind) = match named {
        None => (None, 0),
        Some(Named::Transaction(name)) => (Some(name), 1),
        Some(Named::Message(name)) => (Some(name), 2),
    };
    let checked = lock.slot().is_some();
    match form(
        lock,
        &[b't', time.form(), inside as u8, kind, u8::from(checked)],
    ) {
        Some(form) if client == Client::Own => {
            let me = !checked && inside != Inside::Waited;
            Statement::known(form, parameters(lock, me, false, time, name), write)
        }
        _ => write(),
    }
}

fn write_acquire_in_transaction(
    lock: &LockInfo,
    time: WaitTime,
    inside: Inside,
    client: Client,
    named: Option<Named<'_>>,
) -> Statement {
    let mut conditions = Conditions::new();
    let mut why = [IN_RECOVERY, NOT_POSTGRES].join(" ");
    if inside == Inside::Message {
        conditions.and(&[IDLE]);
        why = [OPEN_TRANSACTION, &why].join(" ");
    }
    for condition in [ON_PRIMARY, ON_POSTGRES] {
        conditions.and(&[condition]);
    }
    // The session has a permit's slot before its transaction begins.
    if lock.slot().is_none() {
        conditions.and(&[FRESH_SNAPSHOT]);
        let (alone, otherwise) = match inside {
            Inside::Waited => none_was_seen(),
            Inside::Transaction | Inside::Message => none_is_held(&mut conditions, lock, client),
        };
        conditions.and(&[&alone]);
        why += &format!(" {STALE_SNAPSHOT} WHEN {otherwise}");
    }
    let locks = Locks::of_any(&mut conditions, lock, false);
    let acquired = match time {
        WaitTime::No => locks.tries("_xact"),
        _ => locks.waits_and_puts_timeout_back(&mut conditions, time),
    };
    conditions.and(&[&acquired]);
    if let Some(named) = named {
        let named = named.in_conditions(&mut conditions);
        conditions.and(&[&named]);
    }
    Statement::new(conditions, format!("CASE {why} ELSE 'busy' END"))
}

/// Whether no other process holds the key on this session, and the refusal.
///
/// In `pg_locks` what the session holds for its transaction looks the same: so the look is for the beginning of a
/// transaction. In one of the caller's a block can tell: see [`Wait::try_all`](super::Wait::try_all).
fn none_is_held(conditions: &mut Conditions, lock: &LockInfo, client: Client) -> (String, String) {
    let me = conditions.text_parameter(process::word());
    let bears = format!("coalesce({CLIENT}, {me}) = {me}");
    match client {
        Client::Own => {
            let otherwise = format!("NOT ({bears}) THEN '{}'", Refusal::Stranger);
            (bears, otherwise)
        }
        Client::Other => {
            let (held, found) = (held_here(conditions, lock), found());
            let alone =
                format!("CASE WHEN {bears} THEN true WHEN {held} THEN NOT {found} ELSE true END");
            (alone, held_by_another())
        }
    }
}

/// Whether the block in front of this has found none, and the refusal.
fn none_was_seen() -> (String, String) {
    let seen = "pg_catalog.split_part(pg_catalog.current_setting('pglock.line', true), ' ', 2) \
        IS NOT DISTINCT FROM 'shared_session'";
    (
        format!("NOT ({seen})"),
        format!("{seen} THEN '{}'", Refusal::SharedSession),
    )
}
