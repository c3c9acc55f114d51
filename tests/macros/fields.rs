//! The connection as a field, of `self` or of an argument.

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use pglock::{Error, locked};
use postgres::{Client, NoTls};
use r2d2_postgres::PostgresConnectionManager;

use crate::held;
use crate::oracle::{Oracle, Table, connect, unique_name, url};

type Pool = r2d2::Pool<PostgresConnectionManager<NoTls>>;

/// A driver's connection in a struct, as in many services.
struct Shop<C> {
    conn: C,
    name: String,
    sold: u32,
}

/// The same field by its path, from a method of another struct.
struct Company(Shop<Client>);

macro_rules! count {
    ($shop:expr) => {
        $shop.sold += 1
    };
}

impl Shop<Client> {
    /// Other fields stay accessible, and a method can have the field's name.
    #[locked(key = "{self.name}:{seat}", conn = self.conn)]
    fn sell(&mut self, seat: &str) -> anyhow::Result<(u32, Vec<String>)> {
        self.conn.batch_execute("SELECT 1")?;
        let answer: i32 = ask(&mut self.conn)?;
        self.conn.batch_execute(&format!("SELECT {answer}"))?;
        anyhow::ensure!(!self.conn.is_closed(), "inside a macro");
        let name = self.name.clone();
        count!(self);
        let sum = [1, 2].iter().map(|n| n + self.sold).sum();
        Ok((sum, held(format!("{name}:{seat}"))))
    }

    #[locked(key = "{self.name}", conn = self.conn, transaction)]
    fn insert(&mut self, table: &str, conn: i32, fail: bool) -> anyhow::Result<()> {
        let transaction: &mut postgres::Transaction<'_> = &mut self.conn;
        transaction.execute(&format!("INSERT INTO {table} VALUES ($1)"), &[&conn])?;
        anyhow::ensure!(!fail, "no");
        Ok(())
    }

    #[locked(key = "{self.name}", conn = self.conn)]
    fn name(mut self) -> Result<(String, bool), Error> {
        Ok((self.name, held_by(&mut self.conn)?))
    }
}

fn ask(conn: &mut Client) -> Result<i32, postgres::Error> {
    Ok(conn.query_one("SELECT 42", &[])?.get(0))
}

/// Whether the session itself holds an advisory lock.
fn held_by(conn: &mut Client) -> Result<bool, Error> {
    let held =
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    Ok(conn.query_one(held, &[])?.get(0))
}

impl Company {
    #[locked(key = "{self.0.name}", conn = self.0.conn)]
    fn sell(&mut self) -> Result<bool, Error> {
        self.0.sold += 1;
        held_by(&mut self.0.conn)
    }
}

/// With a second connection, in variables that are called like the field of the first.
struct TwoDoors {
    conn: Client,
    other: Client,
    name: String,
}

macro_rules! through_a_macro {
    ($shop:ident, $held:expr) => {{
        let conn = &mut $shop.other;
        assert!(!held_by(conn)?);
        $held
    }};
}

impl TwoDoors {
    #[locked(key = "{self.name}", conn = self.conn)]
    fn sell(&mut self) -> Result<Vec<bool>, Error> {
        let mut seen = vec![held_by(&mut self.conn)?];
        for conn in std::iter::once(&mut self.other) {
            seen.push(held_by(&mut self.conn)?);
            assert!(!held_by(conn)?);
        }
        if let Some(conn) = Some(&mut self.other) {
            seen.push(held_by(&mut self.conn)?);
            assert!(!held_by(conn)?);
        }
        let mut inner = |conn: &mut Client| (held_by(&mut self.conn), held_by(conn));
        let (first, second) = inner(&mut self.other);
        assert!(!second?);
        seen.push(first?);
        seen.push(through_a_macro!(self, held_by(&mut self.conn)?));
        let conn = &mut self.other;
        seen.push(held_by(&mut self.conn)?);
        assert!(!held_by(conn)?);
        Ok(seen)
    }

