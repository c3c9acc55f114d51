//! A program as it runs, and the connections around it.

use std::collections::BTreeSet;
use std::panic::resume_unwind;

use pglock::Mode;
use postgres::{Client, Statement};

use crate::drivers::{Connection, Stop};
use crate::model::{Hold, Model};
use crate::oracle::{self, Table};
use crate::program::{Block, Ending, KEYS, Step};

/// A difference from the model: a panic's payload, so that it passes through all sections.
pub struct Mismatch(pub String);

/// The panic of a body.
pub struct BodyPanic;

pub struct World {
    pub model: Model,
    /// The first half of all keys, which no other process uses.
    pub space: i32,
    pub table: Table,
    pid: i32,
    rival: Client,
    observer: Client,
    look: Statement,
}

impl World {
    pub fn around(connection: &mut dyn Connection) -> Self {
        let (mut observer, rival) = (oracle::connect(), oracle::connect());
        let name = oracle::unique_name("program");
        assert!(connection.sql(&format!("SET application_name = '{name}'")));
        let query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
        let pid: i32 = observer.query_one(query, &[&name]).unwrap().get(0);
        let look = "SELECT pid, objid::int, mode = 'ExclusiveLock' FROM pg_locks \
            WHERE locktype = 'advisory' AND granted AND classid::int = $1 AND objsubid = 2";
        Self {
            model: Model::default(),
            space: pid,
            table: Table::new(),
            pid,
            look: observer.prepare(look).unwrap(),
            rival,
            observer,
        }
    }

    pub fn run_program<C: Connection>(&mut self, connection: &mut C, steps: &[Step]) {
        self.look(connection, "at the start");
        let _ = self.run(connection, steps);
        if self.model.raw {
            connection.sql("ROLLBACK");
            self.model.end(false);
        }
        self.look(connection, "at the end");
        let count = format!("SELECT count(*) FROM {}", self.table.name);
        let rows: i64 = self.observer.query_one(&count, &[]).unwrap().get(0);
        if rows != self.model.rows {
            self.fails(format!("{rows} rows are committed"));
        }
        if !self.model.held().is_empty() {
            self.fails("the model itself leaks");
        }
        self.rival_releases();
    }

    /// Runs the steps. An error is one of theirs that passes through.
    pub fn run(&mut self, connection: &mut dyn Connection, steps: &[Step]) -> Result<(), Stop> {
        for step in steps {
            let stopped = self.step(connection, step);
            self.look(connection, step);
            stopped?;
        }
        Ok(())
    }

    /// What runs under a lock, or in a transaction.
    pub fn block(&mut self, connection: &mut dyn Connection, block: &Block) -> Result<(), Stop> {
        self.look(connection, "as a block begins");
        self.run(connection, &block.steps)?;
        match block.ending {
            Ending::Ok => Ok(()),
            Ending::Err(further) => Err(Stop::Body(further)),
            Ending::Panic => resume_unwind(Box::new(BodyPanic)),
        }
    }

