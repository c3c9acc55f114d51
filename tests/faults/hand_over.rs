//! Each fault at each point of a section, while another thread waits in the queue of a queued pool: that
//! next thread never works without the lock, and gets it in the end.

use std::sync::mpsc::channel;
use std::sync::{Arc, Once};
use std::thread;

use pglock::driver::Session;
use pglock::{Error, Key, QueuedPool};
use r2d2::ManageConnection;

use crate::backends::{Wire, cancel_again_and_again, on_every_queued_pool, terminate};
use crate::oracle::{Oracle, Table, unique_key, wait_until};
use crate::proxy::{Point, Then};
use crate::section::{Body, Form, Step, Told};

on_every_queued_pool!(a_connection_is_cut);

fn a_connection_is_cut<M>(wire: &Wire, pool: &QueuedPool<M>)
where
    M: ManageConnection<Connection: Session>,
{
    for case in Case::all(wire) {
        for point in [Point::Before, Point::After, Point::MidReply] {
            let ended = case.run(wire, pool, point, || Then::Cut);
            assert_eq!(ended.told, case.step.told_if_lost(), "{case:?}, {point:?}");
            assert_eq!(ended.next, Told::Done, "{case:?}, {point:?}");
            case.check(&ended, pool, point);
        }
    }
}

on_every_queued_pool!(a_session_is_terminated);

/// After the server's last answer the section cannot notice. Then the next thread gets a session that has
/// ended, on which nothing can be done.
fn a_session_is_terminated<M>(wire: &Wire, pool: &QueuedPool<M>)
where
    M: ManageConnection<Connection: Session>,
{
    for case in Case::all(wire) {
        for point in [Point::Before, Point::After] {
            let application = wire.application.clone();
            let ended = case.run(wire, pool, point, move || {
                terminate(&application);
                Then::GoOn
            });
            let told = ended.told;
            let after = case.following.map_or(Told::Done, Step::told_if_lost);
            let told_in_time = point == Point::After && told == after;
            assert!(
                told_in_time || told == case.step.told_if_lost(),
                "{case:?}, {point:?}: {told:?}"
            );
            let forms = [case.form, case.next];
            let handed_over = told == Told::Done && forms == [Form::Session, Form::Session];
            let expected = if handed_over {
                Told::ErrorOfTheBody
            } else {
                Told::Done
            };
            assert_eq!(ended.next, expected, "{case:?}, {point:?}");
            case.check(&ended, pool, point);
        }
    }
}

on_every_queued_pool!(a_request_is_cancelled);

/// Chance decides which request is hit; it may be one of the next thread.
fn a_request_is_cancelled<M>(wire: &Wire, pool: &QueuedPool<M>)
where
    M: ManageConnection<Connection: Session>,
{
    for case in Case::all(wire) {
        for _ in 0..8 {
            let ended =
                cancel_again_and_again(wire, |meet| case.run(wire, pool, Point::Before, meet));
            case.check(&ended, pool, Point::Before);
        }
    }
}

/// A section that meets a fault at a step, and the form of the section that waits for it.
#[derive(Debug)]
struct Case {
    form: Form,
    step: Step,
    following: Option<Step>,
    next: Form,
}

impl Case {
    fn all(wire: &Wire) -> Vec<Self> {
        let mut cases = Vec::new();
        for form in Form::ALL {
            let steps = form.steps(wire.begin_is_a_request);
            for (i, step) in steps.iter().copied().enumerate() {
                let following = steps.get(i + 1).copied();
                cases.extend(Form::ALL.map(|next| Self {
                    form,
                    step,
                    following,
                    next,
                }));
            }
        }
        cases
    }

    fn run<M>(
        &self,
        wire: &Wire,
        pool: &QueuedPool<M>,
        point: Point,
        fault: impl FnOnce() -> Then + Send + 'static,
    ) -> Ended
    where
        M: ManageConnection<Connection: Session>,
    {
        let (key, table) = (unique_key(), Table::new());
        let holder = Holder {
            key: &key,
            table: &table,
        };
        let (start, started) = channel();
        let (queue, once) = (pool.clone(), Once::new());
        let next_comes: NextComes = Arc::new(move || {
            once.call_once(|| {
                let _ = start.send(());
                wait_until("the next thread in the queue", || {
                    (queue.waiting() == 1).then_some(())
                });
            });
        });
        let comes_in_time = Arc::clone(&next_comes);
        wire.proxy.at(self.step.marker(), point, move || {
            comes_in_time();
            fault()
        });
        let (told, next) = thread::scope(|threads| {
            let next = threads.spawn(move || {
                started.recv().unwrap();
                Told::by(&self.next.run(&mut &*pool, holder.key, holder))
            });
            let first = First {
                next_comes,
                table: &table,
            };
            let told = Told::by(&self.form.run(&mut &*pool, &key, first));
            (told, next.join().unwrap())
        });
        assert!(!wire.proxy.is_armed(), "{self:?}: no fault");
        Ended {
            told,
            next,
            key,
            table,
        }
    }

    /// What must be true after the fault. If the next thread failed, it tries again.
    fn check<M>(&self, ended: &Ended, pool: &QueuedPool<M>, point: Point)
    where
        M: ManageConnection<Connection: Session>,
    {
        let Ended {
            told,
            next,
            key,
            table,
        } = ended;
        assert_eq!(pool.waiting(), 0);
        let mut rows = table.rows();
        let done = self.form.work_was_done(*told) || self.form.work_is_done(self.step, point);
        rows -= i64::from(done);
        rows -= i64::from(self.next.work_was_done(*next));
        assert_eq!(rows, 0, "{self:?}, {point:?}, {told:?}, {next:?}");
        if *next != Told::Done {
            let again = self.next.run(&mut &*pool, key, Holder { key, table });
            assert!(
                again.is_ok(),
                "{self:?}, {point:?}, {told:?}, {next:?}: {again:?}"
            );
        }
        Oracle::new().wait_until_free(key);
    }
}

/// The results of a section and of the next one.
struct Ended {
    told: Told,
    next: Told,
    key: Key,
    table: Table,
}

/// The body of the first section, unless a fault has let the next one go first.
struct First<'a> {
    next_comes: NextComes,
    table: &'a Table,
}

/// Waits until the next thread is in the queue, or has been.
type NextComes = Arc<dyn Fn() + Send + Sync>;

impl Body for First<'_> {
    fn run<S: Session>(self, session: &mut S) -> Result<(), Error> {
        (self.next_comes)();
        self.table.run(session)
    }
}

/// Inserts a row, and must then still be the holder.
#[derive(Clone, Copy)]
struct Holder<'a> {
    key: &'a Key,
    table: &'a Table,
}

impl Body for Holder<'_> {
    fn run<S: Session>(self, session: &mut S) -> Result<(), Error> {
        let lines = session.query("SELECT pg_backend_pid()::text AS line");
        let lines = lines.map_err(|failure| Error::body(format!("{failure:?}")))?;
        self.table.run(session)?;
        assert_eq!(Oracle::new().holder(self.key).to_string(), lines[0]);
        Ok(())
    }
}
