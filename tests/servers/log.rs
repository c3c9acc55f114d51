//! What a wait leaves in the server's log, at the server's default settings.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{
    Error, Lock, LockBackend, LockGuard, StopToken, inspect, transaction_lock,
    try_transaction_lock, try_with_lock, with_lock, with_transaction_lock,
};
use postgres::{Client, NoTls};

use super::forms::{Call, DRIVERS, FORMS, Form, OnDriver};
use super::server::Server;
use super::{never, on_server};

/// A server that tells in its log whose an entry is.
fn server(name: &str) -> Server {
    on_server(name, "log_line_prefix = '%a|'\nmax_connections = 300\n")
}

/// The entries of one severity or worse, by the application that they are of.
fn entries(server: &Server) -> BTreeMap<String, Vec<String>> {
    let log = fs::read_to_string(server.dir().join("log")).unwrap();
    let mut entries = BTreeMap::<_, Vec<_>>::new();
    for line in log.lines() {
        let Some((application, entry)) = line.split_once('|') else {
            continue;
        };
        let is_told = ["ERROR:", "WARNING:", "FATAL:", "PANIC:"]
            .iter()
            .any(|severity| entry.starts_with(severity));
        if is_told {
            let told = entries.entry(application.to_owned()).or_default();
            told.push(entry.to_owned());
        }
    }
    entries
}

fn named(url: &str, application: &str) -> String {
    format!("{url}?application_name={}", application.replace(' ', "_"))
}

/// Takes and gives back for a session, by SQL.
fn hold(client: &mut Client, function: &str, call: &Call) {
    for key in call.contended() {
        let number = key.as_i64().unwrap();
        let query = format!("SELECT {function}($1)");
        client.execute(&query, &[&number]).unwrap();
    }
}

/// Waits until each of these sessions shows that it had waited for so long before its slice.
fn wait_for_slices(client: &mut Client, applications: &[String], millis: i32) {
    let query = "SELECT count(DISTINCT application_name) FROM pg_stat_activity \
        WHERE application_name = ANY ($1) AND substring(query FROM 'waited ([0-9]+) ms')::int >= $2";
    let mut seen = 0;
    while seen < i64::try_from(applications.len()).unwrap() {
        seen = client
            .query_one(query, &[&applications, &millis])
            .unwrap()
            .get(0);
        thread::sleep(Duration::from_millis(20)); // between two looks
    }
}

/// A waiter: who makes which call.
struct Waiter {
    application: String,
    on: OnDriver,
    call: Call,
}

fn waiters(forms: &[Form], each: usize) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    for form in forms {
        for (driver, on) in DRIVERS {
            for number in 0..each {
                waiters.push(Waiter {
                    application: format!("{form:?} {driver} {number}").replace(' ', "_"),
                    on: *on,
                    call: Call::new(*form, format!("{form:?} {driver}")),
                });
            }
        }
    }
    waiters
}

/// None has left more than so many errors, and nothing worse or less.
fn assert_quiet(server: &Server, waiters: &[Waiter], most: usize) {
    let mut told = entries(server);
    told.retain(|application, told| {
        let is_waiter = waiters
            .iter()
            .any(|waiter| waiter.application == *application);
        let errors = told.iter().all(|entry| entry.starts_with("ERROR:"));
        is_waiter && !(errors && told.len() <= most)
    });
    assert_eq!(told, BTreeMap::new());
}

/// Two wait for each lock for several slices, and are let in: the second stands in line behind the first.
#[test]
fn a_wait_of_many_slices_leaves_one_error_in_the_log() {
    let server = server("log_waits");
    let mut oracle = Client::connect(&server.url(), NoTls).unwrap();
    let mut waiters = waiters(&FORMS, 2);
    // Else a slice in a caller's transaction lasts ten seconds.
    let never = StopToken::new();
    for waiter in &mut waiters {
        if waiter.call.form.is_in_callers_transaction() {
            waiter.call.stop = Some(never.clone());
        }
        hold(&mut oracle, "pg_advisory_lock", &waiter.call);
    }
    let applications = |waiters: &[Waiter]| -> Vec<_> {
        let sliced = waiters
            .iter()
            .filter(|waiter| waiter.call.form != Form::KeptPlace);
        sliced.map(|waiter| waiter.application.clone()).collect()
    };
    thread::scope(|threads| {
        let waits = waiters.iter().map(|waiter| {
            let url = named(&server.url(), &waiter.application);
            threads.spawn(move || (waiter.on)(&url, &waiter.call))
        });
        let waits: Vec<_> = waits.collect();
        wait_for_slices(&mut oracle, &applications(&waiters), 2_000);
        oracle
            .execute("SELECT pg_advisory_unlock_all()", &[])
            .unwrap();
        for (wait, waiter) in waits.into_iter().zip(&waiters) {
            let ended = wait.join().unwrap();
            assert!(ended.is_ok(), "{}: {ended:?}", waiter.application);
        }
    });
    assert_quiet(&server, &waiters, 1);
}

