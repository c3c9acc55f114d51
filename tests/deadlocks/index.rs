//! CREATE INDEX CONCURRENTLY waits for the transactions of others: it can be in a cycle.

use std::sync::mpsc::channel;
use std::thread;

use pglock::{Error, Key, Lock, Semaphore, Slots, with_lock, with_transaction_lock};

use crate::harness::{Harness, on, sql};
use crate::oracle::{Oracle, Table, connect, unique_key, unique_name, wait_until};
use crate::parties::{Ended, waits};

fn build(table: &Table) -> String {
    format!(
        "SET statement_timeout = '60s'; CREATE INDEX CONCURRENTLY ON {} (n)",
        table.name
    )
}

/// A has written to a table, and waits for a key in its transaction; B holds the key, and builds an index on
/// the table: one of the two is told.
pub fn an_index_whose_builder_holds_what_a_writer_wants<H: Harness + 'static>() {
    let (mut oracle, key, table) = (Oracle::new(), unique_key(), Table::new());
    let name = unique_name("writer");
    let (held, holds) = channel();
    let (built, writer) = thread::scope(|threads| {
        let (key, table, name) = (&key, &table, &name);
        let builder = threads.spawn(move || {
            let mut client = connect();
            client
                .batch_execute("SET statement_timeout = '60s'")
                .unwrap();
            with_lock(&mut client, key, |client| {
                held.send(()).unwrap();
                wait_until("the writer's wait", || {
                    waits(&mut oracle, name).then_some(())
                });
                let build = format!("CREATE INDEX CONCURRENTLY ON {} (n)", table.name);
                Ok::<_, Error>(
                    client
                        .batch_execute(&build)
                        .map_err(|error| error.code().map(|code| code.code().to_owned())),
                )
            })
            .unwrap()
        });
        holds.recv().unwrap();
        let writer = H::with(|backend| {
            on(backend, &format!("SET application_name = '{name}'")).unwrap();
            let written = with_transaction_lock(backend, unique_key(), |tx| {
                sql(tx, &table.insert())?;
                Lock::new(tx, key).acquire().map(drop)
            });
            Ended::from(written)
        });
        (builder.join().unwrap(), writer)
    });
    let told = match &built {
        Ok(()) => writer == Ended::Deadlock,
        Err(code) => writer == Ended::Well && code.as_deref() == Some("40P01"),
    };
    assert!(told, "the index: {built:?}, the writer: {writer:?}");
}

type Wait<H> = fn(&mut <H as Harness>::Backend<'_>, &Key, &Slots) -> Result<(), Error>;

/// No wait outside a transaction of the caller's keeps a snapshot for long.
pub fn an_index_whose_builder_holds_what_others_wait_for<H: Harness + 'static>() {
    let (key, table) = (unique_key(), Table::new());
    let slots = Slots::new(unique_name("slots"), 1);
    let waiters: [(&str, Wait<H>); 5] = [
        ("section", |backend, key, _| {
            with_lock(backend, key, |_| Ok(()))
        }),
        ("several", |backend, key, _| {
            Lock::new(backend, [key.clone(), unique_key()]).run(|_| Ok(()))
        }),
        ("transaction", |backend, key, _| {
            with_transaction_lock(backend, key, |_| Ok(()))
        }),
        ("message", |backend, key, _| {
            Lock::new(backend, key).batch_execute("SELECT 1")
        }),
        ("slot", |backend, _, slots| {
            Semaphore::new(backend, slots.key(), 1).run(|_| Ok(()))
        }),
    ];
    let mut oracle = Oracle::new();
    let mut builder = Oracle::new();
    builder.lock(&key);
    builder.lock(&slots.keys()[0]);
    thread::scope(|threads| {
        let mut waiting = Vec::new();
        for (form, wait) in waiters {
            let (key, slots) = (&key, &slots);
            let name = unique_name(form);
            let application = name.clone();
            waiting.push((
                name,
                threads.spawn(move || {
                    H::with(|backend| {
                        on(backend, &format!("SET application_name = '{application}'")).unwrap();
                        wait(backend, key, slots)
                    })
                }),
            ));
        }
        for (name, _) in &waiting {
            wait_until("a waiter", || {
                let query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 \
                    AND query LIKE '%pglock waited%')";
                let row = oracle.client.query_one(query, &[name]);
                row.unwrap().get::<_, bool>(0).then_some(())
            });
        }
        for statement in build(&table).split("; ") {
            builder.client.batch_execute(statement).unwrap();
        }
        builder
            .client
            .batch_execute("SELECT pg_advisory_unlock_all()")
            .unwrap();
        for (name, waiter) in waiting {
            let ended = waiter.join().unwrap();
            assert!(ended.is_ok(), "{name}: {ended:?}");
        }
    });
}
