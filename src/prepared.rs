//! Who knows which statements a session has prepared.
//!
//! A pooled connection knows it exactly: what it has prepared is kept beside it in the pool. Of any other
//! session, a thread remembers the last that it used, by its address. That is a hint: another connection
//! may stand there by now. The server checks it, since it refuses to EXECUTE what a session does not have
//! before it does anything (SQLSTATE 26000); then the statement is sent as text. A process that was wrong
//! more than once in a thousand times gives up hinting.
//!
//! A first use is text, for many sessions are used once. The second prepares.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Failure, Refusal};
use crate::sql::{Client, PREPARE_ONCE, Statement, name, prepare_once};

/// What a session is known to have prepared.
#[derive(Debug, Default, Clone)]
pub struct Known {
    /// Which connection's it is; 0 is none's yet.
    connection: u64,
    used: Vec<u64>,
    prepared: Vec<u64>,
    /// Whether its statements were gone twice, or it cannot prepare any.
    text_only: bool,
    gone: bool,
    /// Whether it did not bear this process's number when a transaction was to begin.
    not_ours: bool,
}

#[derive(Default)]
struct Memory {
    /// The addresses of the session, and of its transaction.
    at: [usize; 2],
    known: Known,
    /// Whether it is more than a hint.
    exact: bool,
}

impl Memory {
    /// Forgets what it knows, unless it is of this session.
    fn turn_to<S>(&mut self, session: &S) {
        if !self.at.contains(&address(session)) {
            *self = Self {
                at: [address(session), 0],
                ..Self::default()
            };
        }
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
    /// The sessions that get text, by their addresses, where no pool keeps that.
    #[cfg(feature = "diesel")]
    static TEXT_ONLY: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// How many of them a thread tells apart. If there are more, all get text.
#[cfg(feature = "diesel")]
const MOST_TEXT_ONLY: usize = 16;

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
static RIGHT: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

fn may_hint() -> bool {
    WRONG.load(Ordering::Relaxed) < 2 + RIGHT.load(Ordering::Relaxed) / 1_000
}

pub(crate) fn address<S>(session: &S) -> usize {
    std::ptr::from_ref(session).addr()
}

/// In which form a statement is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// Prepared by the same message.
    Prepare,
    Execute,
}

/// A statement in the form in which it is sent.
pub(crate) struct Sent {
    pub(crate) text: String,
    id: u64,
    form: Form,
}

impl Sent {
    /// Of a statement on a session.
    pub(crate) fn new<S>(session: &S, statement: &Statement) -> Self {
        let id = statement.id();
        let form = MEMORY.with_borrow_mut(|memory| {
            memory.turn_to(session);
            let known = &memory.known;
            if known.text_only || !memory.exact && !may_hint() {
                Form::Text
            } else if known.prepared.contains(&id) {
                Form::Execute
            } else if known.used.contains(&id) {
                Form::Prepare
            } else {
                Form::Text
            }
        });
        let text = match form {
            Form::Text => statement.text(),
            Form::Prepare => prepare_once(statement, id) + &statement.execute(id),
            Form::Execute => statement.execute(id),
        };
        Self { text, id, form }
    }

    /// Whether it is sent as it is.
    pub(crate) fn is_text(&self) -> bool {
        self.form == Form::Text
    }

