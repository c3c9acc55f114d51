//! The tables of seats and bookings, over each of the drivers. No locks here.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use diesel::connection::SimpleConnection;
use diesel::dsl::exists;
use diesel::prelude::*;
use pglock::LockBackend;
use pglock::driver::Session;
use pglock::optimistic::{self, diesel::AtVersion, postgres::VersionedTable};
use postgres::{Client, Config, NoTls, Transaction};
use r2d2_postgres::PostgresConnectionManager;

use crate::proxy::Proxy;

/// What a buyer does on a connection, or in a transaction on it.
pub(crate) trait Seats {
    fn is_free(&mut self, seat: i32) -> Result<bool>;
    fn book(&mut self, seat: i32, buyer: i32) -> Result<()>;
    fn mark_sold(&mut self, seat: i32) -> Result<()>;
    /// Whether the seat is booked by this buyer.
    fn is_booked_by(&mut self, seat: i32, buyer: i32) -> Result<bool>;

    /// Whether the seat is free, and its version.
    fn look(&mut self, seat: i32) -> Result<(bool, i32), optimistic::Error>;
    /// Marks the seat as sold, if it still has that version, and books it, in one transaction.
    fn book_at(&mut self, seat: i32, version: i32, buyer: i32) -> Result<(), optimistic::Error>;
}

/// A connection or a pool of any driver, in whose transactions seats can be sold too.
pub(crate) trait Database:
    LockBackend<Session: Seats + for<'t> Session<Transaction<'t>: Seats>>
{
}
impl<B> Database for B where B: LockBackend<Session: Seats + for<'t> Session<Transaction<'t>: Seats>>
{}

const BOOK: &str = "INSERT INTO booking (seat, buyer) VALUES ($1, $2)";

macro_rules! seats_over_postgres {
    ($($client:ty),*) => {$(
        impl Seats for $client {
            fn is_free(&mut self, seat: i32) -> Result<bool> {
                let taken = "SELECT EXISTS (SELECT FROM booking WHERE seat = $1)";
                Ok(!self.query_one(taken, &[&seat])?.get::<_, bool>(0))
            }

            fn book(&mut self, seat: i32, buyer: i32) -> Result<()> {
                self.execute(BOOK, &[&seat, &buyer])?;
                Ok(())
            }

            fn mark_sold(&mut self, seat: i32) -> Result<()> {
                self.execute("UPDATE seat SET free = false WHERE id = $1", &[&seat])?;
                Ok(())
            }

            fn is_booked_by(&mut self, seat: i32, buyer: i32) -> Result<bool> {
                let booked = "SELECT EXISTS (SELECT FROM booking WHERE seat = $1 AND buyer = $2)";
                Ok(self.query_one(booked, &[&seat, &buyer])?.get(0))
            }

            fn look(&mut self, seat: i32) -> Result<(bool, i32), optimistic::Error> {
                let row = self.query_one("SELECT free, version FROM seat WHERE id = $1", &[&seat])?;
                Ok((row.get(0), row.get(1)))
            }

            fn book_at(&mut self, seat: i32, version: i32, buyer: i32) -> Result<(), optimistic::Error> {
                let mut transaction = self.transaction()?;
                let seats = VersionedTable::new("seat", "version");
                seats.update(&mut transaction, &[("id", &seat)], version, &[("free", &false)])?;
                transaction.execute(BOOK, &[&seat, &buyer])?;
                Ok(transaction.commit()?)
            }
        }
    )*};
}
seats_over_postgres!(Client, Transaction<'_>);

diesel::table! {
    booking (seat, buyer) {
        seat -> Integer,
        buyer -> Integer,
    }
}

diesel::table! {
    seat (id) {
        id -> Integer,
        free -> Bool,
        version -> Integer,
    }
}

impl Seats for PgConnection {
    fn is_free(&mut self, seat: i32) -> Result<bool> {
        let taken = exists(booking::table.filter(booking::seat.eq(seat)));
        Ok(!diesel::select(taken).get_result::<bool>(self)?)
    }

    fn book(&mut self, seat: i32, buyer: i32) -> Result<()> {
        diesel::insert_into(booking::table)
            .values((booking::seat.eq(seat), booking::buyer.eq(buyer)))
            .execute(self)?;
        Ok(())
    }

    fn mark_sold(&mut self, seat: i32) -> Result<()> {
        diesel::update(seat::table.find(seat))
            .set(seat::free.eq(false))
            .execute(self)?;
        Ok(())
    }

    fn is_booked_by(&mut self, seat: i32, buyer: i32) -> Result<bool> {
        let this = booking::seat.eq(seat).and(booking::buyer.eq(buyer));
        let booked = exists(booking::table.filter(this));
        Ok(diesel::select(booked).get_result::<bool>(self)?)
    }

    fn look(&mut self, seat: i32) -> Result<(bool, i32), optimistic::Error> {
        let seat = seat::table.find(seat).select((seat::free, seat::version));
        Ok(seat.first(self)?)
    }

    fn book_at(&mut self, seat: i32, version: i32, buyer: i32) -> Result<(), optimistic::Error> {
        self.transaction(|conn| {
            let read = seat::table.find(seat).at_version(seat::version, version);
            read.update(conn, seat::free.eq(false))?;
            diesel::insert_into(booking::table)
                .values((booking::seat.eq(seat), booking::buyer.eq(buyer)))
                .execute(conn)?;
            Ok(())
        })
    }
}

/// A connection to the show that is being sold.
pub(crate) fn postgres(show: i32) -> Result<Client> {
    config(show)?.connect(NoTls).context(CANNOT_CONNECT)
}

pub(crate) fn diesel(show: i32) -> Result<PgConnection> {
    let url = NETWORK
        .get()
        .map_or_else(url, |network| Ok(network.url()))?;
    let mut connection = PgConnection::establish(&url).context(CANNOT_CONNECT)?;
    connection.batch_execute(&format!("SET search_path TO {}", schema(show)))?;
    Ok(connection)
}

pub(crate) fn pool(show: i32, size: u32) -> Result<r2d2::Pool<PostgresConnectionManager<NoTls>>> {
    let manager = PostgresConnectionManager::new(config(show)?, NoTls);
    r2d2::Pool::builder()
        .max_size(size)
        .build(manager)
        .context(CANNOT_CONNECT)
}

const CANNOT_CONNECT: &str = "cannot connect to the server that DATABASE_URL names";

/// A show has a schema of its own, so that the statements can say just `booking`.
fn config(show: i32) -> Result<Config> {
    let mut config: Config = match NETWORK.get() {
        Some(network) => network.config(),
        None => url()?.parse().context("cannot read DATABASE_URL")?,
    };
    config.options(&format!("-c search_path={}", schema(show)));
    Ok(config)
}

fn schema(show: i32) -> String {
    format!("pglock_booking_{show}")
}

/// The slow network between buyers and server, if there is one.
static NETWORK: OnceLock<Proxy> = OnceLock::new();

pub(crate) fn delay(round_trip: Duration) {
    if !round_trip.is_zero() {
        NETWORK.get_or_init(|| Proxy::with_delay(round_trip));
    }
}

fn url() -> Result<String> {
    env::var("DATABASE_URL").ok().context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run --example booking",
    )
}

