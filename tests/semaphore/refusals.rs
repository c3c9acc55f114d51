//! Refusals, which leave nothing behind.

use pglock::{Error, Permit, Semaphore, Slots};

use crate::harness::{Harness, InTransaction, on};
use crate::oracle::{Oracle, unique_name};
use crate::sections::held;

pub fn no_slots_and_too_many_are_told<H: Harness>() {
    let name = unique_name("semaphore");
    H::with(|backend| {
        for count in [0, Slots::MAX + 1, u32::MAX] {
            let mut semaphore = Semaphore::new(&mut *backend, &name, count);
            let refused = semaphore.acquire().map(drop).unwrap_err();
            assert!(
                matches!(refused, Error::InvalidPermits { .. }),
                "{refused:?}"
            );
            let text = refused.to_string();
            assert!(
                text.contains(&name) && text.contains(&count.to_string()),
                "{text}"
            );
            let refused = semaphore.try_acquire().map(drop);
            assert!(
                matches!(refused, Err(Error::InvalidPermits { .. })),
                "{refused:?}"
            );
        }
        let mut oracle = Oracle::new();
        let mut most = Semaphore::new(&mut *backend, &name, Slots::MAX);
        let slots = most.slots().clone();
        for key in &slots.keys()[1..] {
            oracle.lock(key);
        }
        let mut permit = most.acquire().unwrap();
        assert_eq!(Permit::slot(&permit), 0);
        let mut nested = Semaphore::new(&mut *permit, &name, Slots::MAX);
        let refused = nested.try_acquire().unwrap().is_none();
        assert!(refused);
        Permit::release(permit).unwrap();
    });
}

/// A raw BEGIN, which the driver does not know of.
pub fn a_raw_transaction_is_refused<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    H::with(|backend| {
        on(backend, "BEGIN; SELECT 1").unwrap();
        let mut semaphore = Semaphore::new(&mut *backend, &name, 3);
        let refused = semaphore.acquire().map(drop).unwrap_err();
        assert!(
            matches!(refused, Error::InTransaction { .. }),
            "{refused:?}"
        );
        let text = refused.to_string();
        assert!(text.contains(&name) && !text.contains("Scope"), "{text}");
        assert_eq!(held(&mut oracle, semaphore.slots()), []);
        on(backend, "ROLLBACK").unwrap();
    });
}

pub fn a_transaction_of_the_callers_is_refused<H: InTransaction>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    H::with(|backend| {
        let mut semaphore = Semaphore::new(&mut *backend, &name, 3);
        let refused = semaphore.acquire().map(drop).unwrap_err();
        assert!(
            matches!(refused, Error::InTransaction { .. }),
            "{refused:?}"
        );
        assert!(refused.to_string().contains(&name), "{refused}");
        assert_eq!(held(&mut oracle, semaphore.slots()), []);
        on(backend, "SELECT 1").unwrap();
    });
}

/// A pooler gives this process a server session that another process has used.
pub fn a_session_that_holds_a_slot_for_another_process_is_refused<H: Harness>() {
    let (mut oracle, name) = (Oracle::new(), unique_name("semaphore"));
    let slots = Slots::new(&name, 2);
    let key = slots.keys()[1].as_i64().unwrap();
    H::with(|backend| {
        on(backend, "SET pglock.client = '0123456789abcdef'").unwrap();
        on(backend, &format!("SELECT pg_advisory_lock({key})")).unwrap();
        let mut semaphore = Semaphore::new(&mut *backend, &name, 2);
        for _ in 0..2 {
            let refused = semaphore.acquire().map(drop);
            assert!(
                matches!(refused, Err(Error::SharedSession { .. })),
                "{refused:?}"
            );
            assert_eq!(held(&mut oracle, &slots), [1]);
        }
        on(backend, &format!("SELECT pg_advisory_unlock({key})")).unwrap();
        let mut semaphore = Semaphore::new(&mut *backend, &name, 2);
        semaphore.run(|_| Ok::<_, Error>(())).unwrap();
        assert_eq!(held(&mut oracle, &slots), []);
    });
}
