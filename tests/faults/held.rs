//! A lock that is held for work elsewhere, and what becomes of it.

use std::sync::mpsc::channel;
use std::time::Duration;

use pglock::driver::Session;
use pglock::held::Held;
use pglock::{Error, Key, Lock, LockBackend};

use crate::backends::{Wire, on_every_backend, terminate};
use crate::oracle::{Oracle, PATIENCE, unique_key};

const LEASE: Duration = Duration::from_secs(1);

/// Whether the reason is told: the server's, which libpq does not pass on.
fn says_why(text: &str) -> bool {
    [
        "administrator command)",
        "closed the connection unexpectedly)",
    ]
    .iter()
    .any(|reason| text.ends_with(reason))
}

on_every_backend!(a_holder_that_is_cut_off_learns_it_before_the_next_one_is_in);
on_every_backend!(a_holder_whose_session_is_ended_is_told);
on_every_backend!(an_error_is_no_sign_of_the_session);
on_every_backend!(a_release_that_finds_the_lock_lost_tells_it_too);
on_every_backend!(a_holders_connection_is_left_as_it_was);

fn hold<B: LockBackend + Send + 'static>(backend: B, key: &Key) -> Held {
    let held = Lock::new(backend, key).lease(LEASE).hold().unwrap();
    assert!(!held.is_lost());
    Oracle::new().holder(key);
    held
}

fn a_holder_that_is_cut_off_learns_it_before_the_next_one_is_in<B>(
    wire: &Wire,
    make: impl Fn() -> B,
) where
    B: LockBackend + Send + 'static,
{
    let key = unique_key();
    let held = hold(make(), &key);
    let (lost, is_told) = channel();
    held.on_loss(move |why| lost.send(why.to_string()).unwrap());
    assert!(!held.wait(LEASE * 2), "it is kept while it is not cut off");
    wire.proxy.freeze(true, true);
    let mut next = Oracle::new();
    next.lock(&key);
    assert!(held.is_lost(), "two hold it");
    assert_eq!(held.left(), Duration::ZERO);
    assert!(held.wait(PATIENCE));
    let why = is_told.recv_timeout(PATIENCE).unwrap();
    assert!(why.contains("was lost before its release"), "{why}");
    let lost = held.release();
    assert!(matches!(lost, Err(Error::LockLost { .. })), "{lost:?}");
    wire.proxy.freeze(false, false);
    next.unlock(&key);
}

/// The server has ended the session, and a pooler answers in its place.
fn an_error_is_no_sign_of_the_session<B>(wire: &Wire, make: impl Fn() -> B)
where
    B: LockBackend + Send + 'static,
{
    let key = unique_key();
    let held = hold(make(), &key);
    wire.proxy.stand_in();
    terminate(&wire.application);
    Oracle::new().lock(&key);
    assert!(held.wait(PATIENCE), "two hold it");
    let lost = held.release();
    assert!(matches!(lost, Err(Error::LockLost { .. })), "{lost:?}");
}

fn a_holder_whose_session_is_ended_is_told<B>(wire: &Wire, make: impl Fn() -> B)
where
    B: LockBackend + Send + 'static,
{
    let key = unique_key();
    let lock = Lock::new(make(), &key).lease(LEASE * 1_000);
    let (lost, is_told) = channel();
    let outcome = lock.hold_while(|held| {
        held.on_loss(move |why| lost.send(why.to_string()).unwrap());
        assert!((LEASE * 500..LEASE * 900).contains(&held.left()));
        terminate(&wire.application);
        assert!(held.wait(PATIENCE) && held.is_lost());
        assert_eq!(held.left(), Duration::ZERO);
        let why = is_told.recv_timeout(PATIENCE).unwrap();
        assert!(says_why(&why), "{why}");
        Ok::<_, Error>(())
    });
    let Err(lost @ Error::LockLost { .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(says_why(&lost.to_string()), "{lost}");
}

/// Before the keeper has looked at its connection.
fn a_release_that_finds_the_lock_lost_tells_it_too<B>(wire: &Wire, make: impl Fn() -> B)
where
    B: LockBackend + Send + 'static,
{
    for drops in [false, true] {
        let key = unique_key();
        let held = hold(make(), &key);
        let (lost, is_told) = channel();
        held.on_loss(move |_| lost.send(()).unwrap());
        terminate(&wire.application);
        match drops {
            true => drop(held),
            false => {
                let lost = held.release();
                assert!(matches!(lost, Err(Error::LockLost { .. })), "{lost:?}");
            }
        }
        is_told.recv_timeout(PATIENCE).unwrap();
    }
}

fn a_holders_connection_is_left_as_it_was<B>(_: &Wire, make: impl Fn() -> B)
where
    B: LockBackend + Send + 'static,
{
    const SETTINGS: &str = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) AS line FROM pg_settings \
        WHERE name LIKE '%timeout' OR name LIKE 'tcp%'";
    const SESSION: &str = "SELECT pg_backend_pid() || ' ' || count(*) AS line FROM pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    let key = unique_key();
    let look = || {
        let mut backend = make();
        let mut session = backend.session().unwrap();
        [SETTINGS, SESSION].map(|question| session.query(question).unwrap())
    };
    let before = look();
    hold(make(), &key).release().unwrap();
    drop(hold(make(), &key));
    let after = look();
    assert_eq!(after[0], before[0]);
    // A pool still has the very same session.
    if std::any::type_name::<B>().contains("Pool") {
        assert_eq!(after[1], before[1]);
    }
}
