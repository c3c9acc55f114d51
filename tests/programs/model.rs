//! What must be held, by PostgreSQL's rules and pglock's promises.

use std::collections::{BTreeMap, BTreeSet};

use pglock::{Mode, Scope};

use crate::program::Spec;

/// A row of `pg_locks`: a session's hold and a transaction's are one, and so are nested ones.
pub type Hold = (i32, bool);

pub fn hold(key: i32, mode: Mode) -> Hold {
    (key, mode == Mode::Exclusive)
}

/// What a call for a lock must return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Acquired(Scope),
    Busy,
    WrongScope,
    InTransaction,
    NotInTransaction,
    TransactionAborted,
    /// One of the three above, in an aborted transaction that the driver does not know of.
    OneOfThese,
}

/// What a call holds its lock for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Section,
    Transaction,
}

/// A transaction, or a savepoint in it.
#[derive(Debug, Default)]
struct Level {
    holds: BTreeSet<Hold>,
    rows: i64,
}

#[derive(Debug, Default)]
pub struct Model {
    /// How often the session holds each key.
    session: BTreeMap<Hold, u32>,
    /// The transaction and its savepoints.
    levels: Vec<Level>,
    /// How many rows are committed.
    pub rows: i64,
    /// Whether the innermost level has been aborted.
    pub aborted: bool,
    /// Whether the driver does not know of the transaction.
    pub raw: bool,
    /// What the other connection holds.
    rival: BTreeSet<Hold>,
}

impl Model {
    /// What is held, or may still be: see [`surely_held`](Model::surely_held).
    pub fn held(&self) -> BTreeSet<Hold> {
        self.held_by(&self.levels)
    }

    /// The same without what an error has released. A savepoint that was rolled back stays open, since no
    /// driver releases it then: an error ends first the savepoint, and then, with the rollback, what is
    /// around it.
    pub fn surely_held(&self) -> BTreeSet<Hold> {
        match (self.aborted, self.levels.split_last()) {
            (true, Some((_, outer))) => self.held_by(outer),
            _ => self.held(),
        }
    }

    fn held_by(&self, levels: &[Level]) -> BTreeSet<Hold> {
        let of_session = self.session.iter().filter(|(_, count)| **count > 0);
        let of_session = of_session.map(|(hold, _)| *hold);
        let of_levels = levels.iter().flat_map(|level| &level.holds);
        of_session.chain(of_levels.copied()).collect()
    }

    pub fn rivals(&self) -> &BTreeSet<Hold> {
        &self.rival
    }

    pub fn in_transaction(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Whether the other connection keeps this one from holding a key.
    fn is_kept_out(&self, (key, exclusive): Hold) -> bool {
        let has = |exclusive| self.rival.contains(&(key, exclusive));
        has(true) || exclusive && has(false)
    }

    pub fn are_kept_out(&self, keys: &[i32], mode: Mode) -> bool {
        keys.iter().any(|key| self.is_kept_out(hold(*key, mode)))
    }

    /// Takes a key for the other connection, if it is free.
    pub fn rival_takes(&mut self, key: i32, mode: Mode) -> bool {
        let held = self.held();
        let exclusive = mode == Mode::Exclusive;
        let is_kept_out = held.contains(&(key, true)) || exclusive && held.contains(&(key, false));
        if !is_kept_out {
            self.rival.insert(hold(key, mode));
        }
        !is_kept_out
    }

    pub fn rival_releases(&mut self) {
        self.rival.clear();
    }

    pub fn answer(&self, spec: &Spec, form: Form) -> Answer {
        let insisted = spec.scope;
        match form {
            Form::Transaction if insisted == Some(Scope::Session) => return Answer::WrongScope,
            Form::Transaction if self.raw => return self.raw_answer(),
            Form::Section if self.raw && insisted != Some(Scope::Transaction) => {
                return self.raw_answer();
            }
            _ => {}
        }
        let scope = match form {
            Form::Transaction => Scope::Transaction,
            Form::Section if self.in_transaction() => Scope::Transaction,
            Form::Section => insisted.unwrap_or(Scope::Session),
        };
        if self.in_transaction() && insisted == Some(Scope::Session) {
            Answer::InTransaction
        } else if self.aborted && self.raw {
            Answer::OneOfThese
        } else if self.aborted {
            Answer::TransactionAborted
        } else if form == Form::Section && scope == Scope::Transaction && !self.in_transaction() {
            Answer::NotInTransaction
        } else if self.are_kept_out(&spec.keys, spec.mode) {
            Answer::Busy
        } else {
            Answer::Acquired(scope)
        }
    }

    fn raw_answer(&self) -> Answer {
        match self.aborted {
            true => Answer::OneOfThese,
            false => Answer::InTransaction,
        }
    }

    pub fn acquire(&mut self, keys: &[i32], mode: Mode, scope: Scope) {
        for hold in distinct(keys, mode) {
            match scope {
                Scope::Session => *self.session.entry(hold).or_default() += 1,
                Scope::Transaction => {
                    let level = self.levels.last_mut().expect("a transaction is open");
                    level.holds.insert(hold);
                }
            }
        }
    }

    /// Releases those of the keys that the session holds. Returns whether it held all.
    pub fn release(&mut self, keys: &[i32], mode: Mode) -> bool {
        let mut all = true;
        for hold in distinct(keys, mode) {
            match self.session.get_mut(&hold) {
                Some(count) if *count > 0 => *count -= 1,
                _ => all = false,
            }
        }
        all
    }

    pub fn session_holds(&self, keys: &[i32], mode: Mode) -> bool {
        let count = |hold| self.session.get(&hold).copied().unwrap_or(0);
        distinct(keys, mode).into_iter().all(|hold| count(hold) > 0)
    }

    /// `pg_advisory_unlock_all()`.
    pub fn give_away(&mut self) {
        self.session.clear();
    }

    /// BEGIN, or SAVEPOINT.
    pub fn begin(&mut self) {
        self.levels.push(Level::default());
    }

    /// COMMIT or RELEASE; ROLLBACK, to the savepoint or of all. Returns whether it is committed.
    pub fn end(&mut self, commit: bool) -> bool {
        let committed = commit && !self.aborted;
        let level = self.levels.pop().expect("a transaction is open");
        match self.levels.last_mut() {
            _ if !committed => {}
            Some(outer) => {
                outer.holds.extend(level.holds);
                outer.rows += level.rows;
            }
            None => self.rows += level.rows,
        }
        self.aborted = false;
        if self.levels.is_empty() {
            self.raw = false;
        }
        committed
    }

    pub fn write(&mut self) {
        match self.levels.last_mut() {
            Some(level) => level.rows += 1,
            None => self.rows += 1,
        }
    }

    /// An error.
    pub fn abort(&mut self) {
        self.aborted = self.in_transaction();
    }
}

fn distinct(keys: &[i32], mode: Mode) -> BTreeSet<Hold> {
    keys.iter().map(|key| hold(*key, mode)).collect()
}
