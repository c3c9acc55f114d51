//! The same saves over each driver.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use pglock::optimistic::diesel::AtVersion;
use pglock::optimistic::{Error, postgres::VersionedTable};
use postgres::Client;

use crate::oracle::{Oracle, connect, unique_name, url};

diesel::table! {
    seat (id) {
        id -> Integer,
        buyer -> Nullable<Text>,
        visits -> Integer,
        version -> Integer,
    }
}

// The same table, with versions of the wider type.
diesel::table! {
    #[sql_name = "seat"]
    wide_seat (id) {
        id -> Integer,
        buyer -> Nullable<Text>,
        version -> BigInt,
    }
}

#[derive(AsChangeset)]
#[diesel(table_name = seat)]
struct Changes {
    buyer: Option<String>,
}

/// A connection to a [`House`].
pub trait Driver {
    fn open(house: &House) -> Self;
    fn run(&mut self, sql: &str) -> Result<(), Error>;
    fn read(&mut self, id: i32) -> (i32, i32);
    fn save(&mut self, id: i32, version: i32, buyer: &str) -> Result<i32, Error>;
    fn save_wide(&mut self, id: i32, version: i64, buyer: &str) -> Result<i64, Error>;
    fn save_visits(&mut self, id: i32, version: i32, visits: i32) -> Result<i32, Error>;
    fn save_nothing(&mut self, id: i32, version: i32) -> Result<i32, Error>;
    fn delete(&mut self, id: i32, version: i32) -> Result<(), Error>;
    fn save_all_visited(&mut self, visits: i32, version: i32, buyer: &str) -> Result<i32, Error>;
    fn delete_all_visited(&mut self, visits: i32, version: i32) -> Result<(), Error>;
}

fn versioned() -> VersionedTable {
    VersionedTable::new("seat", "version")
}

impl Driver for Client {
    fn open(house: &House) -> Self {
        let mut client = connect();
        client.batch_execute(&house.enter()).unwrap();
        client
    }

    fn run(&mut self, sql: &str) -> Result<(), Error> {
        Ok(self.batch_execute(sql)?)
    }

    fn read(&mut self, id: i32) -> (i32, i32) {
        let query = "SELECT visits, version FROM seat WHERE id = $1";
        let row = self.query_one(query, &[&id]).unwrap();
        (row.get(0), row.get(1))
    }

    fn save(&mut self, id: i32, version: i32, buyer: &str) -> Result<i32, Error> {
        versioned().update(self, &[("id", &id)], version, &[("buyer", &buyer)])
    }

    fn save_wide(&mut self, id: i32, version: i64, buyer: &str) -> Result<i64, Error> {
        versioned().update(self, &[("id", &id)], version, &[("buyer", &buyer)])
    }

    fn save_visits(&mut self, id: i32, version: i32, visits: i32) -> Result<i32, Error> {
        versioned().update(self, &[("id", &id)], version, &[("visits", &visits)])
    }

    fn save_nothing(&mut self, id: i32, version: i32) -> Result<i32, Error> {
        versioned().update(self, &[("id", &id)], version, &[])
    }

    fn delete(&mut self, id: i32, version: i32) -> Result<(), Error> {
        versioned().delete(self, &[("id", &id)], version)
    }

    fn save_all_visited(&mut self, visits: i32, version: i32, buyer: &str) -> Result<i32, Error> {
        let key = [("visits", &visits as _)];
        versioned().update(self, &key, version, &[("buyer", &buyer)])
    }

    fn delete_all_visited(&mut self, visits: i32, version: i32) -> Result<(), Error> {
        versioned().delete(self, &[("visits", &visits)], version)
    }
}

impl Driver for PgConnection {
    fn open(house: &House) -> Self {
        let mut connection = PgConnection::establish(&url()).unwrap();
        connection.batch_execute(&house.enter()).unwrap();
        connection
    }

    fn run(&mut self, sql: &str) -> Result<(), Error> {
        Ok(self.batch_execute(sql)?)
    }

    fn read(&mut self, id: i32) -> (i32, i32) {
        let query = seat::table.find(id).select((seat::visits, seat::version));
        query.first(self).unwrap()
    }

    fn save(&mut self, id: i32, version: i32, buyer: &str) -> Result<i32, Error> {
        let row = seat::table.find(id).at_version(seat::version, version);
        row.update(self, seat::buyer.eq(buyer))
    }

    fn save_wide(&mut self, id: i32, version: i64, buyer: &str) -> Result<i64, Error> {
        let row = wide_seat::table.filter(wide_seat::id.eq(id));
        row.at_version(wide_seat::version, version)
            .update(self, wide_seat::buyer.eq(buyer))
    }

    fn save_visits(&mut self, id: i32, version: i32, visits: i32) -> Result<i32, Error> {
        let row = seat::table.find(id).at_version(seat::version, version);
        row.update(self, seat::visits.eq(visits))
    }

    fn save_nothing(&mut self, id: i32, version: i32) -> Result<i32, Error> {
        let row = seat::table.find(id).at_version(seat::version, version);
        row.update(self, Changes { buyer: None })
    }

    fn delete(&mut self, id: i32, version: i32) -> Result<(), Error> {
        let row = seat::table.find(id).at_version(seat::version, version);
        row.delete(self)
    }

    fn save_all_visited(&mut self, visits: i32, version: i32, buyer: &str) -> Result<i32, Error> {
        let rows = seat::table.filter(seat::visits.eq(visits));
        let rows = rows.at_version(seat::version, version);
        rows.update(self, seat::buyer.eq(buyer))
    }

    fn delete_all_visited(&mut self, visits: i32, version: i32) -> Result<(), Error> {
        let rows = seat::table.filter(seat::visits.eq(visits));
        rows.at_version(seat::version, version).delete(self)
    }
}

/// The type of most versions.
pub const INT: &str = "int NOT NULL DEFAULT 1";

/// A schema with a table `seat`, for one test. Dropped with this.
pub struct House {
    pub schema: String,
}

impl House {
    /// Three seats at version 1; the test chooses the version's type.
    pub fn new(version: &str) -> Self {
        let schema = unique_name("house");
        let create = format!(
            "CREATE SCHEMA {schema}; \
             CREATE TABLE {schema}.seat (id int PRIMARY KEY, buyer text, visits int DEFAULT 0, version {version}); \
             INSERT INTO {schema}.seat (id) VALUES (1), (2), (3)"
        );
        connect().batch_execute(&create).unwrap();
        Self { schema }
    }

    /// Runs a body of PL/pgSQL before each row that is saved or deleted.
    pub fn before_each_row(&self, body: &str) {
        let create = format!(
            "{}; CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$; \
             CREATE TRIGGER before_row BEFORE UPDATE OR DELETE ON seat \
             FOR EACH ROW EXECUTE FUNCTION before_row()",
            self.enter()
        );
        connect().batch_execute(&create).unwrap();
    }

    pub fn enter(&self) -> String {
        format!("SET search_path TO {}", self.schema)
    }

    /// Every row as text, as another connection sees it.
    pub fn rows(&self) -> Vec<String> {
        let query = format!("SELECT s::text FROM {}.seat s ORDER BY id", self.schema);
        let rows = Oracle::new().client.query(&query, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP SCHEMA {} CASCADE", self.schema));
    }
}
