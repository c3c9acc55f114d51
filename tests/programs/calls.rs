//! Calls with a lock: what the model expects, what is done, and the outcome.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pglock::{Error, Scope};

use crate::drivers::{Connection, Outcome, Request, Stop};
use crate::model::{Answer, Form};
use crate::program::{Block, Spec};
use crate::world::{BodyPanic, World, pass_on};

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    NotAtAll,
    Ok,
    Err(u8),
    Panic,
}

impl Ran {
    pub fn of(result: &Result<(), Stop>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(Stop::Body(further)) => Self::Err(*further),
            Err(Stop::Lock(_)) => unreachable!("a program's errors are its own"),
        }
    }
}

/// `None`: the body's panic came through.
pub type Caught = Option<Outcome>;

pub fn catching(call: impl FnOnce() -> Outcome) -> Caught {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => Some(outcome),
        Err(panic) if panic.is::<BodyPanic>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

impl World {
    pub fn request<'s>(&self, spec: &'s Spec) -> Request<'s> {
        Request {
            spec,
            space: self.space,
            give_up: self.model.are_kept_out(&spec.keys, spec.mode),
        }
    }

    pub fn section(
        &mut self,
        connection: &mut dyn Connection,
        spec: &Spec,
        block: &Block,
    ) -> Result<(), Stop> {
        let (request, answer) = (self.request(spec), self.model.answer(spec, Form::Section));
        let mut ran = Ran::NotAtAll;
        let caught = catching(|| {
            connection.section(&request, &mut |connection| {
                self.acquired(spec, answer);
                ran = Ran::Panic;
                let result = self.block(connection, block);
                ran = Ran::of(&result);
                result
            })
        });
        let ended = match answer {
            Answer::Acquired(Scope::Session) => self.released(spec),
            _ => None,
        };
        self.settle(connection, answer, ran, ended, caught)
    }

    pub fn transact(
        &mut self,
        connection: &mut dyn Connection,
        spec: &Spec,
        rollback: bool,
        block: &Block,
    ) -> Result<(), Stop> {
        let answer = self.model.answer(spec, Form::Transaction);
        let (request, inside) = (self.request(spec), self.model.in_transaction());
        let mut ran = Ran::NotAtAll;
        let caught = catching(|| {
            connection.transact(&request, rollback, &mut |connection| {
                match inside {
                    true => self.acquired(spec, answer),
                    false => self.model.begin(),
                }
                match inside {
                    true => self.model.begin(),
                    false => self.acquired(spec, answer),
                }
                ran = Ran::Panic;
                let result = self.block(connection, block);
                ran = Ran::of(&result);
                result
            })
        });
        let mut ended = None;
        if ran != Ran::NotAtAll {
            let commit = ran == Ran::Ok || matches!(ran, Ran::Err(_)) && !rollback;
            let committed = self.model.end(commit);
            ended = (commit && !committed).then_some("NotCommitted");
        }
        self.settle(connection, answer, ran, ended, caught)
    }

    pub fn one_message(&mut self, connection: &mut dyn Connection, spec: &Spec, fails: bool) {
        let answer = self.model.answer(spec, Form::Transaction);
        let text = match fails {
            true => format!("{}; SELECT 1 / 0", self.table.insert()),
            false => self.table.insert(),
        };
        let outcome = connection.one_message(&self.request(spec), &text);
        let acquired = matches!(answer, Answer::Acquired(_));
        if acquired && fails {
            if !matches!(outcome, Err(Stop::Lock(Error::Body(_)))) {
                self.fails(format!("a message whose text fails: {outcome:?}"));
            }
            return;
        }
        if acquired && self.model.in_transaction() {
            self.acquired(spec, answer);
        }
        if acquired {
            self.model.write();
        }
        let ran = if acquired { Ran::Ok } else { Ran::NotAtAll };
        let _ = self.settle(connection, answer, ran, None, Some(outcome));
    }

    pub fn acquired(&mut self, spec: &Spec, answer: Answer) {
        match answer {
            Answer::Acquired(scope) => self.model.acquire(&spec.keys, spec.mode, scope),
            refused => self.fails(format!("acquired {spec:?}, and not {refused:?}")),
        }
    }

    /// The release of a session lock, before which an open transaction is rolled back. Returns the error
    /// that a section must end with, unless it has one of its own.
    pub fn released(&mut self, spec: &Spec) -> Option<&'static str> {
        let left_open = self.model.raw;
        while self.model.in_transaction() {
            self.model.end(false);
        }
        match self.model.release(&spec.keys, spec.mode) {
            false => Some("LockLost"),
            true => left_open.then_some("TransactionLeftOpen"),
        }
    }

    /// Compares what a call returned with what it must return.
    pub fn settle(
        &mut self,
        connection: &mut dyn Connection,
        answer: Answer,
        ran: Ran,
        ended: Option<&str>,
        caught: Caught,
    ) -> Result<(), Stop> {
        let is_right = match (answer, ran, &caught) {
            (Answer::Acquired(_), Ran::Panic, None) => true,
            (Answer::Acquired(_), Ran::Err(further), Some(Err(Stop::Body(got)))) => further == *got,
            (Answer::Acquired(_), Ran::Ok, Some(Ok(Some(())))) => ended.is_none(),
            (Answer::Acquired(_), Ran::Ok, Some(Err(Stop::Lock(error)))) => {
                ended == Some(name(error))
            }
            (refused, Ran::NotAtAll, Some(outcome)) => is_refusal(refused, outcome),
            _ => false,
        };
        if !is_right {
            self.fails(format!(
                "{answer:?} was to come, then {ended:?} of a body that ran {ran:?}, and came {caught:?}"
            ));
        }
        self.look_for_abort(connection);
        pass_on(caught.and_then(Result::err).as_ref())
    }
}

fn is_refusal(answer: Answer, outcome: &Outcome) -> bool {
    let error = match outcome {
        Ok(None) => return answer == Answer::Busy,
        Err(Stop::Lock(error)) => name(error),
        _ => return false,
    };
    match answer {
        Answer::Acquired(_) => false,
        Answer::Busy => error == "Timeout",
        Answer::InTransaction => error == "InTransaction",
        Answer::NotInTransaction => error == "NotInTransaction",
        Answer::WrongScope => error == "WrongScope",
        Answer::TransactionAborted => error == "TransactionAborted",
        Answer::OneOfThese => matches!(
            error,
            "InTransaction" | "NotInTransaction" | "TransactionAborted"
        ),
    }
}

/// The name of the error's variant, for those that a program can cause.
pub fn name(error: &Error) -> &'static str {
    match error {
        Error::Timeout { .. } => "Timeout",
        Error::InTransaction { .. } => "InTransaction",
        Error::NotInTransaction { .. } => "NotInTransaction",
        Error::WrongScope { .. } => "WrongScope",
        Error::TransactionAborted { .. } => "TransactionAborted",
        Error::TransactionLeftOpen { .. } => "TransactionLeftOpen",
        Error::NotCommitted { .. } => "NotCommitted",
        Error::LockLost { .. } => "LockLost",
        Error::CannotDowngrade { .. } => "CannotDowngrade",
        _ => "another",
    }
}
