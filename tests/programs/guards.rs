//! Guards, and their changes of mode.

use pglock::{Mode, Scope};

use crate::calls::{Ran, catching, name};
use crate::drivers::{Connection, Guard, Stop};
use crate::model::{Answer, Form, hold};
use crate::program::{Block, Change, Spec};
use crate::world::World;

impl World {
    pub fn guard(
        &mut self,
        connection: &mut dyn Connection,
        spec: &Spec,
        (before, block, after): (&[Change], &Block, &[Change]),
        release: bool,
    ) -> Result<(), Stop> {
        let (request, answer) = (self.request(spec), self.model.answer(spec, Form::Section));
        let (mut ran, mut held) = (Ran::NotAtAll, spec.clone());
        let caught = catching(|| {
            connection.guard(&request, &mut |guard| {
                self.acquired(spec, answer);
                ran = Ran::Panic;
                let changed = self.changes(guard, &mut held, before);
                let result = changed.and_then(|()| self.block(guard.connection(), block));
                let result = result.and_then(|()| self.changes(guard, &mut held, after));
                ran = Ran::of(&result);
                result.map(|()| release)
            })
        });
        let mut ended = None;
        if answer == Answer::Acquired(Scope::Session) {
            ended = self.released(&held).filter(|_| release); // dropped, it says nothing
        }
        self.settle(connection, answer, ran, ended, caught)
    }

    fn changes(
        &mut self,
        guard: &mut dyn Guard,
        held: &mut Spec,
        changes: &[Change],
    ) -> Result<(), Stop> {
        for change in changes {
            // A check in a raw transaction also takes the lock for that transaction.
            if self.model.raw && matches!(change, Change::IsHeld) {
                continue;
            }
            let expected = self.expected(guard.scope(), held, *change);
            let came = guard.change(*change);
            let came = came.as_ref().map_err(name);
            // If the driver does not know of the transaction, it may not know that it is aborted either.
            let is_right = match expected {
                Err("aborted") => came.is_err_and(|error| error != "LockLost"),
                expected => came.copied() == expected,
            };
            if !is_right {
                self.fails(format!(
                    "{change:?} of {held:?}: {came:?}, not {expected:?}"
                ));
            }
            if came == Ok(&true) && guard.mode() != held.mode {
                self.changed(guard.scope(), held, guard.mode());
            }
            self.look_for_abort(guard.connection());
        }
        Ok(())
    }

    fn expected(&self, scope: Scope, held: &Spec, change: Change) -> Result<bool, &'static str> {
        let model = &self.model;
        let session_holds = model.session_holds(&held.keys, held.mode);
        match (change, held.mode) {
            (Change::Downgrade, Mode::Shared) | (Change::Upgrade, Mode::Exclusive) => Ok(true),
            (Change::Downgrade, _) if scope == Scope::Transaction => Err("CannotDowngrade"),
            (Change::Downgrade | Change::Upgrade, _) if scope == Scope::Session => {
                match (model.raw, change) {
                    (true, _) if model.aborted => Err("aborted"),
                    (true, Change::Downgrade) => Err("CannotDowngrade"),
                    (true, _) => Err("InTransaction"),
                    (false, _) if !session_holds => Err("LockLost"),
                    (false, Change::Downgrade) => Ok(true),
                    (false, _) => Ok(!model.are_kept_out(&held.keys, Mode::Exclusive)),
                }
            }
            (Change::IsHeld, _) if scope == Scope::Session => Ok(session_holds),
            _ if model.aborted && model.raw => Err("aborted"),
            _ if model.aborted => Err("TransactionAborted"),
            (Change::IsHeld, mode) => {
                let all = model.held();
                let mut keys = held.keys.iter();
                Ok(keys.all(|key| all.contains(&hold(*key, mode))))
            }
            _ if !model.in_transaction() => Err("NotInTransaction"),
            _ => Ok(!model.are_kept_out(&held.keys, Mode::Exclusive)),
        }
    }

    fn changed(&mut self, scope: Scope, held: &mut Spec, mode: Mode) {
        if scope == Scope::Session {
            self.model.release(&held.keys, held.mode);
        }
        self.model.acquire(&held.keys, mode, scope);
        held.mode = mode;
    }
}
