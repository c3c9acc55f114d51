//! Locks without pglock.

use std::hint::black_box;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, RunQueryDsl, sql_query};
use pglock::driver::Session;
use postgres::Client;

use super::KEY;

/// What a driver offers for locks without pglock.
pub trait Driver: Session {
    /// One message of the simple query protocol: as cheap as it gets.
    fn simple(&mut self, text: &str);

    /// What the driver's documentation shows: a query with a parameter, which is prepared.
    fn query_key(&mut self, query: &str);

    /// The same in the driver's transaction.
    fn transaction_on_key(&mut self, query: &str);
}

impl Driver for Client {
    fn simple(&mut self, text: &str) {
        black_box(self.simple_query(text).unwrap());
    }

    fn query_key(&mut self, query: &str) {
        black_box(self.query_one(query, &[&KEY]).unwrap());
    }

    fn transaction_on_key(&mut self, query: &str) {
        let mut transaction = self.transaction().unwrap();
        black_box(transaction.query_one(query, &[&KEY]).unwrap());
        transaction.commit().unwrap();
    }
}

impl Driver for PgConnection {
    fn simple(&mut self, text: &str) {
        self.batch_execute(text).unwrap();
    }

    fn query_key(&mut self, query: &str) {
        let query = sql_query(query).bind::<BigInt, _>(KEY);
        black_box(query.execute(self).unwrap());
    }

    fn transaction_on_key(&mut self, query: &str) {
        let work = |conn: &mut Self| {
            let query = sql_query(query).bind::<BigInt, _>(KEY);
            query.execute(conn)
        };
        black_box(self.transaction(work).unwrap());
    }
}
