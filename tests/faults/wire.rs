//! Each fault at each point: nothing is held afterwards, the error is of the right kind, the work
//! is there or not as it should, and the next caller gets the lock.

use pglock::{Error, LockBackend, with_lock};

use crate::backends::{Wire, cancel_again_and_again, on_every_backend, terminate};
use crate::oracle::{Oracle, Table, unique_key};
use crate::proxy::{Point, Then};
use crate::section::{Form, Step, Told};

on_every_backend!(a_connection_is_cut);

/// The client sees only that its connection has ended, and must say at which step. The server notices by
/// itself.
fn a_connection_is_cut<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    for form in Form::ALL {
        for step in form.steps(wire.begin_is_a_request) {
            for point in [Point::Before, Point::After, Point::MidReply] {
                let mut backend = fresh();
                wire.proxy.at(step.marker(), point, || Then::Cut);
                let case = Case::new(form, format!("{form:?}, {step:?}, {point:?}"));
                let told = case.run(&mut backend);
                assert!(!wire.proxy.is_armed(), "{}: no fault", case.name);
                assert_eq!(told, step.told_if_lost(), "{}", case.name);
                case.check(form.work_is_done(step, point), &fresh);
            }
        }
    }
}

on_every_backend!(a_session_is_terminated);

/// After a step is before the next one, and after the last one it is too late to matter; but a
/// driver that finds the reply and the end of the session together may report the end.
fn a_session_is_terminated<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    for form in Form::ALL {
        let steps = form.steps(wire.begin_is_a_request);
        for (i, step) in steps.iter().copied().enumerate() {
            for point in [Point::Before, Point::After] {
                let mut backend = fresh();
                let application = wire.application.clone();
                wire.proxy.at(step.marker(), point, move || {
                    terminate(&application);
                    Then::GoOn
                });
                let case = Case::new(form, format!("{form:?}, {step:?}, {point:?}"));
                let told = case.run(&mut backend);
                assert!(!wire.proxy.is_armed(), "{}: no fault", case.name);
                let next = steps.get(i + 1).copied();
                let after = next.map_or(Told::Done, Step::told_if_lost);
                let told_in_time = point == Point::After && told == after;
                assert!(
                    told_in_time || told == step.told_if_lost(),
                    "{}: {told:?}",
                    case.name
                );
                case.check(form.work_is_done(step, point), &fresh);
            }
        }
    }
}

on_every_backend!(a_request_is_cancelled);

/// Chance decides which request a cancel hits, and when; the outcome must be consistent each time.
fn a_request_is_cancelled<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    for form in Form::ALL {
        for step in form.steps(wire.begin_is_a_request) {
            for round in 0..8 {
                let mut backend = fresh();
                let case = Case::new(form, format!("{form:?}, {step:?}, round {round}"));
                let told = cancel_again_and_again(wire, |meet| {
                    wire.proxy.at(step.marker(), Point::Before, meet);
                    case.run(&mut backend)
                });
                assert!(!wire.proxy.is_armed(), "{}: no fault", case.name);
                case.check(form.work_was_done(told), &fresh);
            }
        }
    }
}

on_every_backend!(a_stalled_request_keeps_the_lock);

/// Until the server gets the COMMIT or the unlock, nobody else gets in, and the work is not visible.
fn a_stalled_request_keeps_the_lock<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    for (form, step) in [
        (Form::Session, Step::Unlock),
        (Form::Transaction, Step::Commit),
    ] {
        for point in [Point::Before, Point::After] {
            let case = Case::new(form, format!("{form:?}, {point:?}"));
            let (key, table) = (case.key.clone(), case.table.name.clone());
            let (seen, sees) = std::sync::mpsc::channel();
            wire.proxy.at(step.marker(), point, move || {
                let mut oracle = Oracle::new();
                let look = (!oracle.rows(&key).is_empty(), oracle.count(&table));
                seen.send(look).unwrap();
                Then::GoOn
            });
            assert_eq!(case.run(&mut fresh()), Told::Done, "{}", case.name);
            let rows = i64::from(form.work_is_done(step, point));
            let held = point == Point::Before;
            assert_eq!(sees.recv().unwrap(), (held, rows), "{}", case.name);
        }
    }
}

on_every_backend!(a_waiter_is_cut_off);

/// The server notices only when it grants the lock; then the lock is free again at once.
fn a_waiter_is_cut_off<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    let (mut oracle, mut holder, key) = (Oracle::new(), Oracle::new(), unique_key());
    let table = Table::new();
    for form in Form::ALL {
        holder.lock(&key);
        let mut backend = fresh();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                oracle.wait_for_waiter(&key);
                wire.proxy.cut();
            });
            let outcome = form.run(&mut backend, &key, &table);
            assert_eq!(Told::by(&outcome), Told::LostAtAcquire);
        });
        holder.unlock(&key);
        oracle.wait_until_free(&key);
        with_lock(&mut fresh(), &key, |_| Ok::<_, Error>(())).unwrap();
    }
    assert_eq!(table.rows(), 0);
}

on_every_backend!(a_lost_connection_stays_lost);

/// The body fails, and the rollback and the release fail silently; the next section on the connection gets
/// an error. A pool has another connection.
fn a_lost_connection_stays_lost<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    for first in Form::ALL {
        for second in Form::ALL {
            let mut backend = fresh();
            wire.proxy.at("INSERT", Point::Before, || Then::Cut);
            let told = Case::new(first, String::new()).run(&mut backend);
            assert_eq!(told, Told::ErrorOfTheBody);
            let case = Case::new(second, format!("{first:?}, {second:?}"));
            let told = case.run(&mut backend);
            let pooled = case.run(&mut backend) == Told::Done;
            let expected = if pooled {
                Told::Done
            } else {
                Told::LostAtAcquire
            };
            assert_eq!(told, expected, "{}", case.name);
        }
    }
}

/// A section, its key and its table.
struct Case {
    name: String,
    form: Form,
    key: pglock::Key,
    table: Table,
}

impl Case {
    fn new(form: Form, name: String) -> Self {
        let (key, table) = (unique_key(), Table::new());
        Self {
            name,
            form,
            key,
            table,
        }
    }

    fn run<B: LockBackend>(&self, backend: &mut B) -> Told {
        Told::by(&self.form.run(backend, &self.key, &self.table))
    }

    /// What must be true in the end.
    fn check<B: LockBackend>(&self, done: bool, fresh: impl Fn() -> B) {
        let mut oracle = Oracle::new();
        oracle.wait_until_free(&self.key);
        assert_eq!(self.table.rows(), i64::from(done), "{}", self.name);
        assert_eq!(self.run(&mut fresh()), Told::Done, "{}: next", self.name);
        assert_eq!(self.table.rows(), i64::from(done) + 1, "{}", self.name);
        oracle.assert_free(&self.key);
    }
}
