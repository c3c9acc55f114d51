//! What a section of a semaphore holds, and how long.

use std::time::Duration;

use pglock::{Error, Key, Permit, Semaphore, Slots};

use crate::harness::{Harness, on, sql, third_driver};
use crate::oracle::{Oracle, Table, unique_key, unique_name, url, wait_until};

/// The slots that the server shows as held.
pub fn held(oracle: &mut Oracle, slots: &Slots) -> Vec<u32> {
    let all = "SELECT DISTINCT (classid::bigint << 32) | objid::bigint FROM pg_locks \
        WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rows = oracle.client.query(all, &[]).unwrap();
    let slot_of = |row: &postgres::Row| slots.slot_of(&Key::from(row.get::<_, i64>(0)));
    let mut held: Vec<_> = rows.iter().filter_map(slot_of).collect();
    held.sort_unstable();
    held
}

pub fn as_many_as_there_are_slots_are_let_in<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    let slots = Slots::new(&name, 3);
    let mut others = Vec::new();
    H::with(|backend| {
        let mut semaphore = Semaphore::new(backend, &name, 3);
        for taken in 0..3 {
            let permit = semaphore.acquire().unwrap();
            let slot = Permit::slot(&permit);
            let key = &slots.keys()[slot as usize];
            assert_eq!(oracle.held(key), ["ExclusiveLock"]);
            assert_eq!(Permit::lock_info(&permit).keys(), std::slice::from_ref(key));
            assert_eq!(held(&mut oracle, &slots).len(), taken + 1);
            Permit::release(permit).unwrap();
            assert_eq!(held(&mut oracle, &slots).len(), taken);
            let mut other = Oracle::new();
            other.lock(key);
            others.push(other);
        }
        let refused = semaphore.try_run(|_| -> Result<(), Error> { panic!("there is no room") });
        assert_eq!(refused.unwrap(), None);
        assert!(semaphore.try_acquire().unwrap().is_none());
        others.pop();
        wait_for_room(&mut oracle, &slots);
        semaphore.run(|session| sql(session, "SELECT 1")).unwrap();
        let done = semaphore.try_run(|session| sql(session, "SELECT 1"));
        assert_eq!(done.unwrap(), Some(()));
    });
    assert_eq!(held(&mut oracle, &slots).len(), 2);
    oracle.assert_free(slots.queue());
}

/// Waits until a slot is free.
fn wait_for_room(oracle: &mut Oracle, slots: &Slots) {
    wait_until("a free slot", || {
        let held = u32::try_from(held(oracle, slots).len()).unwrap();
        (held < slots.count()).then_some(())
    });
}

/// The server would grant a session its own slot again.
pub fn each_permit_is_another_slot<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    let slots = Slots::new(&name, 3);
    H::with(|backend| {
        let mut semaphore = Semaphore::new(backend, &name, 3);
        let mut first = semaphore.acquire().unwrap();
        for _ in 0..8 {
            let mut semaphore = Semaphore::new(&mut *first, &name, 3);
            let mut second = semaphore.acquire().unwrap();
            {
                let mut semaphore = Semaphore::new(&mut *second, &name, 3);
                let mut third = semaphore.acquire().unwrap();
                assert_eq!(held(&mut oracle, &slots), [0, 1, 2]);
                let mut fourth = Semaphore::new(&mut *third, &name, 3);
                assert!(fourth.try_acquire().unwrap().is_none());
                let timeout = Duration::from_millis(40);
                let refused = fourth.timeout(timeout).acquire().map(drop);
                assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
                assert_eq!(held(&mut oracle, &slots), [0, 1, 2]);
                Permit::release(third).unwrap();
            }
            assert_eq!(held(&mut oracle, &slots).len(), 2);
            assert!(Permit::is_held(&mut second).unwrap());
            Permit::release(second).unwrap();
            assert_eq!(held(&mut oracle, &slots), [Permit::slot(&first)]);
        }
        Permit::release(first).unwrap();
        assert_eq!(held(&mut oracle, &slots), []);
    });
}

