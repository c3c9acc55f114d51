//! Eight replicas start at the same time, and each of them migrates the database first.
//!
//! ```sh
//! scripts/with-postgres cargo run -p recipes --bin migrations
//! ```
//!
//! The first one applies the migrations, one of which is a CREATE INDEX CONCURRENTLY: it waits for all
//! older snapshots. The others wait for the lock in slices, and have no snapshot between two slices, so
//! they let it through. That needs a form that begins outside a transaction, such as `with_lock`.

use std::io::Read;

use anyhow::{Context, Result, anyhow, bail, ensure};
use diesel::{Connection, PgConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use pglock::with_lock;
use postgres::{Client, NoTls};
use recipes::{Schema, output, start, url};

const REPLICAS: usize = 8;
const LOCK: &str = "shop:migrations";

const DIESEL: EmbeddedMigrations = embed_migrations!("migrations/diesel");
mod shop {
    refinery::embed_migrations!("migrations/refinery");
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => ["diesel_migrations", "refinery"]
            .into_iter()
            .try_for_each(deploy),
        Some(tool) => {
            std::io::stdin().read_to_end(&mut Vec::new())?; // waits until all are started
            let applied = match tool {
                "diesel_migrations" => migrate_with_diesel()?,
                "refinery" => migrate_with_refinery()?,
                other => bail!("no such tool: {other}"),
            };
            println!("{applied}");
            Ok(())
        }
    }
}

/// The number of migrations that this replica has applied. The one that creates the index has a
/// `metadata.toml`, which says `run_in_transaction = false`.
fn migrate_with_diesel() -> Result<usize> {
    let mut connection = PgConnection::establish(&url()?)?;
    with_lock(&mut connection, LOCK, |connection| {
        let applied = connection.run_pending_migrations(DIESEL);
        Ok(applied.map_err(|error| anyhow!(error))?.len())
    })
}

/// refinery runs every migration in a transaction. What cannot run in one comes after them, under the
/// same lock. All migrations share one transaction: otherwise a replica that dies can leave a migration
/// applied but not recorded.
fn migrate_with_refinery() -> Result<usize> {
    let mut client = Client::connect(&url()?, NoTls)?;
    with_lock(&mut client, LOCK, |client| {
        let report = shop::migrations::runner().set_grouped(true).run(client)?;
        client.batch_execute(INDEX)?;
        Ok(report.applied_migrations().len())
    })
}

const INDEX: &str = "CREATE INDEX CONCURRENTLY IF NOT EXISTS booking_by_guest ON booking (guest)";

fn deploy(tool: &str) -> Result<()> {
    let mut schema = Schema::new("migrations")?;
    let mut replicas = (0..REPLICAS)
        .map(|_| start(&schema, &[tool]))
        .collect::<Result<Vec<_>>>()?;
    for replica in &mut replicas {
        drop(replica.stdin.take());
    }
    let applied = replicas
        .into_iter()
        .map(|replica| output(replica)?.parse().context("no number"))
        .collect::<Result<Vec<usize>>>()?;
    let known = match tool {
        "refinery" => "SELECT count(*) FROM refinery_schema_history",
        _ => "SELECT count(*) FROM __diesel_schema_migrations",
    };
    let known = schema.number(known)?;
    let rows = schema.number("SELECT count(*) FROM booking WHERE guest = 'nobody'")?;
    let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = 'booking_by_guest'::regclass AND indisvalid";
    let valid = schema.number(valid)?;
    println!("{tool}: {REPLICAS} replicas applied {applied:?} migrations");

    let by_all: usize = applied.iter().sum();
    ensure!(
        by_all as i64 == known,
        "{known} migrations are recorded, and {by_all} were applied"
    );
    let busy = applied.iter().filter(|applied| **applied > 0);
    ensure!(
        busy.count() == 1,
        "more than one replica, or none, has migrated"
    );
    ensure!(
        rows == 20_000,
        "a migration was applied more than once: {rows} rows"
    );
    ensure!(valid == 1, "the index is not valid");
    println!("{tool}: each was applied once, and the index is valid");
    Ok(())
}
