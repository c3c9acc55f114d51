//! A table with rows to lock, and a session that is in the way.

use std::time::Duration;

use pglock::{Error, Row};

use crate::oracle::{Oracle, connect, unique_name, wait_until};

pub const SHORT: Duration = Duration::from_millis(20);

/// `(id int PRIMARY KEY, day date, buyer text)` with three rows, dropped with this.
pub struct Seats {
    pub name: String,
}

impl Seats {
    pub fn new() -> Self {
        let name = unique_name("seats");
        let create = format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, day date DEFAULT '2026-11-20', buyer text); \
             INSERT INTO {name} (id) VALUES (1), (2), (3)"
        );
        connect().batch_execute(&create).unwrap();
        Self { name }
    }

    pub fn row(&self, id: i32) -> Row {
        Row::new(self.name.as_str(), "id", id)
    }

    pub fn book(&self, id: i32, buyer: &str) -> String {
        format!("UPDATE {} SET buyer = '{buyer}' WHERE id = {id}", self.name)
    }

    pub fn buyer(&self, id: i32) -> Option<String> {
        let query = format!("SELECT buyer FROM {} WHERE id = {id}", self.name);
        connect().query_one(&query, &[]).unwrap().get(0)
    }

    /// Whether somebody else could now lock the row with this strength.
    pub fn is_free(&self, id: i32, strength: &str) -> bool {
        let lock = format!(
            "SELECT FROM {} WHERE id = {id} FOR {strength} NOWAIT",
            self.name
        );
        connect().execute(&lock, &[]).is_ok()
    }

    /// A session in a transaction in which it has run a statement.
    pub fn other(&self, statement: &str) -> Other {
        let mut session = Oracle::new();
        let begin = format!("BEGIN; {}", statement.replace("seats", &self.name));
        session.client.batch_execute(&begin).unwrap();
        let pid = session.client.query_one("SELECT pg_backend_pid()", &[]);
        Other {
            pid: pid.unwrap().get(0),
            session,
        }
    }

    pub fn holder(&self) -> Other {
        self.other("SELECT FROM seats WHERE id = 1 FOR UPDATE")
    }

    /// The table-level locks of others, as `pg_locks` names them.
    pub fn modes(&self, oracle: &mut Oracle) -> Vec<String> {
        let query = "SELECT mode FROM pg_locks \
                     WHERE relation = $1::text::regclass AND granted AND pid <> pg_backend_pid()";
        let rows = oracle.client.query(query, &[&self.name]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP TABLE {}", self.name));
    }
}

/// Somebody with an open transaction.
pub struct Other {
    pub session: Oracle,
    pub pid: i32,
}

impl Other {
    pub fn run(&mut self, statement: &str) {
        self.session.client.batch_execute(statement).unwrap();
    }
}

/// Waits until a session waits for this one, and returns which, and the kind of lock.
pub fn wait_for_waiter(oracle: &mut Oracle, holder: i32) -> (i32, String) {
    let query = "SELECT pid, locktype FROM pg_locks \
                 WHERE NOT granted AND $1 = ANY (pg_blocking_pids(pid))";
    wait_until("a waiter", || {
        let waiter = oracle.client.query_opt(query, &[&holder]).unwrap();
        waiter.map(|row| (row.get(0), row.get(1)))
    })
}

pub fn never() -> Result<(), Error> {
    panic!("the body must not run")
}

pub fn nothing() -> Result<(), Error> {
    Ok(())
}
