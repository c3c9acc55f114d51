//! Worker threads share a pool and drain a table of jobs, each job exactly once.
//!
//! ```sh
//! scripts/with-postgres cargo run --example workers
//! ```

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use pglock::Lock;
use postgres::{Client, Config, NoTls};
use r2d2_postgres::PostgresConnectionManager;

type Pool = r2d2::Pool<PostgresConnectionManager<NoTls>>;

/// Drains a table of unsent mail with several threads, under one lock that owns its pool.
///
/// The server is the one that DATABASE_URL names; scripts/with-postgres starts one.
#[derive(Debug, Parser)]
struct Options {
    /// Worker threads
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    workers: i32,
    /// Mails to send
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i32).range(0..))]
    jobs: i32,
    /// Connections that the workers share
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pool: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let url = std::env::var("DATABASE_URL").ok().context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run --example workers",
    )?;
    let mut config: Config = url.parse().context("cannot read DATABASE_URL")?;
    let mut client = config.connect(NoTls).context("cannot connect")?;

    // While this connection lives, no other run has the same number, and so the same schema.
    let run: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let schema = format!("pglock_workers_{run}");
    client.batch_execute(&format!(
        "DROP SCHEMA IF EXISTS {schema} CASCADE; -- of a run that was killed
         CREATE SCHEMA {schema};
         SET search_path TO {schema};
         CREATE TABLE mail (id integer PRIMARY KEY, sent integer NOT NULL DEFAULT 0, worker integer);
         INSERT INTO mail (id) SELECT generate_series(1, {})",
        options.jobs
    ))?;
    config.options(&format!("-c search_path={schema}"));
    let drained = drain(&options, config).and_then(|()| report(&mut client, options.jobs));
    let dropped = client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE"));
    drained?;
    dropped.context("cannot clean up")
}

fn drain(options: &Options, config: Config) -> Result<()> {
    let pool = Pool::builder()
        .max_size(options.pool)
        .build(PostgresConnectionManager::new(config, NoTls))?;
    thread::scope(|scope| {
        let workers: Vec<_> = (1..=options.workers)
            .map(|worker| {
                let mut lock = Lock::new(pool.clone(), "queue:mail");
                scope.spawn(move || -> Result<()> {
                    // Each turn checks out a connection only while it holds the lock.
                    while lock.run(|conn| send_next(conn, worker))? {}
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker panicked"))
    })
}

/// Sends the next mail; false when there is none. Only the lock keeps two workers from finding the
/// same one.
fn send_next(conn: &mut Client, worker: i32) -> Result<bool> {
    let next = "SELECT id FROM mail WHERE sent = 0 ORDER BY id LIMIT 1";
    let Some(mail) = conn.query_opt(next, &[])? else {
        return Ok(false);
    };
    let id: i32 = mail.get(0);
    thread::sleep(Duration::from_millis(1)); // the mail server takes a moment
    let sent = "UPDATE mail SET sent = sent + 1, worker = $1 WHERE id = $2";
    conn.execute(sent, &[&worker, &id])?;
    Ok(true)
}

fn report(client: &mut Client, jobs: i32) -> Result<()> {
    let by_worker = "SELECT worker, sum(sent) FROM mail GROUP BY worker ORDER BY worker";
    for row in client.query(by_worker, &[])? {
        let (worker, sent): (i32, i64) = (row.get(0), row.get(1));
        println!("worker {worker}: {sent} mails");
    }
    let once = "SELECT count(*) FROM mail WHERE sent = 1";
    let once: i64 = client.query_one(once, &[])?.get(0);
    ensure!(
        once == jobs.into(),
        "only {once} of {jobs} mails were sent exactly once"
    );
    println!("each of {jobs} mails was sent exactly once");
    Ok(())
}
