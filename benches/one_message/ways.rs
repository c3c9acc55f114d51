//! The ways to be the only one to update a row, with each driver.

use diesel::connection::SimpleConnection;
use diesel::{Connection as _, PgConnection};
use pglock::driver::{BoxError, Session};
use pglock::{Error, Lock, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};

use crate::support::KEY;
use crate::support::proxy::{self, Proxy};

/// Its name, and what it does.
pub type Way<C> = (&'static str, fn(&mut C));

/// Positions in the list of ways.
pub const ONE_MESSAGE: usize = 0;
pub const WITH_LOCK: usize = 1;
pub const BARE: usize = 4;

const UPDATE: &str = "UPDATE pglock_bench_stock SET count = count - 1 WHERE id = 1";
const FOR_UPDATE: &str = "SELECT count FROM pglock_bench_stock WHERE id = 1 FOR UPDATE";

pub fn make_table(client: &mut Client) {
    let make = "DROP TABLE IF EXISTS pglock_bench_stock; \
        CREATE TABLE pglock_bench_stock (id int PRIMARY KEY, count bigint) WITH (fillfactor = 10); \
        INSERT INTO pglock_bench_stock VALUES (1, 0)";
    client.batch_execute(make).expect("a table");
}

pub trait Connection: Session + Send {
    /// Through a proxy, or directly.
    fn connect(proxy: Option<&Proxy>) -> Self;

    fn batch(&mut self, sql: &str) -> Result<(), BoxError>;

    /// In a transaction of the driver's.
    fn select_for_update(&mut self);
}

impl Connection for Client {
    fn connect(proxy: Option<&Proxy>) -> Self {
        let config = proxy.map_or_else(proxy::server, Proxy::config);
        config.connect(NoTls).expect("a way to the server")
    }

    fn batch(&mut self, sql: &str) -> Result<(), BoxError> {
        Ok(self.batch_execute(sql)?)
    }

    fn select_for_update(&mut self) {
        let mut transaction = self.transaction().unwrap();
        transaction.simple_query(FOR_UPDATE).unwrap();
        transaction.batch_execute(UPDATE).unwrap();
        transaction.commit().unwrap();
    }
}

impl Connection for PgConnection {
    fn connect(proxy: Option<&Proxy>) -> Self {
        let direct = || std::env::var("DATABASE_URL").expect("it was read before");
        Self::establish(&proxy.map_or_else(direct, Proxy::url)).expect("a way to the server")
    }

    fn batch(&mut self, sql: &str) -> Result<(), BoxError> {
        Ok(self.batch_execute(sql)?)
    }

    fn select_for_update(&mut self) {
        let work = |conn: &mut Self| {
            conn.batch_execute(FOR_UPDATE)?;
            conn.batch_execute(UPDATE)
        };
        self.transaction::<_, diesel::result::Error, _>(work)
            .unwrap();
    }
}

pub fn ways<C>() -> [Way<C>; 6]
where
    C: Connection,
{
    [
        ("one message", |conn| {
            Lock::new(conn, KEY).batch_execute(UPDATE).unwrap();
        }),
        ("with_lock", |conn| {
            with_lock(conn, KEY, |conn| conn.batch(UPDATE).map_err(Error::body)).unwrap();
        }),
        ("with_transaction_lock", |conn| {
            with_transaction_lock(conn, KEY, |tx| Ok::<_, Error>(tx.send(UPDATE)?)).unwrap();
        }),
        ("SELECT … FOR UPDATE", C::select_for_update),
        ("bare UPDATE", |conn| conn.batch(UPDATE).unwrap()),
        ("the barest lock, and UPDATE", |conn| {
            let lock = format!("SELECT pg_advisory_xact_lock('{KEY}'); {UPDATE}");
            conn.batch(&lock).unwrap();
        }),
    ]
}
