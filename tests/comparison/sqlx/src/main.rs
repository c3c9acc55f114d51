//! Runs failure modes on sqlx's `PgAdvisoryLock`, and prints a table. Run by scripts/test-comparison. The numbers are
//! those of docs/comparison.md.

use std::time::Duration;

use sqlx::postgres::{PgAdvisoryLock as Lock, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Error, Executor, query_scalar};
use tokio::time::{sleep, timeout};

async fn connect() -> PgConnection {
    let url = std::env::var("DATABASE_URL").expect("run by scripts/test-comparison");
    PgConnection::connect(&url).await.expect("a connection")
}

async fn ask<T>(conn: &mut PgConnection, query: String) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    query_scalar(AssertSqlSafe(query))
        .fetch_one(conn)
        .await
        .expect("an answer")
}

async fn pid(conn: &mut PgConnection) -> i32 {
    ask(conn, "SELECT pg_backend_pid()".into()).await
}

async fn holds(pid: i32) -> bool {
    let query = format!(
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = {pid}"
    );
    ask(&mut connect().await, query).await
}

async fn kill(pid: i32) {
    let _: bool = ask(
        &mut connect().await,
        format!("SELECT pg_terminate_backend({pid})"),
    )
    .await;
    sleep(Duration::from_millis(200)).await;
}

fn says(error: &Error, what: &str) -> bool {
    error.to_string().contains(what)
}

async fn body_raises(name: &str) -> &'static str {
    let mut conn = connect().await;
    let pid = pid(&mut conn).await;
    drop(Lock::new(name).acquire(&mut conn).await);
    sleep(Duration::from_millis(200)).await;
    if holds(pid).await { "W" } else { "S" }
}

async fn sql_error_in_a_transaction(name: &str) -> &'static str {
    let url = std::env::var("DATABASE_URL").expect("it was read before");
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let pid = pid(&mut tx).await;
    let lock = Lock::new(name);
    let mut guard = lock.acquire(&mut *tx).await.unwrap();
    guard.as_mut().execute("SELECT 1 / 0").await.unwrap_err();
    drop(guard);
    drop(tx);
    sleep(Duration::from_millis(200)).await;
    if holds(pid).await { "W" } else { "S" }
}

async fn short_timeouts(name: &str) -> &'static str {
    let (mut conn, mut other) = (connect().await, connect().await);
    let pid = pid(&mut conn).await;
    let lock = Lock::new(name);
    let held = lock.acquire(&mut other).await.unwrap();
    assert!(
        timeout(Duration::from_millis(50), lock.acquire(&mut conn))
            .await
            .is_err()
    );
    held.release_now().await.unwrap();
    sleep(Duration::from_millis(200)).await;
    if holds(pid).await { "W" } else { "S" }
}

async fn released_before_commit(name: &str) -> &'static str {
    let mut conn = connect().await;
    let pid = pid(&mut conn).await;
    let mut tx = conn.begin().await.unwrap();
    Lock::new(name)
        .acquire(&mut *tx)
        .await
        .unwrap()
        .release_now()
        .await
        .unwrap();
    if holds(pid).await { "S" } else { "W" }
}

async fn stale_snapshot(name: &str) -> &'static str {
    let (mut conn, mut other) = (connect().await, connect().await);
    other
        .execute("CREATE TABLE comparison_sqlx AS SELECT 0 AS n")
        .await
        .unwrap();
    let mut tx = conn.begin().await.unwrap();
    tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    tx.execute("SELECT 1").await.unwrap();
    other
        .execute("UPDATE comparison_sqlx SET n = 1")
        .await
        .unwrap();
    let lock = Lock::new(name);
    let mut guard = lock.acquire(&mut *tx).await.unwrap();
    let n: i32 = ask(guard.as_mut(), "SELECT n FROM comparison_sqlx".into()).await;
    drop(guard);
    drop(tx);
    conn.close().await.unwrap();
    other.execute("DROP TABLE comparison_sqlx").await.unwrap();
    if n == 1 { "S" } else { "W" }
}

async fn connection_killed(name: &str) -> &'static str {
    let mut conn = connect().await;
    let pid = pid(&mut conn).await;
    let lock = Lock::new(name);
    let guard = lock.acquire(&mut conn).await.unwrap();
    kill(pid).await;
    if guard.release_now().await.is_err() {
        "T"
    } else {
        "W"
    }
}

async fn unlock_returns_false(name: &str) -> &'static str {
    let mut conn = connect().await;
    let lock = Lock::new(name);
    let mut guard = lock.acquire(&mut conn).await.unwrap();
    guard
        .as_mut()
        .execute("SELECT pg_advisory_unlock_all()")
        .await
        .unwrap();
    if guard.release_now().await.is_err() {
        "T"
    } else {
        "W"
    }
}

async fn deadlock(name: &str) -> &'static str {
    async fn both(first: String, second: String) -> Result<(), Error> {
        let mut conn = connect().await;
        let (first, second) = (Lock::new(first), Lock::new(second));
        let mut guard = first.acquire(&mut conn).await?;
        sleep(Duration::from_millis(200)).await;
        second.acquire(guard.as_mut()).await?;
        Ok(())
    }
    let (a, b) = (format!("{name}a"), format!("{name}b"));
    let pair = async { tokio::join!(both(a.clone(), b.clone()), both(b, a)) };
    match timeout(Duration::from_secs(10), pair).await {
        Err(_) => "H",
        Ok((Err(error), _) | (_, Err(error))) if says(&error, "deadlock") => "T",
        Ok(_) => "W",
    }
}

async fn statement_timeout(name: &str) -> &'static str {
    let (mut conn, mut other) = (connect().await, connect().await);
    let lock = Lock::new(name);
    let _held = lock.acquire(&mut other).await.unwrap();
    conn.execute("SET statement_timeout = '300ms'")
        .await
        .unwrap();
    match lock.acquire(&mut conn).await {
        Err(error) if says(&error, "statement timeout") => "T",
        _ => "W",
    }
}

async fn error_replaced(name: &str) -> &'static str {
    let mut conn = connect().await;
    let pid = pid(&mut conn).await;
    let section = async {
        let lock = Lock::new(name);
        let _guard = lock.acquire(&mut conn).await.map_err(|_| "other")?;
        kill(pid).await;
        Err::<(), _>("boom")
    };
    if section.await == Err("boom") {
        "S"
    } else {
        "W"
    }
}

async fn nested(name: &str) -> &'static str {
    let mut conn = connect().await;
    let pid = pid(&mut conn).await;
    let lock = Lock::new(name);
    let mut outer = lock.acquire(&mut conn).await.unwrap();
    lock.acquire(outer.as_mut())
        .await
        .unwrap()
        .release_now()
        .await
        .unwrap();
    if holds(pid).await { "S" } else { "W" }
}

#[tokio::main]
async fn main() {
    println!("| mode | sqlx 0.9.0 |\n| --- | --- |");
    macro_rules! run {
        ($($number:literal $mode:ident),*) => {
            $(println!("| {} {} | {} |", $number, stringify!($mode).replace('_', " "), $mode(stringify!($mode)).await);)*
        };
    }
    run!(1 body_raises, 2 sql_error_in_a_transaction, 3 short_timeouts, 6 released_before_commit, 7 stale_snapshot,
        8 connection_killed, 9 unlock_returns_false, 10 deadlock, 11 statement_timeout, 12 error_replaced, 13 nested);
}
