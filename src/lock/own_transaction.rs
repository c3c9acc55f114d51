//! A transaction that begins with a lock.

use super::wait::{self, Attempt, Within, explained};
use crate::driver::{Failure, Finish, Opening, Refusal, Session, Transacted};
use crate::error::Error;
use crate::failure::answer;
use crate::prepared::{self, Sent};
use crate::process;
use crate::sql::{self, Client, Commit, Inside, Named, Statement, Wait, WaitTime};

/// How a lock is acquired at the beginning of a transaction.
struct Entry<'a> {
    /// Goes in front of all.
    before: &'a str,
    /// Waits quietly, in front of a BEGIN or behind it.
    wait: Option<&'a str>,
    acquire: &'a Statement,
    commit: &'a Commit,
}

/// Begins a transaction with the lock, anew with each slice.
pub(super) fn in_own_transaction<S: Session, R>(
    session: &mut S,
    attempt: &mut Attempt<'_>,
    run: &mut impl FnMut(&mut S::Transaction<'_>) -> (R, Finish),
) -> Result<Transacted<R>, Error> {
    let lock = &attempt.request.lock;
    let name = process::unique_word();
    let named = Some(Named::Transaction(&name));
    let commit = sql::commit(&name);
    let (mut client, mut brief) = (prepared::client_of(session), true);
    let (mut slice, mut blocks) = (None, true);
    let wait = Wait::new(lock);
    let here = prepared::address(session);
    loop {
        attempt.go_on()?;
        let time = match slice {
            None => attempt.first_wait(wait::SLICE),
            Some(slice) => {
                match attempt.later_wait(if blocks { slice } else { attempt.long_slice() }) {
                    Some(millis) => WaitTime::Slice(millis),
                    None => WaitTime::No,
                }
            }
        };
        let quiet = match (slice, time) {
            (Some(_), WaitTime::Slice(millis)) if blocks => Some(wait.in_queue(millis)),
            _ => None,
        };
        let label = attempt.label();
        let block = sql::acquire_target(
            lock,
            time,
            named.map(Named::text).as_deref(),
            true,
            S::HAS_SQLSTATE,
        );
        let done = if let Some(block) = block {
            let front = [attempt.first(), &label, &*block].concat();
            let opening = Opening::new(front, Some(commit.clone()));
            let behind = |transaction: &mut S::Transaction<'_>| {
                prepared::in_transaction(here, transaction);
                if opening.was_sent() {
                    return Ok(());
                }
                let named = named.map(Named::text);
                let text =
                    sql::acquire_target(lock, time, named.as_deref(), false, S::HAS_SQLSTATE);
                transaction.send(&[sql::FIRST, &label, &*text.unwrap_or_default()].concat())
            };
            within(session, &opening, behind, &mut *run)
        } else {
            let waits = if quiet.is_some() { WaitTime::No } else { time };
            let acquire = |inside| {
                let acquire = sql::acquire_in_transaction(lock, waits, inside, client, named);
                // In front of a BEGIN a refusal is an error, which can be asked about only once.
                match brief && waits != WaitTime::No && inside == Inside::Transaction {
                    true => acquire.brief(),
                    false => acquire,
                }
            };
            let entry = Entry {
                before: &[attempt.first(), &label].concat(),
                wait: quiet.as_deref(),
                acquire: &acquire(match quiet {
                    Some(_) => Inside::Waited,
                    None => Inside::Transaction,
                }),
                commit: &commit,
            };
            // Quietly: an acquire that does not wait says in a row that the lock is not free. Between this and the
            // acquire another may get it.
            let early = !S::HAS_SQLSTATE
                && waits == WaitTime::No
                && quiet.is_none()
                && lock.slot().is_none();
            let look = early.then(|| session.prepared("", &acquire(Inside::Message)));
            match look.map(answer) {
                Some(Err(failure)) => Err(failure),
                _ => begin_with(session, &entry, acquire(Inside::Message), run),
            }
        };
        let failure = match done {
            Ok(transacted) => return Ok(transacted),
            Err(Failure::Refused(Refusal::Unexplained)) => {
                brief = false;
                continue;
            }
            Err(Failure::Refused(Refusal::Stranger)) => {
                prepared::is_not_ours(session);
                client = Client::Other;
                continue;
            }
            Err(failure) if quiet.is_some() && failure.is_without_blocks() => {
                blocks = false;
                continue;
            }
            Err(failure) => explained(session, lock, time, attempt.waited(), failure),
        };
        let more = match &failure {
            Failure::Refused(Refusal::Busy) => quiet.is_some() && !attempt.is_over(),
            failure => attempt.goes_on(failure, time),
        };
        if !more {
            return Err(attempt.failed(session, Within::OwnTransaction, failure));
        }
        if slice.is_none() {
            attempt.situation = attempt.ask(session).ok().flatten();
        }
        match attempt.slice_in() {
            Ok(length) => slice = Some(length),
            Err(ended) => return Err(attempt.failed(session, Within::OwnTransaction, ended)),
        }
    }
}

/// One attempt to begin a transaction with a lock. If the session does not have the statement, it begins anew.
fn begin_with<S: Session, R>(
    session: &mut S,
    entry: &Entry<'_>,
    in_front: Statement,
    run: &mut impl FnMut(&mut S::Transaction<'_>) -> (R, Finish),
) -> Result<Transacted<R>, Failure> {
    let raising = in_front.raising();
    let sent = Sent::new(session, &raising);
    let front = match entry.wait {
        Some(wait) => [entry.before, wait.trim_end_matches("; ")].concat(),
        None => [entry.before, &sent.text].concat(),
    };
    let opening = Opening::new(front, Some(entry.commit.clone()));
    let here = prepared::address(session);
    let mut again = false;
    let behind = |transaction: &mut S::Transaction<'_>| {
        prepared::in_transaction(here, transaction);
        match (entry.wait, opening.was_sent()) {
            (None, true) => Ok(()),
            (Some(_), true) => answer(transaction.query(&entry.acquire.text())),
            (wait, false) => {
                let label = entry.before.replace(sql::FIRST, "");
                let sent = Sent::new(transaction, entry.acquire);
                let before = [sql::FIRST, &label, wait.unwrap_or_default()].concat();
                let lines = transaction.query(&(before + &sent.text));
                again = sent.is_gone(&lines);
                answer(lines)
            }
        }
    };
    let done = within(session, &opening, behind, &mut *run);
    if entry.wait.is_none() && opening.was_sent() {
        again = sent.is_gone(&done);
    }
    match again {
        true => begin_with(session, entry, raising, run),
        false => done,
    }
}

/// Runs the body in a transaction, behind what it is to have: if it has not, it is rolled back, or left to the
/// caller, whose it is.
pub(crate) fn within<S: Session, R>(
    session: &mut S,
    opening: &Opening,
    behind: impl FnOnce(&mut S::Transaction<'_>) -> Result<(), Failure>,
    body: impl FnOnce(&mut S::Transaction<'_>) -> (R, Finish),
) -> Result<Transacted<R>, Failure> {
    let done = session.transact(opening, |transaction| match behind(transaction) {
        Ok(()) => {
            let (result, finish) = body(transaction);
            (Ok(result), finish)
        }
        Err(failure) if failure.is_in_transaction() => (Err(failure), Finish::Leave),
        Err(failure) => (Err(failure), Finish::Rollback),
    });
    let Transacted { result, ended } = done?;
    result.map(|result| Transacted { result, ended })
}