    fn step(&mut self, connection: &mut dyn Connection, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Section(spec, block) => return self.section(connection, spec, block),
            // When its BEGIN fails, the driver `postgres` rolls back the open transaction.
            Step::Transact(..) if self.model.raw && self.model.aborted => {}
            Step::Transact(spec, rollback, block) => {
                return self.transact(connection, spec, *rollback, block);
            }
            Step::Guard(spec, before, block, after, release) => {
                return self.guard(connection, spec, (before, block, after), *release);
            }
            Step::OneMessage(spec, fails) => self.one_message(connection, spec, *fails),
            Step::Nest(block) => return self.nest(connection, block),
            Step::Write => {
                if connection.sql(&self.table.insert()) {
                    self.model.write();
                }
            }
            Step::SqlError => {
                connection.sql("SELECT 1 / 0");
                self.model.abort();
            }
            Step::RawBegin if !self.model.in_transaction() => {
                connection.sql("BEGIN; SELECT 1");
                self.model.begin();
                self.model.raw = true;
            }
            Step::RawEnd(commit) if self.model.raw => {
                connection.sql(if *commit { "COMMIT" } else { "ROLLBACK" });
                self.model.end(*commit);
            }
            Step::RawBegin | Step::RawEnd(_) => {}
            Step::GiveAway => {
                if connection.sql("SELECT pg_advisory_unlock_all()") {
                    self.model.give_away();
                }
            }
            Step::RivalTakes(key, mode) if !self.model.aborted => self.rival_takes(*key, *mode),
            Step::RivalTakes(..) => {} // the model does not know what is free by now
            Step::RivalReleases => self.rival_releases(),
        }
        Ok(())
    }

    fn nest(&mut self, connection: &mut dyn Connection, block: &Block) -> Result<(), Stop> {
        if self.model.raw || self.model.aborted {
            return Ok(());
        }
        let mut stopped = None;
        connection.nest(&mut |connection| {
            self.model.begin();
            self.look(connection, "in a driver's transaction");
            // How a driver's own transaction handles a panic is not tested here.
            let ran = self.run(connection, &block.steps);
            let ran = ran.and_then(|()| match block.ending {
                Ending::Ok => Ok(()),
                Ending::Err(further) => Err(Stop::Body(further)),
                Ending::Panic => Err(Stop::Body(0)),
            });
            let commit = ran.is_ok() && !self.model.aborted;
            stopped = ran.err();
            commit
        });
        self.model.end(stopped.is_none());
        pass_on(stopped.as_ref())
    }

    fn rival_takes(&mut self, key: i32, mode: Mode) {
        let suffix = match mode {
            Mode::Exclusive => "",
            Mode::Shared => "_shared",
        };
        let took = format!("SELECT pg_try_advisory_lock{suffix}({}, {key})", self.space);
        let took: bool = self.rival.query_one(&took, &[]).unwrap().get(0);
        if took != self.model.rival_takes(key, mode) {
            self.fails(format!("the other connection takes {key} {mode}: {took}"));
        }
    }

    fn rival_releases(&mut self) {
        let release = "SELECT pg_advisory_unlock_all()";
        self.rival.batch_execute(release).unwrap();
        self.model.rival_releases();
    }

    /// Whether a refusal has aborted a transaction that the driver does not know of, where it may have.
    pub fn look_for_abort(&mut self, connection: &mut dyn Connection) {
        if self.model.raw && !self.model.aborted && !connection.sql("SELECT 1") {
            self.model.abort();
        }
    }

    /// Compares what `pg_locks` shows with the model.
    fn look(&mut self, connection: &mut dyn Connection, when: impl std::fmt::Debug) {
        // Not every driver waits until the server has released what an error has ended.
        connection.sql("SELECT 1");
        let (mut held, mut rivals) = (BTreeSet::<Hold>::new(), BTreeSet::new());
        let rows = self.observer.query(&self.look, &[&self.space]).unwrap();
        for row in &rows {
            let hold = (row.get(1), row.get(2));
            assert!((0..KEYS).contains(&hold.0));
            match row.get::<_, i32>(0) == self.pid {
                true => held.insert(hold),
                false => rivals.insert(hold),
            };
        }
        let is_right =
            held.is_subset(&self.model.held()) && held.is_superset(&self.model.surely_held());
        if !is_right || rivals != *self.model.rivals() {
            self.fails(format!(
                "pg_locks shows (key, exclusive) {held:?}, and of the other connection {rivals:?}, after {when:?}"
            ));
        }
    }

    pub fn fails(&self, what: impl std::fmt::Display) -> ! {
        let text = format!("{what}\nthe model: {:?}", self.model);
        resume_unwind(Box::new(Mismatch(text)))
    }
}

/// An error that passes through further calls.
pub fn pass_on(stopped: Option<&Stop>) -> Result<(), Stop> {
    match stopped {
        Some(Stop::Body(further)) if *further > 0 => Err(Stop::Body(further - 1)),
        _ => Ok(()),
    }
}
