//! What is measured: each operation with pglock, and the ways to do it without.

use std::hint::black_box;
use std::time::Duration;

use pglock::{Error, Lock, LockBackend, with_lock, with_transaction_lock};

use crate::support::by_hand::Driver;
use crate::support::{KEY, Variant, variant};

const TIMEOUT: Duration = Duration::from_secs(10);

pub const SESSION: &str = "session lock";
pub const TIMED: &str = "session lock, timeout";
pub const TRANSACTION: &str = "transaction lock";
pub const SEVERAL: &str = "4 keys";

pub const PGLOCK: &str = "pglock";
pub const BARE: &str = "bare lock and unlock by hand";
pub const USUAL: &str = "usual code";
pub const BY_HAND: &str = "BEGIN, lock and COMMIT by hand";
pub const ONE_BY_ONE: &str = "bare ones by hand, one by one";
pub const UNTIMED: &str = "pglock without the timeout";

/// What is done, and in which ways.
pub type Operations<B> = [(&'static str, Vec<Variant<B>>); 4];

pub fn operations<B>() -> Operations<B>
where
    B: LockBackend<Session: Driver> + 'static,
{
    let session = vec![
        variant(PGLOCK, |backend: &mut B| {
            with_lock(backend, KEY, body).unwrap();
        }),
        variant(BARE, by_hand([bare("lock", KEY), bare("unlock", KEY)])),
        variant(USUAL, |backend: &mut B| {
            let mut conn = backend.session().unwrap();
            conn.query_key("SELECT pg_advisory_lock($1)");
            conn.query_key("SELECT pg_advisory_unlock($1)");
        }),
    ];
    let timed = vec![
        variant(PGLOCK, |backend: &mut B| {
            Lock::new(backend, KEY).timeout(TIMEOUT).run(body).unwrap();
        }),
        variant(UNTIMED, |backend: &mut B| {
            with_lock(backend, KEY, body).unwrap();
        }),
        variant(USUAL, |backend: &mut B| {
            let mut conn = backend.session().unwrap();
            conn.simple("SET lock_timeout = '10s'");
            conn.query_key("SELECT pg_advisory_lock($1)");
            conn.simple("RESET lock_timeout");
            conn.query_key("SELECT pg_advisory_unlock($1)");
        }),
    ];
    let transaction = vec![
        variant(PGLOCK, |backend: &mut B| {
            with_transaction_lock(backend, KEY, |_| Ok::<_, Error>(())).unwrap();
        }),
        variant(
            BY_HAND,
            by_hand([
                "BEGIN".to_owned(),
                bare("xact_lock", KEY),
                "COMMIT".to_owned(),
            ]),
        ),
        variant(USUAL, |backend: &mut B| {
            let mut conn = backend.session().unwrap();
            conn.transaction_on_key("SELECT pg_advisory_xact_lock($1)");
        }),
    ];
    let keys = [KEY, KEY + 1, KEY + 2, KEY + 3];
    let locks = keys.map(|key| bare("lock", key));
    let unlocks = keys.map(|key| bare("unlock", key));
    let several = vec![
        variant(PGLOCK, move |backend: &mut B| {
            Lock::new(backend, keys).run(body).unwrap();
        }),
        variant("pglock, one in the other", move |backend: &mut B| {
            nested(backend, &keys).unwrap();
        }),
        variant(ONE_BY_ONE, by_hand([locks, unlocks].concat())),
    ];
    [
        (SESSION, session),
        (TIMED, timed),
        (TRANSACTION, transaction),
        (SEVERAL, several),
    ]
}

fn body<S>(conn: &mut S) -> Result<(), Error> {
    black_box(conn);
    Ok(())
}

fn nested<B: LockBackend>(backend: &mut B, keys: &[i64]) -> Result<(), Error> {
    match keys {
        [] => Ok(()),
        [key, others @ ..] => with_lock(backend, *key, |conn| nested(conn, others)),
    }
}

fn bare(function: &str, key: i64) -> String {
    format!("SELECT pg_advisory_{function}('{key}')")
}

fn by_hand<B>(messages: impl IntoIterator<Item = String>) -> impl FnMut(&mut B) + 'static
where
    B: LockBackend<Session: Driver>,
{
    let messages: Vec<_> = messages.into_iter().collect();
    move |backend| {
        let mut conn = backend.session().unwrap();
        for message in &messages {
            conn.simple(message);
        }
    }
}
