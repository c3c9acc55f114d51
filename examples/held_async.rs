//! Async tasks upload pages under a lock that a thread of pglock's keeps, and stop as soon as it is lost.
//!
//! ```sh
//! scripts/with-postgres cargo run --example held_async --all-features
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pglock::held::Keeper;
use pglock::{Error, Key, Lock, inspect, key};
use postgres::{Client, NoTls};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const PAGES: u32 = 10;

fn main() -> Result<()> {
    let url = std::env::var("DATABASE_URL").context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run --example held_async --all-features",
    )?;
    // Its connections are made, used and closed by threads of its own, so no runtime is in their way.
    let connect = url.clone();
    let keeper = Keeper::new(move || Client::connect(&connect, NoTls));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let uploaded = runtime.block_on(async {
        let whole = import(&keeper, "ada", None).await?;
        let part = import(&keeper, "bob", Some(url)).await?;
        anyhow::Ok((whole, part))
    })?;
    println!("pages of ada: {}, of bob: {}", uploaded.0, uploaded.1);
    ensure!(
        uploaded.0 == PAGES && uploaded.1 < PAGES,
        "bob's import went on without the lock"
    );
    Ok(())
}

/// Uploads the pages of a tenant, and returns how many. If there is a `saboteur`, the holder's session is ended
/// while the fourth page is on its way.
async fn import(keeper: &Keeper, tenant: &str, saboteur: Option<String>) -> Result<u32> {
    let key = key!("held_async:import:{tenant}");
    let lock = Lock::new(keeper.clone(), &key).lease(Duration::from_secs(5));
    let held = spawn_blocking(|| lock.hold()).await??;
    let lost = Arc::new(Notify::new()); // or a CancellationToken of tokio-util
    let token = Arc::clone(&lost);
    held.on_loss(move |_| token.notify_one());
    let mut uploaded = 0;
    while uploaded < PAGES {
        tokio::select! {
            () = lost.notified() => break, // in the middle of a page
            () = sleep(Duration::from_millis(20)) => uploaded += 1,
        }
        if let (3, Some(url)) = (uploaded, &saboteur) {
            let (url, key) = (url.clone(), key.clone());
            spawn_blocking(move || end_holder(&url, &key)).await??;
            lost.notified().await; // an upload that takes its time
            break;
        }
    }
    match spawn_blocking(|| held.release()).await? {
        Ok(()) => println!("{tenant}: done"),
        Err(lost @ Error::LockLost { .. }) => println!("{tenant}: {lost}"),
        Err(other) => return Err(other.into()),
    }
    Ok(uploaded)
}

fn end_holder(url: &str, key: &Key) -> Result<()> {
    let mut admin = Client::connect(url, NoTls)?;
    for claim in inspect::holders(&mut admin, key)? {
        admin.execute("SELECT pg_terminate_backend($1)", &[&claim.pid])?;
    }
    Ok(())
}
