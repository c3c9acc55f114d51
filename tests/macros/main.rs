//! What `#[pglock::locked]` locks on a real server. `macros/tests` has what must not compile.

mod fields;
mod names;
#[path = "../support/oracle.rs"]
mod oracle;

use std::fmt::Display;
use std::time::Duration;

use diesel::{Connection, PgConnection, RunQueryDsl};
use oracle::{Oracle, Table, connect, unique_name, url};
use pglock::{Error, Key, key, locked};
use postgres::{Client, NoTls};
use r2d2_postgres::PostgresConnectionManager;

fn held(key: impl Into<Key>) -> Vec<String> {
    Oracle::new().held(&key.into())
}

#[locked]
fn default_key(conn: &mut Client) -> Result<Vec<String>, Error> {
    Ok(held("macros::default_key"))
}

#[test]
fn the_default_key_is_the_path_of_the_function() {
    assert_eq!(default_key(&mut connect()).unwrap(), ["ExclusiveLock"]);
    Oracle::new().assert_free(&"macros::default_key".into());
}

struct Seat {
    number: (i32, char),
}

/// With documentation, and all that a signature can have.
#[locked(key = "{{{what:?}}}:{n:03}", conn = db, shared)]
fn sell<'a, T, const N: usize>(
    what: &'a str,
    n: i32,
    _unused: [T; N],
    mut db: &mut Client,
) -> Result<(&'a str, Vec<String>), Box<dyn std::error::Error>>
where
    T: Display + Send,
{
    db = std::convert::identity(db);
    db.batch_execute("SELECT 1")?;
    if n < 0 {
        return Err("negative".into());
    }
    Ok((what, held(key!("{{{what:?}}}:{n:03}"))))
}

impl Seat {
    #[locked(key = "{prefix}:{self.number.0}{self.number.1}")]
    pub(crate) fn book(
        &mut self,
        prefix: &str,
        conn: &mut PgConnection,
    ) -> diesel::QueryResult<bool> {
        diesel::sql_query("SELECT 1").execute(conn)?;
        self.number.0 += 1;
        Ok(held(key!("{prefix}:1A")) == ["ExclusiveLock"])
    }

    #[locked(key = "{pool_key}")]
    fn owned<B: pglock::LockBackend>(
        self,
        pool_key: String,
        pool: &mut B,
    ) -> anyhow::Result<(char, String, bool)> {
        let is_held = held(pool_key.as_str()) == ["ExclusiveLock"];
        Ok((self.number.1, pool_key, is_held))
    }
}

#[test]
fn methods_generics_and_lifetimes_are_kept() {
    let name = unique_name("name");
    let (what, modes) = sell(&name, 7, [1, 2], &mut connect()).unwrap();
    assert_eq!((what, modes), (name.as_str(), vec!["ShareLock".to_owned()]));
    let error = sell(&name, -1, ["a"], &mut connect()).unwrap_err();
    assert_eq!(error.to_string(), "negative");

    let mut seat = Seat { number: (1, 'A') };
    let mut connection = PgConnection::establish(&url()).unwrap();
    assert!(seat.book(&name, &mut connection).unwrap());
    assert_eq!(seat.number.0, 2);

    let manager = PostgresConnectionManager::new(url().parse().unwrap(), NoTls);
    let mut pool = r2d2::Pool::builder().max_size(1).build(manager).unwrap();
    let owned = seat.owned(name.clone(), &mut pool).unwrap();
    assert_eq!(owned, ('A', name.clone(), true));
    assert_eq!(by_value(pool, &name).unwrap().count(), 2);
}

/// A pool by value, and a result that has no name.
#[locked(key = "{name}", conn = pool)]
fn by_value(
    pool: r2d2::Pool<PostgresConnectionManager<NoTls>>,
    name: &str,
) -> Result<impl Iterator<Item = i32> + use<>, Error> {
    assert_eq!(held(name), ["ExclusiveLock"]);
    let rows = pool.query("SELECT generate_series(1, 2)", &[])?;
    Ok(rows.into_iter().map(|row| row.get(0)))
}

#[locked(key = "{table}", transaction)]
fn insert(client: &mut Client, table: &str, fail: bool) -> anyhow::Result<()> {
    let transaction: &mut postgres::Transaction<'_> = client;
    transaction.batch_execute(&format!("INSERT INTO {table} VALUES (1)"))?;
    anyhow::ensure!(!fail, "no");
    Ok(())
}

#[locked(key = "{table}", transaction)]
fn insert_with_diesel(conn: &mut PgConnection, table: &str, fail: bool) -> diesel::QueryResult<()> {
    diesel::sql_query(format!("INSERT INTO {table} VALUES (1)")).execute(conn)?;
    if fail {
        return Err(diesel::result::Error::RollbackTransaction);
    }
    Ok(())
}

#[test]
fn a_transaction_is_committed_or_rolled_back() {
    let table = Table::new();
    let mut client = connect();
    insert(&mut client, &table.name, true).unwrap_err();
    assert_eq!(table.rows(), 0);
    insert(&mut client, &table.name, false).unwrap();
    let mut connection = PgConnection::establish(&url()).unwrap();
    insert_with_diesel(&mut connection, &table.name, true).unwrap_err();
    insert_with_diesel(&mut connection, &table.name, false).unwrap();
    assert_eq!(table.rows(), 2);
}

#[locked(key = "{key}", try)]
fn attempt(conn: &mut Client, key: &str) -> Result<Option<i32>, Error> {
    Ok(Some(1))
}

#[locked(key = "{key}", try, transaction, timeout = "20ms")]
fn short_attempt(conn: &mut Client, key: &str) -> Result<Option<i32>, Error> {
    Ok(Some(1))
}

#[locked(key = "{key}", timeout = "20ms")]
fn short(conn: &mut Client, key: &str) -> Result<i32, Error> {
    Ok(1)
}

mod busy {
    pub fn answer<T: From<u8>, E>(_: pglock::Error) -> Result<T, E> {
        Ok(2.into())
    }
}

#[locked(key = "{key}", timeout = "0ms", on_conflict = busy::answer)]
fn handled(conn: &mut Client, key: &str) -> Result<i32, Error> {
    Ok(1)
}

#[locked(key = "{key}", timeout = "20ms", transaction, on_conflict = busy::answer)]
fn handled_in_transaction(conn: &mut Client, key: &str) -> Result<i32, Error> {
    Ok(1)
}

#[test]
fn a_held_key_is_a_conflict() {
    let (mut holder, mut client) = (Oracle::new(), connect());
    let name = unique_name("key");
    let key = Key::from(name.as_str());
    let expect = |client: &mut Client, free: bool| {
        assert_eq!(attempt(client, &name).unwrap(), free.then_some(1));
        assert_eq!(short_attempt(client, &name).unwrap(), free.then_some(1));
        let answer = if free { 1 } else { 2 };
        assert_eq!(handled(client, &name).unwrap(), answer);
        assert_eq!(handled_in_transaction(client, &name).unwrap(), answer);
    };
    holder.lock(&key);
    expect(&mut client, false);
    let error = short(&mut client, &name).unwrap_err();
    let Error::Timeout { timeout, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(timeout, Some(Duration::from_millis(20)));
    holder.unlock(&key);
    expect(&mut client, true);
    assert_eq!(short(&mut client, &name).unwrap(), 1);
}
