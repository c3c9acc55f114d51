//! The threads of a process: one on a connection of each driver, two on a pool of each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use diesel::Connection;
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use pglock::{Error, LockBackend};
use postgres::NoTls;
use r2d2_postgres::PostgresConnectionManager;

use crate::bank::{application, schema};
use crate::proxy::Proxy;
use crate::random::Random;
use crate::section::{Fate, Section};
use crate::tally::Tally;

type Shared = (i32, Arc<Proxy>, Arc<AtomicBool>, Arc<Mutex<Tally>>);

pub fn start_all(
    random: &mut Random,
    run: i32,
    proxy: &Arc<Proxy>,
    stop: &Arc<AtomicBool>,
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

    let manager = PostgresConnectionManager::new(config.clone(), NoTls);
    let postgres_pool = pool(manager);
    let diesel_pool = pool(ConnectionManager::<PgConnection>::new(url.as_str()));
    let mut workers = vec![
        spawn("postgres", random, &shared, move || {
            config.connect(NoTls).ok()
        }),
        spawn("diesel", random, &shared, move || {
            PgConnection::establish(&url).ok()
        }),
    ];
    for _ in 0..2 {
        let (first, second) = (postgres_pool.clone(), diesel_pool.clone());
        workers.push(spawn("postgres pool", random, &shared, move || {
            Some(first.clone())
        }));
        workers.push(spawn("diesel pool", random, &shared, move || {
            Some(second.clone())
        }));
    }
    workers
}

fn pool<M: r2d2::ManageConnection>(manager: M) -> r2d2::Pool<M> {
    r2d2::Pool::builder()
        .max_size(2)
        .error_handler(Box::new(r2d2::NopErrorHandler)) // connections are cut while they are made
        .connection_timeout(Duration::from_secs(10))
        .build_unchecked(manager)
}

fn spawn<B: LockBackend>(
    name: &'static str,
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
            let section = Section::choose(&mut random, run);
            let fate = section.run(backend);
            let usable = tell(&fate, name, &mut tally.lock().unwrap());
            if !usable || random.one_in(50) {
                connection = None;
            }
        }
    })
}

/// Counts what became of a section, and says whether the connection is to be kept.
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
            Error::Checkout { .. } => "Checkout",
            Error::Body(_) => "Body",
            error => {
                tally.violation(&format!("no fault explains this error: {error:?}"));
                return false;
            }
        },
    };
    tally.count(&format!("outcomes: {told}"));
    matches!(fate, Fate::TimedOut | Fate::Ended(Ok(())))
}
