//! The threads of a process: one on a connection of each driver, another of each through PgBouncer, two on a pool of each, and four on a
//! queued pool of each, with a favourite account, so that they hand it over. And a candidate in the
//! election, and one that holds locks for work elsewhere.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use diesel::Connection;
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use pglock::{Error, LockBackend, QueuedPool, StopToken};
use postgres::NoTls;
use r2d2::HandleEvent;
use r2d2::event::CheckoutEvent;
use r2d2_postgres::PostgresConnectionManager;

use crate::bank::{application, schema};
use crate::bouncer;
use crate::held;
use crate::leader;
use crate::permit;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::section::{Fate, Section, an_account};
use crate::tally::Tally;

/// Where no lock of a session's may be taken.
const POOLER: &str = "through PgBouncer";

thread_local! {
    /// Whether this thread has checked out a connection in its present section. If not, another thread
    /// has handed one over.
    static CHECKED_OUT: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct Checkouts;

/// r2d2 calls it on the thread that gets the connection.
impl HandleEvent for Checkouts {
    fn handle_checkout(&self, _: CheckoutEvent) {
        CHECKED_OUT.set(true);
    }
}

type Shared = (i32, Arc<Proxy>, Arc<AtomicBool>, Arc<Mutex<Tally>>);

pub fn start_all(
    random: &mut Random,
    run: i32,
    proxy: &Arc<Proxy>,
    stop: &Arc<AtomicBool>,
    resign: &StopToken,
    tally: &Arc<Mutex<Tally>>,
) -> Vec<JoinHandle<()>> {
    let shared: Shared = (run, proxy.clone(), stop.clone(), tally.clone());
    let options = format!("-c search_path={}", schema(run));
    let mut config = proxy.config();
    config.application_name(&application(run)).options(&options);
    let url = format!(
        "{} application_name={} options='{options}'",
        proxy.url(),
        application(run)
    );

    let postgres_pool = || pool(PostgresConnectionManager::new(config.clone(), NoTls));
    let diesel_pool = || pool(ConnectionManager::<PgConnection>::new(url.as_str()));
    let plain = (postgres_pool(), diesel_pool());
    let queued = (
        QueuedPool::new(postgres_pool()),
        QueuedPool::new(diesel_pool()),
    );
    let favourites = (Some(an_account(random)), Some(an_account(random)));
    let mut seed = || Random::new(random.number());
    let mut workers = vec![
        leader::start(config.clone(), run, seed(), resign, tally),
        held::start(config.clone(), run, seed(), resign, tally),
        spawn("postgres", None, random, &shared, move || {
            config.connect(NoTls).ok()
        }),
        spawn("diesel", None, random, &shared, move || {
            PgConnection::establish(&url).ok()
        }),
    ];
    if let Some(config) = bouncer::config(run) {
        let connect = move || config.connect(NoTls).ok();
        workers.push(spawn(POOLER, None, random, &shared, connect));
        let connect = move || PgConnection::establish(&bouncer::url(run)).ok();
        workers.push(spawn(POOLER, None, random, &shared, connect));
    }
    for _ in 0..2 {
        let (postgres, diesel) = plain.clone();
        workers.push(spawn("postgres pool", None, random, &shared, move || {
            Some(postgres.clone())
        }));
        workers.push(spawn("diesel pool", None, random, &shared, move || {
            Some(diesel.clone())
        }));
    }
    for _ in 0..4 {
        let (postgres, diesel) = queued.clone();
        workers.push(spawn(
            "queued postgres pool",
            favourites.0,
            random,
            &shared,
            move || Some(postgres.clone()),
        ));
        workers.push(spawn(
            "queued diesel pool",
            favourites.1,
            random,
            &shared,
            move || Some(diesel.clone()),
        ));
    }
    workers
}

fn pool<M: r2d2::ManageConnection>(manager: M) -> r2d2::Pool<M> {
    r2d2::Pool::builder()
        .max_size(2)
        .error_handler(Box::new(r2d2::NopErrorHandler)) // connections are cut while they open
        .event_handler(Box::new(Checkouts))
        .connection_timeout(Duration::from_secs(10))
        .build_unchecked(manager)
}

/// Half of its sections are on the favourite account, if the threads of its backend have one.
fn spawn<B: LockBackend>(
    name: &'static str,
    favourite: Option<i32>,
    random: &mut Random,
    shared: &Shared,
    connect: impl Fn() -> Option<B> + Send + 'static,
) -> JoinHandle<()> {
    let mut random = Random::new(random.number());
    let (run, _proxy, stop, tally) = shared.clone();
    thread::spawn(move || {
        let mut connection = None;
        while !stop.load(Ordering::Relaxed) {
            let Some(backend) = connection.as_mut() else {
                connection = connect();
                continue;
            };
            let mut section = Section::choose(&mut random, run);
            if let Some(account) = favourite.filter(|_| random.one_in(2)) {
                section = section.at(account);
            }
            if name == POOLER {
                section = section.in_transaction();
            }
            CHECKED_OUT.set(false);
            let fate = match name != POOLER && random.one_in(6) {
                true => permit::Section::choose(&mut random, run).run(backend),
                false => section.run(backend),
            };
            let handed_over = matches!(fate, Fate::Ended(Ok(()))) && !CHECKED_OUT.get();
            let mut tally = tally.lock().unwrap();
            if favourite.is_some() && handed_over {
                tally.count(&format!("hand-overs: {name}"));
            }
            let usable = tell(&fate, name, &mut tally);
            drop(tally);
            if !usable || random.one_in(50) {
                connection = None;
            }
        }
    })
}

/// Counts the fate of a section, and returns whether to keep the connection.
fn tell(fate: &Fate, name: &str, tally: &mut Tally) -> bool {
    tally.count(&format!("sections: {name}"));
    let told = match fate {
        Fate::Panicked => {
            tally.count("faults: panics of a body");
            return true;
        }
        Fate::Refused => {
            tally.count("faults: errors of a body");
            return true;
        }
        Fate::Failed(violation) => {
            tally.violation(violation);
            return false;
        }
        Fate::TimedOut => "Timeout, and nothing held",
        Fate::Ended(Ok(())) => "done",
        Fate::Ended(Err(error)) => match error {
            Error::Canceled { .. } => "Canceled",
            Error::ConnectionLost { .. } => "ConnectionLost",
            Error::LockLost { .. } => "LockLost",
            Error::NotCommitted { .. } => "NotCommitted",
            Error::TransactionLeftOpen { .. } => "TransactionLeftOpen",
            Error::Inspect { .. } => "Inspect",
            Error::Checkout { .. } => "Checkout",
            Error::Body(_) => "Body",
            error => {
                tally.violation(&format!("{name}: no fault explains this error: {error:?}"));
                return false;
            }
        },
    };
    tally.count(&format!("outcomes: {told}"));
    matches!(fate, Fate::TimedOut | Fate::Ended(Ok(())))
}
