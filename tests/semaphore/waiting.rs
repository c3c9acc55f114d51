//! Who waits, who is next, and what ends the wait.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use pglock::{Error, LockBackend, Permit, Semaphore, Slots, StopToken};

use crate::harness::{Harness, sql, third_driver};
use crate::oracle::{Oracle, PATIENCE, Table, unique_key, unique_name, url, wait_until};
use crate::sections::held;

/// Another session, on the driver that needs no feature.
pub fn connect() -> third_driver::Connection {
    third_driver::Connection::connect(&url()).unwrap()
}

/// Holds all slots.
pub fn fill(oracle: &mut Oracle, slots: &Slots) {
    let keys = slots.keys().iter().map(|key| key.as_i64().unwrap());
    let locks = keys.map(|key| format!("SELECT pg_advisory_lock({key});"));
    let locks = locks.collect::<String>();
    oracle.client.batch_execute(&locks).unwrap();
}

pub fn who_waits_is_let_in_by_a_release<H: Harness>() {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    let slots = Slots::new(unique_name("semaphore"), 3);
    fill(&mut holder, &slots);
    H::with(|backend| {
        for freed in [0, 2, 1, 1] {
            let key = &slots.keys()[freed];
            thread::scope(|threads| {
                threads.spawn(|| {
                    oracle.wait_for_holder(slots.queue());
                    holder.unlock(key);
                });
                let mut semaphore = Semaphore::new(&mut *backend, slots.key(), 3).timeout(PATIENCE);
                let permit = semaphore.acquire().unwrap();
                assert_eq!(Permit::slot(&permit) as usize, freed);
                Oracle::new().assert_free(slots.queue());
                Permit::release(permit).unwrap();
            });
            holder.lock(key);
        }
    });
}

/// Longer than a slice. The statement shows how long it has waited.
pub fn a_long_wait_ends_with_a_slot<H: Harness>() {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    let slots = Slots::new(unique_name("semaphore"), 2);
    fill(&mut holder, &slots);
    H::with(|backend| {
        thread::scope(|threads| {
            threads.spawn(|| {
                let second_slice = "SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid) \
                    WHERE a.query LIKE '/*pglock waited%' AND l.objid = $1";
                let (_, objid, _) = slots.queue().pg_locks();
                wait_until("the second slice of a wait", || {
                    let waits = oracle.client.query(second_slice, &[&objid]).unwrap();
                    (!waits.is_empty()).then_some(())
                });
                holder.unlock(&slots.keys()[1]);
            });
            let mut semaphore = Semaphore::new(backend, slots.key(), 2);
            semaphore.run(|session| sql(session, "SELECT 1")).unwrap();
        });
    });
}

/// Under the wait of the head, which looks again and again, and of one behind it.
pub fn an_index_is_built_concurrently_under_a_wait<H: Harness>() {
    let (mut oracle, mut holder, table) = (Oracle::new(), Oracle::new(), Table::new());
    let slots = Slots::new(unique_name("semaphore"), 1);
    fill(&mut holder, &slots);
    let run = |connection: &mut third_driver::Connection| {
        let mut semaphore = Semaphore::new(connection, slots.key(), 1);
        semaphore.run(|_| Ok::<_, Error>(())).unwrap();
    };
    H::with(|backend| {
        thread::scope(|threads| {
            threads.spawn(|| run(&mut connect()));
            oracle.wait_for_holder(slots.queue());
            threads.spawn(|| {
                Oracle::new().wait_for_waiter(slots.queue());
                let index = format!("CREATE INDEX CONCURRENTLY ON {} (n)", table.name);
                holder.client.batch_execute(&index).unwrap();
                holder.unlock(&slots.keys()[0]);
            });
            let mut semaphore = Semaphore::new(backend, slots.key(), 1);
            semaphore.run(|_| Ok::<_, Error>(())).unwrap();
        });
    });
}

/// The first is at the head, and the others are behind it in the server's queue, in the order in which they
/// came. That order lasts for a slice, so if a machine takes longer to line them up, they line up again.
pub fn those_who_wait_are_let_in_as_they_came<H: Harness>() {
    H::with(|backend| {
        wait_until("three who wait for less than a slice", || {
            let start = Instant::now();
            let order = three_who_wait(backend);
            (start.elapsed() < Duration::from_millis(500)).then(|| {
                assert_eq!(order, [0, 1, 2]);
            })
        });
    });
}

/// The order in which three get in, each of which comes when the ones before it wait.
fn three_who_wait<B: LockBackend>(backend: &mut B) -> Vec<usize> {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    let slots = Slots::new(unique_name("semaphore"), 1);
    fill(&mut holder, &slots);
    let (come, came) = channel();
    let mut connections = [connect(), connect()];
    thread::scope(|threads| {
        let others = threads.spawn(|| {
            // A first attempt holds the key shared for a moment, and is not in the queue yet.
            wait_until("a head of the queue", || {
                let held = oracle.held(slots.queue());
                (held == ["ExclusiveLock"]).then_some(())
            });
            for (connection, number) in connections.iter_mut().zip(1..) {
                let (come, slots) = (come.clone(), &slots);
                threads.spawn(move || {
                    let mut semaphore = Semaphore::new(connection, slots.key(), 1);
                    let entered = semaphore.run(|_| come.send(number).map_err(Error::body));
                    entered.unwrap();
                });
                oracle.wait_for_waiters(slots.queue(), number);
            }
            holder.unlock(&slots.keys()[0]);
        });
        let mut semaphore = Semaphore::new(backend, slots.key(), 1);
        let entered = semaphore.run(|_| {
            come.send(0).map_err(Error::body)?;
            others.join().unwrap();
            Ok::<_, Error>(())
        });
        entered.unwrap();
    });
    drop(come);
    came.iter().collect()
}

