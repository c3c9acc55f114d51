//! An API that allows three calls at a time, and a fleet that respects this: processes and threads that
//! share a semaphore.
//!
//! ```sh
//! scripts/with-postgres cargo run -p recipes --bin rate_limit
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pglock::Semaphore;
use postgres::{Client, NoTls};
use recipes::{Schema, output, start, url};

const ALLOWED: u32 = 3;
const PROCESSES: usize = 4;
const THREADS: usize = 4;
const CALLS: usize = 10;

fn main() -> Result<()> {
    match std::env::args().nth(1) {
        None => run_all(),
        Some(port) => {
            let limited = std::env::args().nth(2).as_deref() == Some("limited");
            println!("{}", worker(port.parse()?, limited)?);
            Ok(())
        }
    }
}

/// The API. It counts its calls, and refuses those that are too many.
#[derive(Debug, Default, Clone, Copy)]
struct Api {
    now: u32,
    most: u32,
    calls: usize,
}

static API: Mutex<Api> = Mutex::new(Api {
    now: 0,
    most: 0,
    calls: 0,
});

fn count(change: impl FnOnce(&mut Api)) -> Api {
    let mut api = API.lock().expect("nobody panics with it");
    change(&mut api);
    *api
}

fn answer(mut caller: TcpStream) -> Result<()> {
    let api = count(|api| {
        api.calls += 1;
        api.now += 1;
        api.most = api.most.max(api.now);
    });
    let answer = if api.now > ALLOWED { "429" } else { "200" };
    thread::sleep(Duration::from_millis(10)); // the API takes a moment
    count(|api| api.now -= 1);
    Ok(caller.write_all(answer.as_bytes())?)
}

/// Whether the API has accepted the call.
fn call(port: u16) -> Result<bool> {
    let mut answer = String::new();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))?.read_to_string(&mut answer)?;
    Ok(answer == "200")
}

/// Calls the API on several threads, and returns how many calls were refused.
fn worker(port: u16, limited: bool) -> Result<usize> {
    let calls = || -> Result<usize> {
        let mut client = Client::connect(&url()?, NoTls)?;
        let mut api = Semaphore::new(&mut client, "shop:mail-api", ALLOWED);
        let mut refused = 0;
        for _ in 0..CALLS {
            let answered = if limited {
                api.run(|_| call(port))?
            } else {
                call(port)?
            };
            refused += usize::from(!answered);
        }
        Ok(refused)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(calls)).collect();
        let refused = threads.into_iter();
        refused
            .map(|thread| thread.join().expect("a thread panicked"))
            .sum()
    })
}

fn run_all() -> Result<()> {
    let schema = Schema::new("rate_limit")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for caller in listener.incoming().flatten() {
            thread::spawn(move || answer(caller));
        }
    });
    fleet(&schema, port, "unlimited")?;
    let (api, refused) = fleet(&schema, port, "limited")?;
    ensure!(api.calls == PROCESSES * THREADS * CALLS, "calls were lost");
    ensure!(
        refused == 0 && api.most == ALLOWED,
        "calls were refused, or never {ALLOWED} at a time"
    );
    println!("with the semaphore, there were up to {ALLOWED} calls at a time, and never more");
    Ok(())
}

fn fleet(schema: &Schema, port: u16, how: &str) -> Result<(Api, usize)> {
    count(|api| *api = Api::default());
    let start_of_run = Instant::now();
    let processes = (0..PROCESSES)
        .map(|_| start(schema, &[&port.to_string(), how]))
        .collect::<Result<Vec<_>>>()?;
    let refused = processes
        .into_iter()
        .map(|process| output(process)?.parse::<usize>().context("no number"))
        .sum::<Result<usize>>()?;
    let api = count(|_| ());
    println!(
        "{how}: {} calls in {:.2} s, {refused} refused, {} at a time at most",
        api.calls,
        start_of_run.elapsed().as_secs_f64(),
        api.most
    );
    Ok((api, refused))
}