/// Two wait for each lock until their time is over, or somebody stops them.
#[test]
fn a_wait_in_vain_leaves_one_error_in_the_log() {
    let server = server("log_timeouts");
    let mut oracle = Client::connect(&server.url(), NoTls).unwrap();
    let mut waiters = waiters(&FORMS, 2);
    for (number, waiter) in waiters.iter_mut().enumerate() {
        let millis = [300, 2_400][number % 2];
        waiter.call.timeout = Some(Duration::from_millis(millis));
        hold(&mut oracle, "pg_advisory_lock", &waiter.call);
    }
    thread::scope(|threads| {
        let waits = waiters.iter().map(|waiter| {
            let url = named(&server.url(), &waiter.application);
            threads.spawn(move || (waiter.on)(&url, &waiter.call))
        });
        let waits: Vec<_> = waits.collect();
        for (wait, waiter) in waits.into_iter().zip(&waiters) {
            let ended = wait.join().unwrap();
            let timed_out = matches!(ended, Err(Error::Timeout { .. }));
            assert!(timed_out, "{}: {ended:?}", waiter.application);
        }
    });
    assert_quiet(&server, &waiters, 1);
}

#[test]
fn a_try_in_vain_leaves_nothing_in_the_log() {
    let server = server("log_tries");
    let mut oracle = Client::connect(&server.url(), NoTls).unwrap();
    let mut waiters = waiters(&FORMS, 1);
    for waiter in &mut waiters {
        waiter.call.timeout = Some(Duration::ZERO);
        hold(&mut oracle, "pg_advisory_lock", &waiter.call);
        let url = named(&server.url(), &waiter.application);
        let ended = (waiter.on)(&url, &waiter.call);
        let in_vain = matches!(ended, Err(Error::Timeout { .. }));
        assert!(in_vain, "{}: {ended:?}", waiter.application);
    }
    // What stands behind the acquire in one message must not run: only an error ends a message.
    let is_message = |waiter: &Waiter| waiter.call.form == Form::Message;
    let (messages, others): (Vec<_>, Vec<_>) = waiters.into_iter().partition(is_message);
    assert_quiet(&server, &messages, 1);
    assert_quiet(&server, &others, 0);
}

#[test]
fn questions_leave_nothing_in_the_log() {
    let server = server("log_questions");
    let url = named(&server.url(), "asks");
    on_every_driver!(asks(&url));
    assert_eq!(entries(&server), BTreeMap::new());
}

fn asks<B: LockBackend>(backend: &mut B, url: &str) {
    let mut other = Client::connect(url, NoTls).unwrap();
    other.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    let mut free = Lock::new(&mut *backend, 2);
    for _ in 0..3 {
        let mut guard = free.acquire().unwrap();
        assert!(LockGuard::is_held(&mut guard).unwrap());
        assert_eq!(inspect::holders(&mut *guard, 1).unwrap().len(), 1);
        assert_eq!(inspect::waiters(&mut *guard, 1).unwrap().len(), 0);
        assert_eq!(inspect::locks(&mut *guard).unwrap().len(), 2);
        assert_eq!(try_with_lock(&mut *guard, 1, never).unwrap(), None);
        LockGuard::release(guard).unwrap();
    }
    for _ in 0..3 {
        with_transaction_lock(backend, 3, |tx| {
            assert!(!try_transaction_lock(tx, 1)?);
            assert_eq!(inspect::holders(tx, 1)?.len(), 1);
            Ok::<_, Error>(())
        })
        .unwrap();
    }
}

/// Also where a thread uses two connections in turn, and where one moves.
#[test]
fn statements_that_are_gone_are_one_error_in_the_log() {
    let server = server("log_gone");
    let url = named(&server.url(), "gone");
    #[cfg(feature = "postgres")]
    loses_its_statements(|| Client::connect(&url, NoTls).unwrap());
    #[cfg(feature = "diesel")]
    loses_its_statements(|| <diesel::PgConnection as diesel::Connection>::establish(&url).unwrap());
    let told = entries(&server).remove("gone").unwrap_or_default();
    assert!(told.len() <= 4, "{told:?}");
}

/// A transaction begins with its lock, in one message: there a refusal is an error.
#[test]
fn a_session_that_is_not_ours_is_one_error_in_the_log() {
    let server = server("log_not_ours");
    let url = named(&server.url(), "not_ours");
    on_every_driver!(is_not_ours(&url));
    let told = entries(&server).remove("not_ours").unwrap_or_default();
    assert!(told.len() <= 4, "{told:?}");
}

fn is_not_ours<B: LockBackend>(backend: &mut B, _: &str) {
    let lose = "SELECT pg_advisory_lock(8); SELECT set_config('pglock.client', '', false)";
    Lock::new(&mut *backend, 7).batch_execute(lose).unwrap();
    for _ in 0..20 {
        with_transaction_lock(backend, 7, |_| Ok::<_, Error>(())).unwrap();
        let mut lock = Lock::new(&mut *backend, [7, 9]);
        lock.run_in_transaction(|_| Ok::<_, Error>(())).unwrap();
        lock.batch_execute("SELECT 1").unwrap();
        with_transaction_lock(backend, 10, |tx| {
            transaction_lock(&mut *tx, 11)?;
            Lock::new(&mut *tx, 7).batch_execute("SELECT 1")?;
            Lock::new(&mut *tx, [12, 13]).batch_execute("SELECT 1")
        })
        .unwrap();
    }
}

fn loses_its_statements<S: Session + LockBackend<Session = S>>(connect: impl Fn() -> S) {
    let mut pair = [connect(), connect()];
    for connection in &mut pair {
        for _ in 0..3 {
            with_lock(connection, "gone", |_| Ok::<_, Error>(())).unwrap();
        }
    }
    pair[0].send("DISCARD ALL").unwrap();
    for _ in 0..20 {
        for connection in &mut pair {
            with_lock(connection, "gone", |_| Ok::<_, Error>(())).unwrap();
        }
    }
}