    /// What the attribute calls its own variables.
    #[locked(key = "{self.name}", conn = self.conn)]
    fn resell(&mut self, lock: &str, key: &str) -> Result<(bool, String), Error> {
        let session = &mut self.other;
        assert!(!held_by(session)?);
        Ok((held_by(&mut self.conn)?, format!("{lock}{key}")))
    }
}

#[test]
fn a_variable_named_like_the_field_does_not_take_its_place() {
    let (conn, other) = (connect(), connect());
    let name = unique_name("shop");
    let mut shop = TwoDoors { conn, other, name };
    assert_eq!(shop.sell().unwrap(), [true; 6]);
    assert_eq!(shop.resell("a", "b").unwrap(), (true, "ab".to_owned()));
}

impl Shop<PgConnection> {
    #[locked(key = "{self.name}", conn = self.conn, transaction)]
    fn insert(&mut self, table: &str, fail: bool) -> diesel::QueryResult<()> {
        let insert = format!("INSERT INTO {table} VALUES (1)");
        self.conn.batch_execute(&insert)?;
        if fail {
            return Err(diesel::result::Error::RollbackTransaction);
        }
        Ok(())
    }
}

impl Shop<&mut Client> {
    #[locked(key = "{self.name}", conn = self.conn)]
    fn sell(&mut self) -> Result<bool, Error> {
        held_by(&mut self.conn)
    }
}

/// A pool can be locked on through a shared reference.
impl Shop<Pool> {
    #[locked(key = "{self.name}", conn = self.conn)]
    fn sell(&self) -> Result<(&str, bool), Error> {
        Ok((self.shown(), held_by(&mut self.conn)?))
    }

    fn shown(&self) -> &str {
        &self.name
    }
}

#[locked(key = "{shop.name}", conn = shop.conn)]
fn of_an_argument<'a>(shop: &mut Shop<Client>, what: &'a str) -> Result<(&'a str, bool), Error> {
    shop.sold += 1;
    Ok((what, held_by(conn)?))
}

fn shop<C>(conn: C) -> Shop<C> {
    Shop {
        conn,
        name: unique_name("shop"),
        sold: 0,
    }
}

#[test]
fn a_field_is_the_connection() {
    let mut shop = shop(connect());
    let (sum, modes) = shop.sell("12A").unwrap();
    assert_eq!((sum, shop.sold), (5, 1));
    assert_eq!(modes, ["ExclusiveLock"]);
    assert_eq!(of_an_argument(&mut shop, "a").unwrap(), ("a", true));
    assert!(!held_by(&mut shop.conn).unwrap());

    let mut company = Company(shop);
    assert!(company.sell().unwrap());
    let shop = company.0;
    assert_eq!(shop.sold, 3);
    let name = shop.name.clone();
    assert_eq!(shop.name().unwrap(), (name.clone(), true));
    Oracle::new().assert_free(&name.into());
}

#[test]
fn a_field_may_be_a_reference_or_a_pool() {
    let mut client = connect();
    assert!(shop(&mut client).sell().unwrap());

    let manager = PostgresConnectionManager::new(url().parse().unwrap(), NoTls);
    let shop = shop(r2d2::Pool::builder().max_size(1).build(manager).unwrap());
    assert_eq!(shop.sell().unwrap(), (shop.name.as_str(), true));
}

#[test]
fn a_fields_transaction_is_committed_or_rolled_back() {
    let table = Table::new();
    let mut with_postgres = shop(connect());
    with_postgres.insert(&table.name, 1, true).unwrap_err();
    assert_eq!(table.rows(), 0);
    with_postgres.insert(&table.name, 1, false).unwrap();
    assert_eq!(table.rows(), 1);

    let mut with_diesel = shop(PgConnection::establish(&url()).unwrap());
    with_diesel.insert(&table.name, true).unwrap_err();
    assert_eq!(table.rows(), 1);
    with_diesel.insert(&table.name, false).unwrap();
    assert_eq!(table.rows(), 2);
}
