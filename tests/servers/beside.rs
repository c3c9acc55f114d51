//! What others do to the whole database while pglock waits.

use std::thread;
use std::time::Duration;

use pglock::{Error, LockBackend, with_lock};
use postgres::{Client, NoTls};

use super::forms::{Call, DRIVERS, FORMS, Form};
use super::on_server;

/// No wait outside a transaction of the caller's keeps a snapshot for long, nor does any that was asked to
/// keep its place.
#[test]
fn an_index_is_built_concurrently_beside_waiters_of_every_form() {
    let server = on_server("index", "max_connections = 300\n");
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client.batch_execute("CREATE TABLE work (n int)").unwrap();
    let forms = FORMS
        .iter()
        .filter(|form| !form.is_in_callers_transaction() && **form != Form::KeptPlace);
    let calls = forms.flat_map(|form| {
        let call = move |(driver, on)| (on, Call::new(*form, format!("{form:?} {driver}")));
        DRIVERS.iter().map(|(driver, on)| (*driver, *on)).map(call)
    });
    let calls: Vec<_> = calls.collect();
    for key in calls.iter().flat_map(|(_, call)| call.contended()) {
        let number = key.as_i64().unwrap();
        let lock = "SELECT pg_advisory_lock($1)";
        client.execute(lock, &[&number]).unwrap();
    }
    let url = &server.url();
    thread::scope(|threads| {
        // Two for each lock: one of them stands in line.
        let waits = calls.iter().chain(&calls);
        let waits: Vec<_> = waits
            .map(|(on, call)| threads.spawn(move || on(url, call)))
            .collect();
        let mut builder = Client::connect(url, NoTls).unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pglock waited%'";
        let mut count = 0;
        while count < i64::try_from(waits.len()).unwrap() {
            count = builder.query_one(waiting, &[]).unwrap().get(0);
            thread::sleep(Duration::from_millis(20)); // between two looks
        }
        builder
            .batch_execute("SET statement_timeout = '60s'")
            .unwrap();
        for _ in 0..3 {
            builder
                .batch_execute("CREATE INDEX CONCURRENTLY ON work (n)")
                .unwrap();
        }
        let unlock = "SELECT pg_advisory_unlock_all()";
        client.execute(unlock, &[]).unwrap();
        for wait in waits {
            wait.join().unwrap().unwrap();
        }
    });
}

/// It wants to lock what pglock's own questions read: that is no deadlock.
#[test]
fn a_holder_that_rewrites_the_servers_catalog_is_waited_for() {
    let server = on_server("rewrite", "");
    on_every_driver!(waits_for_a_rewrite(&server.url()));
}

fn waits_for_a_rewrite<B: LockBackend>(backend: &mut B, url: &str) {
    for _ in 0..3 {
        let mut holder = Client::connect(url, NoTls).unwrap();
        holder.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
        thread::scope(|threads| {
            threads.spawn(|| {
                let mut looker = Client::connect(url, NoTls).unwrap();
                let waited = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pglock waited%' \
                    AND state = 'active' AND pid <> pg_backend_pid())";
                while !looker.query_one(waited, &[]).unwrap().get::<_, bool>(0) {}
                for _ in 0..20 {
                    holder.batch_execute("VACUUM FULL pg_database").unwrap();
                }
                holder.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
            });
            // What holds a lock looks for deadlocks.
            with_lock(backend, 2, |conn| {
                with_lock(conn, 1, |_| Ok::<_, Error>(()))
            })
            .unwrap();
        });
    }
}
