//! What the shop does, in plain blocking code.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::Text;
use pglock::{Error, Lock, key};

diesel::table! {
    seat (name) {
        name -> Text,
        buyer -> Nullable<Text>,
    }
}

diesel::table! {
    sale (id) {
        id -> BigInt,
        seat -> Text,
        buyer -> Text,
    }
}

pub struct Shop {
    pool: Pool<ConnectionManager<PgConnection>>,
    payment: Duration,
    locks: bool,
}

/// The answer to a buyer.
pub enum Answer {
    Sold,
    SoldTo(String),
    /// Somebody is paying for the seat.
    Busy(Option<String>),
    NoSuchSeat,
}

impl Shop {
    pub fn new(url: &str, payment: Duration, locks: bool) -> Result<Self> {
        let pool = Pool::builder()
            .max_size(10)
            .build(ConnectionManager::new(url))?;
        Ok(Self {
            pool,
            payment,
            locks,
        })
    }

    /// The seats, each with its buyer.
    pub fn seats(&self) -> Result<Vec<(String, Option<String>)>> {
        Ok(seat::table.load(&mut self.pool.get()?)?)
    }

    pub fn buy(&self, name: &str, buyer: &str) -> Result<Answer> {
        let mut conn = self.pool.get()?;
        // By this name, others see who holds the lock.
        let named = diesel::sql_query("SELECT set_config('application_name', $1, false)");
        named.bind::<Text, _>(buyer).execute(&mut conn)?;
        if !self.locks {
            return self.sell(&mut conn, name, buyer);
        }
        Lock::new(&mut conn, key!("seat:{name}"))
            .timeout(Duration::ZERO)
            .run_or_else(
                |conn| self.sell(conn, name, buyer),
                |busy| Ok(Answer::Busy(holder(&busy))),
            )
    }

    fn sell(&self, conn: &mut PgConnection, name: &str, buyer: &str) -> Result<Answer> {
        let seat = seat::table.find(name);
        match seat.select(seat::buyer).first(conn).optional()? {
            None => return Ok(Answer::NoSuchSeat),
            Some(Some(buyer)) => return Ok(Answer::SoldTo(buyer)),
            Some(None) => {}
        }
        thread::sleep(self.payment); // the bank takes a moment
        conn.transaction(|conn| {
            let sold = (sale::seat.eq(name), sale::buyer.eq(buyer));
            diesel::insert_into(sale::table)
                .values(sold)
                .execute(conn)?;
            diesel::update(seat)
                .set(seat::buyer.eq(buyer))
                .execute(conn)?;
            Ok(Answer::Sold)
        })
    }
}

/// Who holds the lock, unless it is free again by now.
fn holder(busy: &Error) -> Option<String> {
    match busy {
        Error::Timeout { holders, .. } => holders.first()?.application.clone(),
        _ => None,
    }
}
