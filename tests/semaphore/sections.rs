//! What a section of a semaphore holds, and for how long.

use pglock::{Error, Permit, Semaphore, Slots};

use crate::harness::{Harness, InTransaction, on, sql};
use crate::oracle::{Oracle, unique_name};

/// The slots that the server shows as held.
pub fn held(oracle: &mut Oracle, slots: &Slots) -> Vec<u32> {
    let held = |key: &&pglock::Key| !oracle.held(key).is_empty();
    let keys: Vec<_> = slots.keys().iter().filter(held).collect();
    keys.into_iter()
        .filter_map(|key| slots.slot_of(key))
        .collect()
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
            let free = held(&mut oracle, &slots)
                .into_iter()
                .find(|held| *held == slot);
            assert_eq!(free, Some(slot));
            Permit::release(permit).unwrap();
            assert_eq!(held(&mut oracle, &slots).len(), taken);
            let mut other = Oracle::new();
            other.lock(&slots.keys()[slot as usize]);
            others.push(other);
        }
        let mut ran = false;
        let refused = semaphore.try_run(|_| {
            ran = true;
            Ok::<_, Error>(())
        });
        assert_eq!(refused.unwrap(), None);
        assert!(!ran);
        others.pop();
        drop(others);
        semaphore.run(|session| sql(session, "SELECT 1")).unwrap();
    });
    assert_eq!(held(&mut oracle, &slots), []);
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
