//! Async tasks upload pages under a lock that a thread of pglock's keeps, and stop as soon as it is lost. Then others
//! call an API that allows three calls at a time.
//!
//! ```sh
//! scripts/with-postgres cargo run --example held_async --all-features
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pglock::held::Keeper;
use pglock::{Error, Key, Lock, Semaphore, inspect, key};
use postgres::{Client, NoTls};
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

const PAGES: u32 = 10;
const CALLS: u32 = 12;
const ALLOWED: u32 = 3;

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
    let (uploaded, most) = runtime.block_on(async {
        let whole = import(&keeper, "ada", None).await?;
        let part = import(&keeper, "bob", Some(url)).await?;
        anyhow::Ok(((whole, part), call_all(&keeper).await?))
    })?;
    println!("pages of ada: {}, of bob: {}", uploaded.0, uploaded.1);
    ensure!(
        uploaded.0 == PAGES && uploaded.1 < PAGES,
        "bob's import went on without the lock"
    );
    println!("{CALLS} calls of the API, {most} at a time at most");
    ensure!(most == ALLOWED, "too many calls, or too few");
    Ok(())
}

/// Calls the API from many tasks, and returns how many calls there were at a time at most. Each that waits for a slot
/// has a connection, so no more of them ask than could get one.
async fn call_all(keeper: &Keeper) -> Result<u32> {
    let asking = Arc::new(tokio::sync::Semaphore::new(ALLOWED as usize));
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..CALLS {
        let slots = Semaphore::new(keeper.clone(), "held_async:api", ALLOWED); // of the fleet
        let (asking, now, most) = (Arc::clone(&asking), Arc::clone(&now), Arc::clone(&most));
        tasks.spawn(async move {
            let _asks = asking.acquire().await?;
            let held = spawn_blocking(|| slots.hold()).await??;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await; // the call
            now.fetch_sub(1, Ordering::SeqCst);
            anyhow::Ok(spawn_blocking(|| held.release()).await??)
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(most.load(Ordering::SeqCst))
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