/// A free slot belongs to the head of the queue, which finds it at its next look.
pub fn nobody_overtakes_who_waits<H: Harness>() {
    let mut head = Oracle::new();
    let slots = Slots::new(unique_name("semaphore"), 3);
    head.lock(slots.queue());
    H::with(|backend| {
        let mut semaphore = Semaphore::new(&mut *backend, slots.key(), 3);
        assert!(semaphore.try_acquire().unwrap().is_none());
        thread::scope(|threads| {
            threads.spawn(|| {
                Oracle::new().wait_for_waiter(slots.queue());
                head.unlock(slots.queue());
            });
            semaphore.run(|_| Ok::<_, Error>(())).unwrap();
        });
    });
}

pub fn a_timeout_names_the_holders_and_leaves_nothing<H: Harness>() {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    let slots = Slots::new(unique_name("semaphore"), 3);
    let application = unique_name("app");
    let set = format!("SET application_name = '{application}'");
    holder.client.batch_execute(&set).unwrap();
    fill(&mut holder, &slots);
    H::with(|backend| {
        for (timeout, named) in [(0, true), (1, true), (30, true), (900, true), (30, false)] {
            let mut semaphore = Semaphore::new(&mut *backend, slots.key(), 3)
                .timeout(Duration::from_millis(timeout))
                .name_holders(named);
            let told = semaphore.acquire().map(drop).unwrap_err();
            let Error::Timeout { holders, .. } = &told else {
                panic!("{told:?}")
            };
            assert_eq!(holders.len(), if named { 3 } else { 0 });
            let text = told.to_string();
            let name = format!("semaphore {} (3 slots)", slots.key());
            assert!(text.contains(&name), "{text}");
            assert_eq!(text.contains(&application), named, "{text}");
            oracle.assert_free(slots.queue());
            for key in slots.keys() {
                oracle.holder(key);
            }
        }
    });
}

pub fn a_token_ends_the_wait<H: Harness>() {
    let (mut oracle, mut holder) = (Oracle::new(), Oracle::new());
    let slots = Slots::new(unique_name("semaphore"), 2);
    fill(&mut holder, &slots);
    H::with(|backend| {
        let token = StopToken::new();
        thread::scope(|threads| {
            threads.spawn(|| {
                oracle.wait_for_holder(slots.queue());
                token.stop();
            });
            let mut semaphore = Semaphore::new(&mut *backend, slots.key(), 2).stop_on(&token);
            let stopped = semaphore.acquire().map(drop);
            assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
        });
        oracle.assert_free(slots.queue());
    });
}

pub fn the_sessions_own_lock_timeout_ends_the_wait<H: Harness>() {
    let mut holder = Oracle::new();
    let slots = Slots::new(unique_name("semaphore"), 2);
    H::with(|backend| {
        for (at_head, setting) in [(true, "20ms"), (false, "20ms"), (true, "900ms")] {
            let what = if at_head {
                slots.keys()
            } else {
                std::slice::from_ref(slots.queue())
            };
            what.iter().for_each(|key| holder.lock(key));
            let set = format!("SET lock_timeout = '{setting}'");
            crate::harness::on(backend, &set).unwrap();
            let mut semaphore = Semaphore::new(&mut *backend, slots.key(), 2);
            let told = semaphore.acquire().map(drop);
            let timeout = matches!(told, Err(Error::Timeout { timeout: None, .. }));
            assert!(timeout, "{setting}: {told:?}");
            what.iter().for_each(|key| holder.unlock(key));
        }
    });
}

/// The session that holds the only slot waits for it.
pub fn a_wait_for_oneself_is_told<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    H::with(|backend| {
        let mut semaphore = Semaphore::new(backend, &name, 1);
        let mut permit = semaphore.acquire().unwrap();
        let mut inner = Semaphore::new(&mut *permit, &name, 1);
        let told = inner.acquire().map(drop);
        assert!(matches!(told, Err(Error::Deadlock { .. })), "{told:?}");
        assert_eq!(held(&mut oracle, inner.slots()), [0]);
        Permit::release(permit).unwrap();
    });
}

/// If both holders wait for what this session holds, that is a deadlock. As long as one of them does not,
/// there is none.
pub fn a_deadlock_with_all_holders_is_told<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let slots = Slots::new(unique_name("semaphore"), 2);
    let mut holders = [Oracle::new(), Oracle::new()];
    for (holder, key) in holders.iter_mut().zip(slots.keys()) {
        holder.lock(key);
    }
    H::with(|backend| {
        pglock::with_lock(backend, &key, |session| {
            thread::scope(|threads| {
                let [first, second] = &mut holders;
                threads.spawn(|| [Oracle::lock, Oracle::unlock].map(|call| call(first, &key)));
                oracle.wait_for_waiters(&key, 1);
                let mut semaphore = Semaphore::new(&mut *session, slots.key(), 2)
                    .timeout(Duration::from_millis(1_500));
                let told = semaphore.acquire().map(drop);
                assert!(matches!(told, Err(Error::Timeout { .. })), "{told:?}");
                threads.spawn(|| [Oracle::lock, Oracle::unlock].map(|call| call(second, &key)));
                oracle.wait_for_waiters(&key, 2);
                let mut semaphore = Semaphore::new(&mut *session, slots.key(), 2);
                let told = semaphore.acquire().map(drop);
                assert!(matches!(told, Err(Error::Deadlock { .. })), "{told:?}");
                sql(session, "SELECT pg_advisory_unlock_all()").unwrap(); // so that they go on
            });
            Ok::<_, Error>(())
        })
        .unwrap_err();
    });
}
