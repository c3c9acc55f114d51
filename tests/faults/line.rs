//! A client that stands in line is frozen, as by `kill -STOP`.

use std::thread;

use pglock::{Error, Lock, LockBackend, Semaphore, Slots};

use crate::backends::{Wire, on_every_backend};
use crate::oracle::{Oracle, PATIENCE, connect, unique_key, unique_name};
use crate::places::Line;

on_every_backend!(a_frozen_client_loses_its_place);
on_every_backend!(a_frozen_head_of_a_semaphore_loses_its_place);

/// Lets the client go on, whatever happens.
struct Thaw<'w>(&'w Wire);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.proxy.freeze(false, false);
    }
}

/// It is the head of the line, with or without another key that it had before. The server ends its session.
fn a_frozen_client_loses_its_place<B: LockBackend>(wire: &Wire, fresh: impl Fn() -> B) {
    for keeps in [false, true] {
        let mut keys = [unique_key(), unique_key()];
        keys.sort();
        let (mut holder, mut oracle) = (Oracle::new(), Oracle::new());
        let [first, second] = [Line::of(&keys[0]), Line::of(&keys[1])];
        holder.lock(&keys[1]);
        thread::scope(|threads| {
            threads.spawn(|| {
                let pid = second.wait_for_head(&mut oracle);
                let next = threads.spawn(|| {
                    let mut client = connect();
                    let mut lock = Lock::new(&mut client, &keys).timeout(PATIENCE);
                    lock.run(|_| Ok::<_, Error>(())).unwrap();
                });
                match keeps {
                    true => first.wait_for_head(&mut oracle),
                    false => second.wait_for(&mut oracle, 2),
                };
                let thaw = Thaw(wire);
                wire.proxy.freeze(true, true);
                oracle.wait_for_end(pid);
                holder.unlock(&keys[1]);
                next.join().unwrap();
                drop(thaw);
            });
            let wanted = &keys[usize::from(!keeps)..];
            let mut lock = Lock::new(fresh(), wanted).timeout(2 * PATIENCE);
            let told = lock.run(|_| Ok::<_, Error>(()));
            assert!(
                matches!(told, Err(Error::ConnectionLost { .. })),
                "{keeps}: {told:?}"
            );
        });
        let mut oracle = Oracle::new();
        first.wait_until_gone(&mut oracle);
        second.wait_until_gone(&mut oracle);
        for key in &keys {
            oracle.wait_until_free(key);
        }
    }
}

/// It alone looks for a slot. One becomes free, and it does not look.
fn a_frozen_head_of_a_semaphore_loses_its_place<B: LockBackend>(
    wire: &Wire,
    fresh: impl Fn() -> B,
) {
    let slots = Slots::new(unique_name("semaphore"), 1);
    let (mut holder, mut oracle) = (Oracle::new(), Oracle::new());
    holder.lock(&slots.keys()[0]);
    thread::scope(|threads| {
        threads.spawn(|| {
            oracle.wait_for_holder(slots.queue());
            let pid = oracle.holder(slots.queue());
            let next = threads.spawn(|| {
                let mut semaphore = Semaphore::new(connect(), slots.key(), 1).timeout(PATIENCE);
                semaphore.run(|_| Ok::<_, Error>(())).unwrap();
            });
            oracle.wait_for_waiter(slots.queue());
            let thaw = Thaw(wire);
            wire.proxy.freeze(true, true);
            holder.unlock(&slots.keys()[0]);
            oracle.wait_for_end(pid);
            next.join().unwrap();
            drop(thaw);
        });
        let mut semaphore = Semaphore::new(fresh(), slots.key(), 1).timeout(2 * PATIENCE);
        let told = semaphore.run(|_| Ok::<_, Error>(()));
        assert!(
            matches!(told, Err(Error::ConnectionLost { .. })),
            "{told:?}"
        );
    });
}
