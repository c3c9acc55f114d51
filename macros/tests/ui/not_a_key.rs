//! What is not a key is refused with a hint on what to write instead.

use pglock::{Error, IntoKey, IntoTarget, LockBackend, Row, with_lock};

fn sell<B: LockBackend>(backend: &mut B, id: i32) -> Result<(), Error> {
    with_lock(backend, id, |_| Ok(()))
}

fn key(_: impl IntoKey) {}

fn lock(_: impl IntoTarget) {}

fn main() {
    key(7_u64);
    key('A');
    key(Row::new("seat", "id", 42));
    lock(7_u32);
}
