//! The accounts, the log of who was in, and the verdict.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pglock::{Key, Slots, election, key};
use postgres::{Client, NoTls};

use crate::leader;
use crate::tally::Tally;

pub const ACCOUNTS: i32 = 6;
const BALANCE: i64 = 1_000;
pub const TOTAL: i64 = ACCOUNTS as i64 * BALANCE;

/// The lock of an account.
pub fn account_key(run: i32, account: i32) -> Key {
    key!("soak:{run}:account:{account}")
}

pub const SLOTS: u32 = 3;

/// The number of slot 0 in the log.
pub const FIRST_SLOT: i32 = 1_000;

/// The semaphore of a run.
pub fn slots(run: i32) -> Slots {
    Slots::new(format!("soak:{run}"), SLOTS)
}

pub fn schema(run: i32) -> String {
    format!("pglock_soak_{run}")
}

/// The application name of a run's sessions.
pub fn application(run: i32) -> String {
    format!("soak_{run}")
}

pub struct Bank {
    client: Client,
    pub run: i32,
}

impl Bank {
    pub fn open(url: &str) -> Result<Self> {
        let mut client = Client::connect(url, NoTls).context("cannot connect")?;
        // While this connection lives, no other run has the same number, and so the same schema.
        let run = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let schema = schema(run);
        client.batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE;
             CREATE SCHEMA {schema};
             SET search_path TO {schema};
             CREATE TABLE account (id int PRIMARY KEY, giro bigint NOT NULL, savings bigint NOT NULL);
             INSERT INTO account SELECT id, {BALANCE}, 0 FROM generate_series(1, {ACCOUNTS}) AS id;
             CREATE SEQUENCE section;
             CREATE UNLOGGED TABLE log (
                 section bigint, account int, exclusive boolean NOT NULL,
                 entered timestamptz NOT NULL DEFAULT clock_timestamp(), left_ timestamptz,
                 PRIMARY KEY (section, account));
             CREATE UNLOGGED TABLE term (token bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())"
        ))?;
        Ok(Self { client, run })
    }

    /// Every committed write moves money, and creates none.
    pub fn check_sum(&mut self, tally: &mut Tally) -> Result<()> {
        let query = "SELECT sum(giro + savings)::bigint FROM account";
        let sum: i64 = self.client.query_one(query, &[])?.get(0);
        tally.count("checks: of the sum");
        if sum != TOTAL {
            tally.violation("the sum has changed");
        }
        Ok(())
    }

    /// What must be true when all processes have ended.
    pub fn close(mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        self.check_sum(&mut tally)?;
        self.check_overlaps(&mut tally)?;
        self.check_terms(&mut tally)?;
        self.check_locks(&mut tally)?;
        let schema = schema(self.run);
        self.client.batch_execute(&format!(
            "DROP SCHEMA {schema} CASCADE; DROP ROLE IF EXISTS {schema}"
        ))?;
        Ok(tally)
    }

    /// The session that held the lock logged its entry and its exit, so it held the lock in between,
    /// whatever became of it later.
    fn check_overlaps(&mut self, tally: &mut Tally) -> Result<()> {
        let query = "
            WITH seen AS (
                SELECT account, exclusive, entered,
                       max(left_) OVER earlier AS any_left,
                       max(left_) FILTER (WHERE exclusive) OVER earlier AS exclusive_left
                FROM log
                WINDOW earlier AS (PARTITION BY account ORDER BY entered, section
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
            SELECT count(*), count(*) FILTER (WHERE NOT exclusive),
                   count(*) FILTER (WHERE exclusive_left > entered),
                   count(*) FILTER (WHERE exclusive AND any_left > entered),
                   count(*) FILTER (WHERE account >= $1)
            FROM seen";
        let row = self.client.query_one(query, &[&FIRST_SLOT])?;
        for (column, what) in [
            (0, "checks: holds logged"),
            (1, "checks: shared ones among them"),
            (4, "checks: slots among them"),
        ] {
            tally.count_many(what, row.get::<_, i64>(column).unsigned_abs());
        }
        if row.get::<_, i64>(2) > 0 {
            tally.violation("somebody came in beside an exclusive holder");
        }
        if row.get::<_, i64>(3) > 0 {
            tally.violation("an exclusive holder came in beside another");
        }
        Ok(())
    }

    /// What was committed within a term was logged while no other term could begin.
    fn check_terms(&mut self, tally: &mut Tally) -> Result<()> {
        let query = "
            WITH term AS (SELECT token, min(at) AS began, max(at) AS ended FROM term GROUP BY token),
                 seen AS (SELECT began, max(ended) OVER earlier AS any_ended FROM term
                          WINDOW earlier AS (ORDER BY token ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
            SELECT count(*), count(*) FILTER (WHERE any_ended > began) FROM seen";
        let row = self.client.query_one(query, &[])?;
        tally.count_many("checks: terms logged", row.get::<_, i64>(0).unsigned_abs());
        if row.get::<_, i64>(1) > 0 {
            tally.violation("two led at a time");
        }
        Ok(())
    }

    /// The locks that must be free in the end.
    fn keys(&self) -> Vec<Key> {
        let slots = slots(self.run);
        let accounts = (1..=ACCOUNTS).map(|account| account_key(self.run, account));
        accounts
            .chain(slots.keys().iter().cloned())
            .chain([slots.queue().clone()])
            .collect()
    }

    /// The server may need a moment to notice the end of connections that were cut.
    fn check_locks(&mut self, tally: &mut Tally) -> Result<()> {
        let start = Instant::now();
        loop {
            let query = "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'";
            let rows = self.client.query(query, &[])?;
            let keys = self.keys();
            let left = keys.iter().filter(|key| {
                let (classid, objid, _) = key.pg_locks();
                rows.iter()
                    .any(|row| (row.get::<_, u32>(0), row.get::<_, u32>(1)) == (classid, objid))
            });
            let left = left.count();
            let led = election::leader(&mut self.client, leader::election(self.run))?;
            if left == 0 && led.is_none() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(30) {
                tally.violation("a lock is left");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
