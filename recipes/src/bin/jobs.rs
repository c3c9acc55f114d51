//! A queue of jobs in a table. Failed jobs are tried again, after a longer delay each time, and workers
//! are killed in between.
//!
//! ```sh
//! scripts/with-postgres cargo run -p recipes --bin jobs
//! ```
//!
//! A worker holds the row of its job for one transaction: what the job writes, and the mark that it is
//! done, are committed together. If a worker dies, its row is free, and the job is as it was before.

use std::process::Child;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pglock::FirstFree;
use postgres::{Client, NoTls, Transaction};
use recipes::{Schema, output, start, url};

const JOBS: i64 = 200;
const WORKERS: usize = 4;
const ATTEMPTS: i32 = 4;

/// The column `fails` says how often a job fails; a real queue would do real work instead.
const TABLES: &str = "
    CREATE TABLE job (
        id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'new', attempts integer NOT NULL DEFAULT 0,
        run_at timestamptz NOT NULL DEFAULT now(), fails integer NOT NULL);
    CREATE INDEX ON job (run_at) WHERE state = 'new';
    CREATE TABLE mail (job bigint NOT NULL)";

fn main() -> Result<()> {
    match std::env::args().nth(1) {
        None => run_all(),
        Some(_) => work(),
    }
}

fn work() -> Result<()> {
    let mut client = Client::connect(&url()?, NoTls)?;
    let due = FirstFree::new("job", "id")
        .with("state", "new")
        .filter("run_at <= now()")
        .order_by("run_at");
    let mut taken = 0;
    loop {
        let found = due.run_in_transaction(&mut client, |tx, id: i64| attempt(tx, id))?;
        if found.is_some() {
            taken += 1;
            continue;
        }
        let open = "SELECT count(*) FROM job WHERE state = 'new'";
        if client.query_one(open, &[])?.get::<_, i64>(0) == 0 {
            println!("{taken}");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10)); // until the next job is due
    }
}

/// Does the job in a savepoint: a failure undoes what the job wrote, but not the note that it failed.
fn attempt(tx: &mut Transaction<'_>, id: i64) -> Result<()> {
    let mut savepoint = tx.transaction()?;
    if send_mail(&mut savepoint, id).is_ok() {
        savepoint.commit()?;
        let done = "UPDATE job SET state = 'done', attempts = attempts + 1 WHERE id = $1";
        tx.execute(done, &[&id])?;
    } else {
        savepoint.rollback()?;
        let later = "UPDATE job SET attempts = attempts + 1,
                state = CASE WHEN attempts + 1 < $2 THEN 'new' ELSE 'failed' END,
                run_at = now() + interval '20 ms' * 2 ^ attempts
            WHERE id = $1";
        tx.execute(later, &[&id, &ATTEMPTS])?;
    }
    Ok(())
}

fn send_mail(tx: &mut Transaction<'_>, id: i64) -> Result<()> {
    tx.execute("INSERT INTO mail VALUES ($1)", &[&id])?;
    thread::sleep(Duration::from_millis(8)); // the mail server takes a moment
    let fails = "SELECT attempts < fails FROM job WHERE id = $1";
    if tx.query_one(fails, &[&id])?.get(0) {
        bail!("the mail server is down");
    }
    Ok(())
}

fn run_all() -> Result<()> {
    let mut schema = Schema::new("jobs")?;
    schema.client.batch_execute(TABLES)?;
    // One in ten fails once, one in twenty twice, and two fail every time.
    let jobs = "INSERT INTO job (id, fails) SELECT n, CASE WHEN n <= 2 THEN 99
            WHEN n % 20 = 0 THEN 2 WHEN n % 10 = 0 THEN 1 ELSE 0 END
        FROM generate_series(1, $1::bigint) AS n";
    schema.client.execute(jobs, &[&JOBS])?;
    let mut workers = (0..WORKERS)
        .map(|_| start(&schema, &["work"]))
        .collect::<Result<Vec<_>>>()?;
    let kills = kill_some(&mut schema, &mut workers)?;
    let taken = workers
        .into_iter()
        .map(output)
        .collect::<Result<Vec<_>>>()?;
    println!(
        "{kills} workers were killed; those at the end took {} jobs",
        taken.join(", ")
    );
    check(&mut schema)
}

/// Kills a worker, and starts another, until no job is left.
fn kill_some(schema: &mut Schema, workers: &mut [Child]) -> Result<usize> {
    let mut kills = 0;
    while schema.number("SELECT count(*) FROM job WHERE state = 'new'")? > 5 {
        thread::sleep(Duration::from_millis(60));
        let worker = &mut workers[kills % WORKERS];
        worker.kill()?;
        worker.wait()?;
        *worker = start(schema, &["work"])?;
        kills += 1;
    }
    Ok(kills)
}

fn check(schema: &mut Schema) -> Result<()> {
    let done = schema.number("SELECT count(*) FROM job WHERE state = 'done'")?;
    let failed = schema.number("SELECT count(*) FROM job WHERE state = 'failed'")?;
    let attempts = schema.number("SELECT sum(attempts)::bigint FROM job")?;
    let mails = schema.number("SELECT count(*) FROM mail")?;
    let sent = schema.number("SELECT count(DISTINCT job) FROM mail")?;
    let miscounted = "SELECT count(*) FROM job WHERE attempts <> least(fails + 1, $1)";
    let miscounted: i64 = schema.client.query_one(miscounted, &[&ATTEMPTS])?.get(0);
    println!("{done} jobs done and {failed} given up, in {attempts} attempts; {mails} mails");
    ensure!(
        (done, failed) == (JOBS - 2, 2),
        "jobs are left, or were given up"
    );
    ensure!(
        mails == sent && sent == done,
        "a mail was sent twice, or not at all"
    );
    ensure!(
        miscounted == 0,
        "{miscounted} jobs have a wrong number of attempts"
    );
    println!("each job was done exactly once");
    Ok(())
}
