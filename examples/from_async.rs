//! Async tasks buy the same seats, each seat once: pglock runs where blocking is allowed.
//!
//! ```sh
//! scripts/with-postgres cargo run --example from_async --all-features
//! ```

use anyhow::{Context, Result, ensure};
use pglock::{key, with_lock};
use postgres::NoTls;
use r2d2_postgres::PostgresConnectionManager;
use tokio::task::{JoinSet, spawn_blocking};

type Pool = r2d2::Pool<PostgresConnectionManager<NoTls>>;

const SEATS: i32 = 5;
const BUYERS: i32 = 8;

fn main() -> Result<()> {
    let url = std::env::var("DATABASE_URL").context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run --example from_async --all-features",
    )?;
    // Created before the runtime and dropped after it: a `postgres::Client` that is connected, used or
    // dropped inside a runtime panics.
    let pool = Pool::builder()
        .max_size(4)
        .build(PostgresConnectionManager::new(url.parse()?, NoTls))?;
    pool.get()?.batch_execute(
        "DROP TABLE IF EXISTS pglock_from_async;
         CREATE TABLE pglock_from_async (seat integer, buyer integer)",
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let sold = runtime.block_on(sell_all(pool.clone()));
    pool.get()?.batch_execute("DROP TABLE pglock_from_async")?;
    let sold = sold?;
    println!("{BUYERS} buyers tried to buy each of {SEATS} seats, and {sold} were sold");
    ensure!(sold == SEATS, "some were sold twice, or not at all");
    Ok(())
}

/// Every buyer tries to buy every seat, all at the same time.
async fn sell_all(pool: Pool) -> Result<i32> {
    let mut tasks = JoinSet::new();
    for buyer in 0..BUYERS {
        for seat in 0..SEATS {
            tasks.spawn(sell(pool.clone(), seat, buyer));
        }
    }
    let mut sold = 0;
    while let Some(task) = tasks.join_next().await {
        sold += i32::from(task??);
    }
    Ok(sold)
}

/// Whether this buyer got the seat. The lock and its connection stay on one thread, which may
/// block.
async fn sell(mut pool: Pool, seat: i32, buyer: i32) -> Result<bool> {
    let section = move || {
        with_lock(&mut pool, key!("from_async:seat:{seat}"), |conn| {
            let taken = "SELECT FROM pglock_from_async WHERE seat = $1";
            if conn.query_opt(taken, &[&seat])?.is_some() {
                return Ok(false);
            }
            let insert = "INSERT INTO pglock_from_async VALUES ($1, $2)";
            conn.execute(insert, &[&seat, &buyer])?;
            anyhow::Ok(true)
        })
    };
    spawn_blocking(section).await?
}