/// A process can have a semaphore of one name in each of its databases.
pub fn another_database_has_slots_of_its_own<H: Harness>() {
    let (mut admin, database) = (Oracle::new(), unique_name("database"));
    let create = format!("CREATE DATABASE {database} TEMPLATE template0");
    admin.client.batch_execute(&create).unwrap();
    let name = unique_name("semaphore");
    let other = format!(
        "{}{}dbname={database}",
        url(),
        if url().contains('?') { '&' } else { '?' }
    );
    let mut elsewhere = third_driver::Connection::connect(&other).unwrap();
    let mut semaphore = Semaphore::new(&mut elsewhere, &name, 2);
    let mut first = semaphore.acquire().unwrap();
    let mut nested = Semaphore::new(&mut *first, &name, 2);
    let second = nested.acquire().unwrap();
    H::with(|backend| {
        for count in [2, 2, 1] {
            let mut semaphore = Semaphore::new(&mut *backend, &name, count);
            let mut first = semaphore.acquire().unwrap();
            let mut semaphore = Semaphore::new(&mut *first, &name, count);
            let second = semaphore.try_acquire().unwrap();
            assert_eq!(second.is_some(), count == 2);
        }
    });
    Permit::release(second).unwrap();
    // One slot is taken in this database, the other only in the other database.
    let slots = Slots::new(&name, 2);
    let free = Permit::slot(&first);
    admin.lock(&slots.keys()[1 - free as usize]);
    H::with(|backend| {
        let mut semaphore = Semaphore::new(backend, &name, 2);
        let permit = semaphore.try_acquire().unwrap();
        assert_eq!(permit.as_ref().map(Permit::slot), Some(free));
    });
    let drop = format!("DROP DATABASE {database} WITH (FORCE)");
    admin.client.batch_execute(&drop).unwrap();
}

pub fn an_error_or_a_panic_gives_the_slot_back<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    let slots = Slots::new(&name, 2);
    H::with(|backend| {
        let mut semaphore = Semaphore::new(backend, &name, 2);
        let error = semaphore.run(|_| Err::<(), _>(Error::body("no")));
        assert_eq!(error.unwrap_err().to_string(), "no");
        assert_eq!(held(&mut oracle, &slots), []);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            semaphore.run(|_| -> Result<(), Error> { panic!("the body panics") })
        }));
        assert!(panic.is_err());
        assert_eq!(held(&mut oracle, &slots), []);
        drop(semaphore.acquire().unwrap());
        assert_eq!(held(&mut oracle, &slots), []);
    });
}

pub fn what_a_body_breaks_is_told<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    H::with(|backend| {
        let mut semaphore = Semaphore::new(backend, &name, 2);
        let lost = semaphore.run(|session| sql(session, "SELECT pg_advisory_unlock_all()"));
        let Err(error @ Error::LockLost { .. }) = lost else {
            panic!("{lost:?}")
        };
        let text = error.to_string();
        assert!(
            text.contains(&format!("of semaphore {name:?} (2 slots)")),
            "{text}"
        );
        let open = semaphore.run(|session| sql(session, "BEGIN; SELECT 1"));
        assert!(
            matches!(open, Err(Error::TransactionLeftOpen { .. })),
            "{open:?}"
        );
        assert_eq!(held(&mut oracle, semaphore.slots()), []);
        semaphore.run(|session| sql(session, "SELECT 1")).unwrap();
    });
}

/// BEGIN comes after the slot, and the slot's release after the COMMIT.
pub fn a_transaction_runs_under_a_slot<H: Harness>() {
    let (mut oracle, name, table) = (Oracle::new(), unique_name("semaphore"), Table::new());
    let insert = table.insert();
    H::with(|backend| {
        let mut semaphore = Semaphore::new(&mut *backend, &name, 2);
        let slots = semaphore.slots().clone();
        let done = semaphore.run_in_transaction(|tx| {
            sql(tx, &insert)?;
            assert_eq!(table.rows(), 0, "not before the COMMIT");
            assert_eq!(held(&mut oracle, &slots).len(), 1);
            Ok::<_, Error>(42)
        });
        assert_eq!(done.unwrap(), 42);
        assert_eq!((table.rows(), held(&mut oracle, &slots)), (1, vec![]));

        let error = semaphore.run_in_transaction(|tx| {
            sql(tx, &insert)?;
            Err::<(), _>(Error::body("no"))
        });
        assert_eq!(error.unwrap_err().to_string(), "no");
        let ended = semaphore.run_in_transaction(|tx| sql(tx, "ROLLBACK"));
        assert!(ended.as_ref().is_err_and(Error::is_lock_lost), "{ended:?}");
        assert_eq!((table.rows(), held(&mut oracle, &slots)), (1, vec![]));

        for key in slots.keys() {
            oracle.lock(key);
        }
        let busy = semaphore.try_run_in_transaction(|tx| sql(tx, &insert));
        assert_eq!(busy.unwrap(), None);
        let mut semaphore = semaphore.timeout(Duration::from_millis(20));
        let handled = semaphore.run_in_transaction_or_else(
            |tx| sql(tx, &insert).map(|()| "done"),
            |busy| busy.is_busy().then_some("busy").ok_or(busy),
        );
        assert_eq!(handled.unwrap(), "busy");
        oracle.unlock(&slots.keys()[1]);
        let done = semaphore.try_run_in_transaction(|tx| sql(tx, &insert));
        assert_eq!(done.unwrap(), Some(()));
        assert_eq!(table.rows(), 2);
        on(&mut *backend, &insert).unwrap();
        assert_eq!(table.rows(), 3, "in autocommit again");
    });
}

