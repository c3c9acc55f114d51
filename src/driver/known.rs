//! What a session has prepared, when its use begins and ends, and at the COMMIT.

use super::{Opening, Session, SessionHandle};
use crate::failure::Failure;
use crate::prepared::{self, Sent};
use crate::sql::{BEFORE_COMMIT, Commit, NOT_YET};

/// Takes what is kept beside a session.
pub(crate) fn recall<H: SessionHandle>(handle: &mut H) {
    let here = prepared::address(&**handle);
    if let Some(kept) = handle.pooled().and_then(|pooled| pooled.known()) {
        prepared::recall(here, kept);
    }
}

/// Keeps it there. With `forget`, the session goes on to somebody else.
pub(crate) fn keep<H: SessionHandle>(handle: &mut H, forget: bool) {
    let here = prepared::address(&**handle);
    if let Some(kept) = handle.pooled().and_then(|pooled| pooled.known()) {
        prepared::keep(here, kept, forget);
    }
}

impl Opening {
    /// Commits the transaction, in one message. It fails if the transaction has been aborted, or is no longer
    /// pglock's: then it is still open.
    ///
    /// # Errors
    ///
    /// As [`send`](Session::send).
    pub fn commit<S: Session>(&self, transaction: &mut S) -> Result<(), Failure> {
        match &self.commit {
            Some(commit) => commit_with(transaction, commit),
            None => Ok(()),
        }
    }
}

/// Commits. The check in front of it may be gone, as after a body's DEALLOCATE ALL: so it stands behind a
/// savepoint. Where it is gone, or does not find the name, the text looks.
fn commit_with<S: Session>(session: &mut S, commit: &Commit) -> Result<(), Failure> {
    // A driver without SQLSTATEs knows by itself that the body has ended the transaction.
    if !prepared::is_known(session) || !session.in_transaction() {
        return session.send(&commit.text);
    }
    let sent = Sent::new(session, &commit.check);
    if sent.is_text() {
        let done = session.send(&commit.text);
        sent.is_gone(&done);
        return done;
    }
    let done = session.send(&[BEFORE_COMMIT, &sent.text, "; COMMIT"].concat());
    let gone = sent.is_gone(&done);
    match done {
        Err(failure) if failure.may_be_without_transaction() => session.send(&commit.text),
        Err(failure) if gone || matches!(failure, Failure::Refused(_)) => {
            match session.in_transaction() {
                true => match session.send(&[NOT_YET, &commit.text].concat()) {
                    // It was the COMMIT that failed.
                    Err(ended) if ended.may_be_without_transaction() => Err(failure),
                    again => again,
                },
                false => Err(failure),
            }
        }
        done => done,
    }
}
