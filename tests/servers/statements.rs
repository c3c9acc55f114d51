//! How many entries pglock leaves in `pg_stat_statements`.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::Duration;

use pglock::{
    Error, Key, Lock, LockBackend, LockGuard, Semaphore, inspect, transaction_lock, try_with_lock,
    with_lock, with_transaction_lock,
};
use postgres::{Client, NoTls};

use super::forms::{Call, DRIVERS, FORMS};
use super::server::Server;

const CHILD: &str = "PGLOCK_TEST_STATEMENTS";

/// How many keys are locked in all.
const KEYS: usize = 2_000;
const PROCESSES: usize = 2;
/// In 12 forms and all waits, on two drivers, each first as text and then prepared; with a driver alone some seventy.
const MOST: usize = 135;

/// A server that counts statements, if it can.
fn counting() -> Option<Server> {
    let server = Server::new("statements");
    server.start();
    let can =
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')";
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    if !client.query_one(can, &[]).unwrap().get::<_, bool>(0) {
        eprintln!("skipped: no pg_stat_statements");
        return None;
    }
    server.stop();
    server.configure(
        "shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.max = 20000\nmax_connections = 300\n",
    );
    server.start();
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client
        .batch_execute("CREATE EXTENSION pg_stat_statements; CREATE ROLE locker LOGIN")
        .unwrap();
    Some(server)
}

/// The statements that pglock's role has sent: not what diesel says at the start of each connection, nor the
/// text of a message's section.
fn statements(server: &Server) -> BTreeSet<String> {
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let query = "SELECT queryid::text || ' ' || query FROM pg_stat_statements WHERE userid = 'locker'::regrole \
        AND query NOT LIKE 'SET TIME ZONE%' AND query NOT LIKE 'SET CLIENT\\_ENCODING%' AND query <> 'SELECT $1'";
    let rows = client.query(query, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Statements differ by the form, by the driver, and by what the keys are: one number, numbers to be exclusive, or
/// any. Nothing else counts: not how many keys (up to four), nor their modes; the keys of a second process, its
/// word, its sessions and its slices add none.
#[test]
fn thousands_of_keys_are_few_statements() {
    let Some(server) = counting() else { return };
    let url = server.url().replace("postgres@", "locker@");
    let mut after = [0, 1].map(|process| {
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "statements::child", "--ignored"])
            .env(CHILD, format!("{process} {url}"))
            .status();
        assert!(ended.unwrap().success());
        statements(&server)
    });
    let [first, second] = &mut after;
    let more: Vec<_> = second.difference(first).collect();
    assert!(more.is_empty(), "{more:#?}");
    assert!(first.len() <= MOST, "{}: {first:#?}", first.len());
}

#[test]
#[ignore = "is what thousands_of_keys_are_few_statements starts"]
fn child() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let (process, url) = task.split_once(' ').unwrap();
    let each = KEYS / PROCESSES / 2;
    thread::scope(|threads| {
        #[cfg(feature = "postgres")]
        threads.spawn(|| {
            let name = format!("postgres {process}");
            lock_many(&mut Client::connect(url, NoTls).unwrap(), &name, each / 2);
            lock_many(&mut crate::postgres_pool(url), &name, each / 2);
        });
        #[cfg(feature = "diesel")]
        threads.spawn(|| {
            let name = format!("diesel {process}");
            let connection = <diesel::PgConnection as diesel::Connection>::establish(url);
            lock_many(&mut connection.unwrap(), &name, each / 2);
            lock_many(&mut crate::diesel_pool(url), &name, each / 2);
        });
    });
    wait_in_every_form(url, process);
}

/// A set of one to four names or pairs.
fn set(name: &str, number: usize) -> Vec<Key> {
    let key = |i: usize| match number / 4 % 2 {
        0 => Key::from(format!("{name} {number} {i}")),
        _ => Key::from((i32::try_from(number).unwrap(), i32::try_from(i).unwrap())),
    };
    (0..=number % 4).map(key).collect()
}

const WAYS: usize = 12;

/// Locks so many keys, in every form in turn.
fn lock_many<B: LockBackend>(backend: &mut B, name: &str, keys: usize) {
    let (mut locked, mut number) = (0, 0);
    while locked < keys {
        let set = set(name, number / WAYS);
        let several = |backend| Lock::new(backend, set.clone());
        let one = || set[0].clone();
        let done = match number % WAYS {
            0 => with_lock(backend, one(), |_| Ok(())),
            1 => several(&mut *backend).run(|_| Ok(())),
            2 => several(&mut *backend).shared().run(|_| Ok(())),
            3 => with_transaction_lock(backend, one(), |_| Ok(())),
            4 => several(&mut *backend).run_in_transaction(|_| Ok(())),
            5 => several(&mut *backend).batch_execute("SELECT 1"),
            6 => with_transaction_lock(backend, "caller's", |tx| transaction_lock(tx, one())),
            7 => with_transaction_lock(backend, "caller's", |tx| {
                Lock::new(tx, set.clone()).acquire().map(drop)
            }),
            8 => try_with_lock(backend, one(), |_| Ok(())).map(drop),
            9 => several(&mut *backend)
                .timeout(Duration::from_secs(9))
                .run(|_| Ok::<_, Error>(())),
            10 => {
                let mut lock = several(&mut *backend);
                lock.acquire().and_then(|mut guard| {
                    assert!(LockGuard::is_held(&mut guard)?);
                    LockGuard::downgrade(&mut guard)?;
                    assert!(LockGuard::try_upgrade(&mut guard)?);
                    LockGuard::release(guard)
                })
            }
            _ => {
                let mut semaphore = Semaphore::new(&mut *backend, format!("{name} {number}"), 3);
                semaphore.run(|_| Ok(()))
            }
        };
        done.unwrap();
        locked += set.len();
        number += 1;
    }
    let mut lock = Lock::new(backend, "held");
    let mut guard = lock.acquire().unwrap();
    LockGuard::is_held(&mut guard).unwrap();
    inspect::holders(&mut *guard, "held").unwrap();
    LockGuard::release(guard).unwrap();
}

/// Waits in vain, for more than a slice.
fn wait_in_every_form(url: &str, process: &str) {
    let mut holder = Client::connect(&url.replace("locker@", "postgres@"), NoTls).unwrap();
    let calls = FORMS.iter().flat_map(|form| {
        let name = format!("{form:?} {process}");
        DRIVERS.iter().map(move |(driver, on)| {
            let mut call = Call::new(*form, format!("{name} {driver}"));
            call.timeout = Some(Duration::from_millis(2_200));
            (on, call)
        })
    });
    let calls: Vec<_> = calls.collect();
    for key in calls.iter().flat_map(|(_, call)| call.contended()) {
        let number = key.as_i64().unwrap();
        holder
            .execute("SELECT pg_advisory_lock($1)", &[&number])
            .unwrap();
    }
    thread::scope(|threads| {
        for (on, call) in &calls {
            threads.spawn(move || {
                let ended = on(url, call);
                assert!(matches!(ended, Err(Error::Timeout { .. })), "{ended:?}");
            });
        }
    });
}