/// The slot was there before the transaction's snapshot, and is this process's whatever the session has lost.
pub fn a_transaction_runs_under_a_slot_on_any_session<H: Harness>() {
    let (mut oracle, name, other) = (Oracle::new(), unique_name("semaphore"), unique_key());
    let number = other.as_i64().unwrap();
    let no_number = format!("SELECT pg_advisory_lock({number}); SET pglock.client = ''");
    for setting in [
        "SET default_transaction_isolation = 'repeatable read'",
        "SET default_transaction_isolation = serializable",
        &no_number,
    ] {
        H::with(|backend| {
            on(backend, setting).unwrap();
            let mut semaphore = Semaphore::new(backend, &name, 2);
            let slots = semaphore.slots().clone();
            for _ in 0..3 {
                let done = semaphore.run_in_transaction(|tx| {
                    assert_eq!(held(&mut oracle, &slots).len(), 1);
                    sql(tx, "SELECT 1")
                });
                done.unwrap();
            }
            assert_eq!(held(&mut oracle, &slots), []);
        });
    }
}

/// They share the slots that both know.
pub fn two_numbers_of_slots_never_let_in_more_than_the_greater<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    let (few, many) = (Slots::new(&name, 2), Slots::new(&name, 5));
    let mut others = Vec::new();
    H::with(|backend| {
        for taken in 0.. {
            let mut semaphore = Semaphore::new(&mut *backend, &name, 5);
            let Some(permit) = semaphore.try_acquire().unwrap() else {
                assert_eq!(taken, 5);
                break;
            };
            let slot = Permit::slot(&permit) as usize;
            Permit::release(permit).unwrap();
            let mut other = Oracle::new();
            other.lock(&many.keys()[slot]);
            others.push((slot, other));
            let room = (0..2).any(|slot| others.iter().all(|(taken, _)| *taken != slot));
            let mut semaphore = Semaphore::new(&mut *backend, &name, 2);
            assert_eq!(semaphore.try_acquire().unwrap().is_some(), room);
        }
        let mut semaphore = Semaphore::new(&mut *backend, &name, 2);
        assert!(semaphore.try_acquire().unwrap().is_none());
        // Somebody who waits for one of two slots is not in the way of somebody who counts five.
        let mut waiter = Oracle::new();
        waiter.lock(few.queue());
        others.retain(|(slot, _)| *slot != 4);
        oracle.wait_until_free(&many.keys()[4]);
        let mut semaphore = Semaphore::new(&mut *backend, &name, 5);
        assert_eq!(Permit::slot(&semaphore.acquire().unwrap()), 4);
    });
}

/// Neither a lock of the same name nor the settings, even with a label.
pub fn nothing_else_is_touched<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    oracle.lock(&name.clone().into());
    H::with(|backend| {
        on(backend, "SET lock_timeout = '1234s'").unwrap();
        let mut semaphore = Semaphore::new(&mut *backend, &name, 1).labelled(true);
        let slots = semaphore.slots().clone();
        let same = "SELECT 1 / (current_setting('lock_timeout') = '1234s')::int";
        semaphore.run(|session| sql(session, same)).unwrap();
        oracle.lock(&slots.keys()[0]);
        let mut semaphore = semaphore.timeout(Duration::from_millis(5));
        semaphore.acquire().map(drop).unwrap_err();
        on(backend, same).unwrap();
        oracle.unlock(&slots.keys()[0]);
        oracle.assert_free(slots.queue());
    });
}
