//! The lock state, according to a second connection and `pg_locks`, not to pglock.

#![allow(dead_code)] // no test that includes it uses all of it

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pglock::Key;
use postgres::{Client, NoTls};

/// How long a test waits for what must happen. Only a failing test ever waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn url() -> String {
    std::env::var("DATABASE_URL").expect(
        "the tests need a PostgreSQL in DATABASE_URL: run them as `scripts/with-postgres cargo test …`",
    )
}

pub fn connect() -> Client {
    Client::connect(&url(), NoTls).expect("connect to DATABASE_URL")
}

/// A key that only this test uses, so that tests can run side by side, even with other runs on one server.
pub fn unique_key() -> Key {
    unique_name("key").into()
}

/// A name nobody else uses, for a key or a table.
pub fn unique_name(what: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("pglock_test_{what}_{}_{number}", std::process::id())
}

/// A row of `pg_locks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub pid: i32,
    pub mode: String,
    pub granted: bool,
}

/// A second connection that looks, and that can hold locks, end sessions and cancel them.
pub struct Oracle {
    pub client: Client,
}

impl Oracle {
    pub fn new() -> Self {
        Self { client: connect() }
    }

    pub fn rows(&mut self, key: &Key) -> Vec<Row> {
        let (classid, objid, objsubid) = key.pg_locks();
        let rows = self.client.query(
            "SELECT pid, mode, granted FROM pg_locks \
             WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND objsubid = $3 \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[&classid, &objid, &i16::try_from(objsubid).unwrap()],
        );
        let row = |row: &postgres::Row| Row {
            pid: row.get(0),
            mode: row.get(1),
            granted: row.get(2),
        };
        rows.unwrap().iter().map(row).collect()
    }

    /// The modes in which the key is held.
    pub fn held(&mut self, key: &Key) -> Vec<String> {
        let rows = self.rows(key).into_iter().filter(|row| row.granted);
        rows.map(|row| row.mode).collect()
    }

    /// The one process that holds the key.
    pub fn holder(&mut self, key: &Key) -> i32 {
        let rows = self.rows(key);
        match rows.as_slice() {
            [
                Row {
                    pid, granted: true, ..
                },
            ] => *pid,
            rows => panic!("{key:?} has not exactly one holder: {rows:?}"),
        }
    }

    pub fn assert_free(&mut self, key: &Key) {
        assert_eq!(self.rows(key), [], "{key:?} is still held or waited for");
    }

    /// For what the server does not notice at once, such as a connection that was cut.
    pub fn wait_until_free(&mut self, key: &Key) {
        wait_until(&format!("the end of all locks on {key:?}"), || {
            self.rows(key).is_empty().then_some(())
        });
    }

    /// Waits until the key is held.
    pub fn wait_for_holder(&mut self, key: &Key) {
        wait_until(&format!("a holder of {key:?}"), || {
            (!self.held(key).is_empty()).then_some(())
        });
    }

    /// Waits until somebody waits for the key, and says who.
    pub fn wait_for_waiter(&mut self, key: &Key) -> i32 {
        wait_until(&format!("a waiter for {key:?}"), || {
            self.rows(key)
                .iter()
                .find(|row| !row.granted)
                .map(|row| row.pid)
        })
    }

    /// Waits until exactly that many wait for the key.
    pub fn wait_for_waiters(&mut self, key: &Key, count: usize) {
        wait_until(&format!("{count} waiters for {key:?}"), || {
            let waiters = self.rows(key).into_iter().filter(|row| !row.granted);
            (waiters.count() == count).then_some(())
        });
    }

    /// Holds the key until somebody waits for it; then replaces the table's rows by one row, and releases
    /// the key.
    pub fn write_when_waited_for(&mut self, key: &Key, table: &Table, wait: impl FnOnce()) {
        self.lock(key);
        let replace = format!("DELETE FROM {}; {}", table.name, table.insert());
        std::thread::scope(|threads| {
            threads.spawn(|| {
                self.wait_for_waiter(key);
                self.client.batch_execute(&replace).unwrap();
                self.unlock(key);
            });
            wait();
        });
    }

    pub fn lock(&mut self, key: &Key) {
        self.call("pg_advisory_lock", key);
    }

    pub fn lock_shared(&mut self, key: &Key) {
        self.call("pg_advisory_lock_shared", key);
    }

    pub fn unlock_shared(&mut self, key: &Key) {
        self.call("pg_advisory_unlock_shared", key);
    }

    pub fn unlock(&mut self, key: &Key) {
        self.call("pg_advisory_unlock", key);
    }

    fn call(&mut self, function: &str, key: &Key) {
        let arguments = match (key.as_i64(), key.as_pair()) {
            (Some(number), _) => format!("'{number}'"),
            (_, Some((first, second))) => format!("'{first}', '{second}'"),
            (None, None) => unreachable!("a key is a bigint or a pair"),
        };
        self.client
            .batch_execute(&format!("SELECT {function}({arguments})"))
            .unwrap();
    }

    /// Ends another session, and waits until it is gone.
    pub fn terminate(&mut self, pid: i32) {
        self.client
            .execute("SELECT pg_terminate_backend($1)", &[&pid])
            .unwrap();
        self.wait_for_end(pid);
    }

    /// Waits until another session is gone.
    pub fn wait_for_end(&mut self, pid: i32) {
        wait_until("the end of a session", || {
            let alive = self
                .client
                .query_opt("SELECT FROM pg_stat_activity WHERE pid = $1", &[&pid]);
            alive.unwrap().is_none().then_some(())
        });
    }

    /// The sessions with an application name.
    pub fn sessions_of(&mut self, application: &str) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
        let rows = self.client.query(query, &[&application]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub fn cancel(&mut self, pid: i32) {
        self.client
            .execute("SELECT pg_cancel_backend($1)", &[&pid])
            .unwrap();
    }

    pub fn count(&mut self, table: &str) -> i64 {
        let row = self
            .client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[]);
        row.unwrap().get(0)
    }
}

/// A table for one test, dropped with this.
pub struct Table {
    pub name: String,
}

impl Table {
    pub fn new() -> Self {
        let name = unique_name("table");
        connect()
            .batch_execute(&format!("CREATE TABLE {name} (n int)"))
            .unwrap();
        Self { name }
    }

    pub fn insert(&self) -> String {
        format!("INSERT INTO {} VALUES (1)", self.name)
    }

    /// A statement that fails unless it sees that many rows.
    pub fn assert_rows(&self, rows: u32) -> String {
        format!("SELECT 1 / (count(*) = {rows})::int FROM {}", self.name)
    }

    pub fn rows(&self) -> i64 {
        Oracle::new().count(&self.name)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP TABLE {}", self.name));
    }
}

const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];

pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        // Between two looks, which cost the server more than most of what is tested.
        std::thread::sleep((start.elapsed() / 8).clamp(LOOKS[0], LOOKS[1]));
    }
}
