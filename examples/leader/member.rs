//! One of the processes: a candidate, and a leader that writes. It reports line by line what happens.

use std::io::{BufRead, stdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use pglock::Error;
use pglock::election::{Election, Term};
use postgres::{Client, NoTls};

pub const ELECTION: &str = "example-leader";

/// Set when the process is asked to resign.
static RESIGN: AtomicBool = AtomicBool::new(false);

pub fn run(url: &str, lease: Duration, at_once: bool, number: usize) -> anyhow::Result<()> {
    thread::spawn(|| {
        for line in stdin().lock().lines() {
            if line.is_ok_and(|line| line == "resign") {
                RESIGN.store(true, Ordering::Relaxed);
            }
        }
        std::process::exit(0); // the parent is gone
    });
    let election = Election::new(
        {
            let url = url.to_owned();
            move || Client::connect(&url, NoTls)
        },
        ELECTION,
    )
    .lease(lease);
    let election = if at_once {
        election.at_once()
    } else {
        election
    };
    loop {
        let served = election.run(|term| serve(term, url, number));
        match served {
            Ok(()) => println!("resigned"),
            Err(error) => println!("over {error}"),
        }
    }
}

fn serve(term: &Term, url: &str, number: usize) -> anyhow::Result<()> {
    let token = term.token().as_u64();
    let mut client = Client::connect(url, NoTls)?;
    let older = client.query_one(
        "SELECT count(*) FROM leader_wrote WHERE token < $1",
        &[&(token as i64)],
    )?;
    println!("leads {token} {}", older.get::<_, i64>(0));
    loop {
        // Read before the check of the term: so the term was not over at this time either.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        if term.is_over() || RESIGN.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        println!("on {token} {}", now.as_nanos());
        thread::sleep(Duration::from_millis(30)); // the work; a good time to be frozen in
        let wrote = term.fenced(&mut client, |tx| {
            let row: [&(dyn postgres::types::ToSql + Sync); 2] =
                [&(token as i64), &(number as i32)];
            tx.execute(
                "INSERT INTO leader_wrote (token, member) VALUES ($1, $2)",
                &row,
            )?;
            Ok::<_, Error>(())
        });
        match wrote {
            Ok(()) => println!("wrote"),
            Err(_) => println!("refused"),
        }
    }
}