    /// Notes what became of it. Returns whether it must be sent again, as text: nothing has been done.
    pub(crate) fn is_gone<T>(&self, reply: &Result<T, Failure>) -> bool {
        let gone = match reply {
            Ok(_) => false,
            Err(_) if self.form == Form::Text => return false,
            Err(failure) => failure.is_missing(&name(self.id)),
        };
        let refused = matches!(reply, Err(failure) if self.form == Form::Prepare && failure.is_without_blocks());
        MEMORY.with_borrow_mut(|memory| {
            let exact = memory.exact;
            let known = &mut memory.known;
            if refused {
                known.text_only = true;
            } else if gone {
                // Two connections can have stood at one address.
                known.text_only = known.gone && exact;
                known.gone = true;
                known.prepared.clear();
                if !exact {
                    WRONG.fetch_add(1, Ordering::Relaxed);
                }
            } else {
                match self.form {
                    // A session that never prepares comes by here with each use.
                    Form::Text if !known.used.contains(&self.id) => known.used.push(self.id),
                    Form::Prepare if reply.is_ok() => known.prepared.push(self.id),
                    Form::Execute if !exact => {
                        RIGHT.fetch_add(1, Ordering::Relaxed);
                    }
                    Form::Text | Form::Prepare | Form::Execute => {}
                }
            }
        });
        gone || refused
    }
}

/// Sends a statement in a way of the session's.
pub(crate) fn run_with<S, R>(
    session: &mut S,
    statement: &Statement,
    mut send: impl FnMut(&mut S, &str) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let mut again = false;
    with(session, statement, |session, text, _| {
        let reply = send(session, text);
        match std::mem::replace(&mut again, true) {
            true => reply.map_err(after_abort),
            false => reply,
        }
    })
}

/// The session did not have a statement, which was an error: in a raw BEGIN of the caller's, that has
/// aborted the transaction.
pub(crate) fn after_abort(failure: Failure) -> Failure {
    match failure.may_be_aborted_transaction() {
        true => Failure::Refused(Refusal::InTransaction),
        false => failure,
    }
}

/// Sends a statement as part of a message, in the form that the session knows it by: `send` gets the text, and
/// how many statements it is.
pub(crate) fn with<S, R>(
    session: &mut S,
    statement: &Statement,
    mut send: impl FnMut(&mut S, &str, usize) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let sent = Sent::new(session, statement);
    let statements = match sent.form {
        Form::Prepare => 1 + PREPARE_ONCE,
        Form::Text | Form::Execute => 1,
    };
    let reply = send(session, &sent.text, statements);
    match sent.is_gone(&reply) {
        true => send(session, &statement.text(), 1),
        false => reply,
    }
}

/// Which form of an acquire to begin a transaction with. Both are safe on any session. In front of a BEGIN, that
/// a session is not ours is an error in the log: so it is remembered.
pub(crate) fn client_of<S>(session: &S) -> Client {
    MEMORY.with_borrow_mut(|memory| {
        memory.turn_to(session);
        match memory.known.not_ours {
            true => Client::Other,
            false => Client::Own,
        }
    })
}

/// The session does not bear this process's number.
pub(crate) fn is_not_ours<S>(session: &S) {
    MEMORY.with_borrow_mut(|memory| {
        memory.turn_to(session);
        memory.known.not_ours = true;
    });
}

/// The extended protocol failed for want of a prepared statement: from now on this session gets text.
#[cfg(feature = "diesel")]
pub(crate) fn give_up<S>(session: &S) {
    let exact = MEMORY.with_borrow_mut(|memory| {
        memory.turn_to(session);
        memory.known.text_only = true;
        memory.exact
    });
    let here = address(session);
    TEXT_ONLY.with_borrow_mut(|known| {
        if !exact && known.len() < MOST_TEXT_ONLY && !known.contains(&here) {
            known.push(here);
        }
    });
}

/// Whether a session is known to take nothing but text.
#[cfg(feature = "diesel")]
pub(crate) fn is_text_only<S>(session: &S) -> bool {
    let here = address(session);
    let (exact, text_only) = MEMORY.with_borrow(|memory| {
        let is_here = memory.at.contains(&here);
        (is_here && memory.exact, is_here && memory.known.text_only)
    });
    let is_among = |known: &Vec<usize>| known.len() == MOST_TEXT_ONLY || known.contains(&here);
    text_only || !exact && TEXT_ONLY.with_borrow(is_among)
}

/// The transaction of a session is the same session.
pub(crate) fn in_transaction<T>(session: usize, transaction: &T) {
    MEMORY.with_borrow_mut(|memory| {
        if memory.at[0] == session {
            memory.at[1] = address(transaction);
        }
    });
}

/// Whether this thread remembers anything of a session.
pub(crate) fn is_known<S>(session: &S) -> bool {
    MEMORY.with_borrow(|memory| memory.at.contains(&address(session)))
}

/// Takes what is kept beside the session that is here. What this thread remembers of it may be newer.
pub(crate) fn recall(here: usize, kept: &mut Known) {
    if kept.connection == 0 {
        kept.connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    }
    let known = kept.clone();
    MEMORY.with_borrow_mut(|memory| {
        let same = memory.exact && memory.known.connection == known.connection;
        if !(same && memory.at[0] == here) {
            *memory = Memory {
                at: [here, 0],
                known,
                exact: true,
            };
        }
    });
}

/// Keeps what this thread remembers of the session that is here; with `forget`, in no other place: the session
/// goes on to somebody else.
pub(crate) fn keep(here: usize, kept: &mut Known, forget: bool) {
    MEMORY.with_borrow_mut(|memory| {
        let same = memory.exact && memory.known.connection == kept.connection;
        if same && memory.at[0] == here {
            kept.clone_from(&memory.known);
            if forget {
                *memory = Memory::default();
            }
        }
    });
}