/// The theatre's view of a show: opens and closes it, and counts the real bookings.
pub(crate) struct Show {
    client: Client,
    pub(crate) id: i32,
}

impl Show {
    pub(crate) fn open() -> Result<Self> {
        let mut client = Client::connect(&url()?, NoTls).context(CANNOT_CONNECT)?;
        // While this connection lives, no other run on this server can have the same number.
        let id = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let schema = schema(id);
        client.batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; -- of a run that was killed
             CREATE SCHEMA {schema};
             SET search_path TO {schema}"
        ))?;
        Ok(Self { client, id })
    }

    /// Deletes all bookings. The table has no unique constraint, so that overselling shows.
    pub(crate) fn restart(&mut self, seats: u16) -> Result<()> {
        self.client.batch_execute(&format!(
            "DROP TABLE IF EXISTS booking, seat;
             CREATE TABLE booking (seat integer NOT NULL, buyer integer NOT NULL);
             CREATE TABLE seat (
                 id integer PRIMARY KEY,
                 free boolean NOT NULL DEFAULT true,
                 version integer NOT NULL DEFAULT 1
             );
             INSERT INTO seat (id) SELECT generate_series(1, {seats})"
        ))?;
        Ok(())
    }

    /// The number of seats that have a booking, and of all bookings.
    pub(crate) fn count(&mut self) -> Result<(i64, i64)> {
        let counts = "SELECT count(DISTINCT seat), count(*) FROM booking";
        let row = self.client.query_one(counts, &[])?;
        Ok((row.get(0), row.get(1)))
    }

    pub(crate) fn close(mut self) -> Result<()> {
        let drop = format!("DROP SCHEMA {} CASCADE", schema(self.id));
        self.client.batch_execute(&drop).context("cannot clean up")
    }
}
