//! The line of a key, as `pg_locks` shows it. Its numbers are part of the contract: they are derived here
//! anew.

#![allow(dead_code)] // no test that includes it uses all of it

use pglock::Key;
use postgres::Client;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::oracle::{Oracle, wait_until};

/// What those who stand in line for a key hold.
pub struct Line {
    /// The head's mutex.
    pub head: i64,
    /// Held shared by each.
    pub member: i64,
    /// The first half of the places.
    pub class: i32,
}

impl Line {
    pub fn of(key: &Key) -> Self {
        let number = match (key.as_i64(), key.as_pair()) {
            (Some(number), _) => number.to_string(),
            (_, Some((first, second))) => format!("{first},{second}"),
            (None, None) => unreachable!("a key is a bigint or a pair"),
        };
        let derived = |role: &str| {
            xxh3_64_with_seed(number.as_bytes(), xxh3_64(role.as_bytes())).cast_signed()
        };
        Self {
            head: derived("pglock.head"),
            member: derived("pglock.member"),
            class: derived("pglock.place") as i32,
        }
    }

    /// Stands in line with plain SQL, as a member whose client sends nothing more: in a place, or as the head.
    pub fn stand(&self, client: &mut Client, place: i32, as_head: bool) {
        let Self {
            head,
            member,
            class,
        } = self;
        let lock = match as_head {
            true => format!("pg_advisory_lock('{head}')"),
            false => format!("pg_advisory_lock('{class}', '{place}')"),
        };
        let text = format!("SELECT pg_advisory_lock_shared('{member}'); SELECT {lock}");
        client.batch_execute(&text).unwrap();
    }

    /// The sessions that stand in line, in their order: the head has its mutex, the others a place.
    pub fn members(&self, oracle: &mut Oracle) -> Vec<i32> {
        let query = "SELECT l.pid FROM pg_locks l JOIN pg_locks m USING (pid) \
            WHERE l.granted AND l.mode = 'ExclusiveLock' AND (\
            l.objsubid = 2 AND l.classid::bigint = $1::bigint & 4294967295 OR l.objsubid = 1 \
            AND l.classid::bigint = ($3::bigint >> 32) & 4294967295 AND l.objid::bigint = $3::bigint & 4294967295) \
            AND m.objsubid = 1 AND m.classid::bigint = ($2::bigint >> 32) & 4294967295 \
            AND m.objid::bigint = $2::bigint & 4294967295 ORDER BY l.objsubid, l.objid::bigint";
        let rows = oracle
            .client
            .query(query, &[&i64::from(self.class), &self.member, &self.head]);
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Waits until so many stand in line, and returns who came last.
    pub fn wait_for(&self, oracle: &mut Oracle, count: usize) -> i32 {
        wait_until(&format!("{count} in line"), || {
            let members = self.members(oracle);
            members.last().copied().filter(|_| members.len() == count)
        })
    }

    /// Waits until somebody is the head of the line, and returns who.
    pub fn wait_for_head(&self, oracle: &mut Oracle) -> i32 {
        wait_until("the head of a line", || {
            let query = "SELECT pid FROM pg_locks WHERE granted AND mode = 'ExclusiveLock' AND objsubid = 1 \
                AND classid::bigint = ($1::bigint >> 32) & 4294967295 AND objid::bigint = $1::bigint & 4294967295";
            let row = oracle.client.query_opt(query, &[&self.head]).unwrap()?;
            Some(row.get(0))
        })
    }

    /// Waits until nothing is left of the line: a driver may return before the server has let go of what
    /// a message held.
    pub fn wait_until_gone(&self, oracle: &mut Oracle) {
        let query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND (\
            objsubid = 2 AND classid::bigint = $1::bigint & 4294967295 OR objsubid = 1 AND (\
            classid::bigint = ($2::bigint >> 32) & 4294967295 AND objid::bigint = $2::bigint & 4294967295 \
            OR classid::bigint = ($3::bigint >> 32) & 4294967295 AND objid::bigint = $3::bigint & 4294967295))";
        wait_until("the end of a line", || {
            let rows = oracle
                .client
                .query(query, &[&i64::from(self.class), &self.member, &self.head]);
            rows.unwrap().is_empty().then_some(())
        });
    }
}

/// Waits until a session's wait shows that it has lasted so many milliseconds.
pub fn wait_until_waited(oracle: &mut Oracle, pid: i32, millis: i32) {
    let query = "SELECT substring(query FROM 'waited ([0-9]+) ms')::int FROM pg_stat_activity WHERE pid = $1";
    wait_until("a long wait", || {
        let row = oracle.client.query_opt(query, &[&pid]).unwrap()?;
        let waited: Option<i32> = row.get(0);
        waited.filter(|waited| *waited >= millis).map(drop)
    });
}
