//! A timeout means *not held*, and leaves the caller's `lock_timeout` as it was.
//!
//! `lock_timeout` can fire at the very moment at which the server grants the lock, so one timeout proves
//! nothing: these tests check each of several hundred from a second connection. The full number takes
//! some minutes:
//!
//! ```text
//! PGLOCK_TIMEOUTS=10000 scripts/with-postgres cargo test --all-features --test timeouts
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pglock::{Error, Key, Lock, key, transaction_lock, with_lock};
use postgres::error::SqlState;
use postgres::{Client, GenericClient, NoTls, Statement};

const TIMEOUT: Duration = Duration::from_millis(1);
const LATE: Duration = Duration::from_secs(60);

/// How many timeouts each test goes through.
fn timeouts() -> usize {
    std::env::var("PGLOCK_TIMEOUTS").map_or(700, |number| number.parse().unwrap())
}

fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL: run the tests under scripts/with-postgres")
}

fn connect() -> Client {
    Client::connect(&url(), NoTls).unwrap()
}

fn key_of(test: &str) -> Key {
    key!("timeouts:{test}:{}", std::process::id())
}

/// Runs `work` while another session acquires and releases the key again and again, in the rhythm of the
/// timeout, so that grants and timeouts coincide.
fn under_contention(key: &Key, work: impl FnOnce()) {
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let key = key.as_i64().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut holder = connect();
            // So that a lock which `work` leaks fails the test instead of hanging it.
            holder.batch_execute("SET lock_timeout = '1s'").unwrap();
            while !stop.load(Ordering::Relaxed) {
                let hold = format!(
                    "SELECT pg_advisory_lock('{key}'); \
                     SELECT pg_sleep(0.0006 + 0.0005 * random()); \
                     SELECT pg_advisory_unlock('{key}')"
                );
                let _ = holder.batch_execute(&hold);
            }
        });
        let _stop = StopOnDrop(&stop); // also when `work` panics
        work();
    });
}

/// What `pg_locks` shows to a second connection.
struct Observer {
    client: Client,
    held: Statement,
    pid: i32,
}

impl Observer {
    /// For the session with this `pg_backend_pid()`.
    fn of(pid: i32) -> Self {
        let mut client = connect();
        let held = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = $1";
        let held = client.prepare(held).unwrap();
        Self { client, held, pid }
    }

    fn of_client(client: &mut Client) -> Self {
        let row = client.query_one("SELECT pg_backend_pid()", &[]).unwrap();
        Self::of(row.get(0))
    }

    fn sees_a_lock(&mut self) -> bool {
        !self
            .client
            .query(&self.held, &[&self.pid])
            .unwrap()
            .is_empty()
    }
}

/// Makes attempts under contention until enough of them have timed out; after each that did, the
/// session must hold nothing.
fn never_held(
    key: &Key,
    mut observer: Observer,
    mut attempt: impl FnMut(&mut dyn FnMut(Result<(), Error>)),
) {
    let (mut timed_out, mut attempts) = (0, 0);
    under_contention(key, || {
        while timed_out < timeouts() {
            attempts += 1;
            assert!(
                attempts < 100 * timeouts(),
                "only {timed_out} timeouts: no contention"
            );
            attempt(&mut |outcome| match outcome {
                Ok(()) => {}
                Err(Error::Timeout { .. }) => {
                    timed_out += 1;
                    assert!(
                        !observer.sees_a_lock(),
                        "held after timeout number {timed_out}"
                    );
                }
                Err(error) => panic!("{error}"),
            });
        }
    });
}

#[test]
fn after_a_timeout_of_a_session_lock_nothing_is_held() {
    let (key, mut client) = (key_of("session"), connect());
    never_held(&key, Observer::of_client(&mut client), |outcome| {
        outcome(
            Lock::new(&mut client, &key)
                .timeout(TIMEOUT)
                .run(|_| Ok(())),
        );
    });
}

#[test]
fn after_a_timeout_in_a_transaction_it_holds_nothing() {
    let (key, mut client) = (key_of("transaction"), connect());
    never_held(&key, Observer::of_client(&mut client), |outcome| {
        let mut transaction = client.transaction().unwrap();
        outcome(
            Lock::new(&mut transaction, &key)
                .timeout(TIMEOUT)
                .run(|_| Ok(())),
        );
        transaction.commit().unwrap();
    });
}

#[test]
fn after_a_timeout_of_a_transaction_of_its_own_nothing_is_held() {
    let (key, mut client) = (key_of("with transaction"), connect());
    never_held(&key, Observer::of_client(&mut client), |outcome| {
        outcome(
            Lock::new(&mut client, &key)
                .timeout(TIMEOUT)
                .run_in_transaction(|_| Ok(())),
        );
    });
}

#[test]
fn after_a_timeout_on_one_of_several_keys_none_is_held() {
    let (key, mut client) = (key_of("several"), connect());
    let keys = [&key, &key_of("several, free"), &key_of("several, free too")];
    never_held(&key, Observer::of_client(&mut client), |outcome| {
        outcome(
            Lock::new(&mut client, keys)
                .timeout(TIMEOUT)
                .run(|_| Ok(())),
        );
    });
}

#[cfg(feature = "diesel")]
mod with_diesel {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;

    use super::*;

    diesel::define_sql_function!(fn pg_backend_pid() -> diesel::sql_types::Integer);

    fn connect() -> (PgConnection, Observer) {
        let mut connection = PgConnection::establish(&url()).unwrap();
        let pid = diesel::select(pg_backend_pid()).get_result(&mut connection);
        (connection, Observer::of(pid.unwrap()))
    }

    #[test]
    fn after_a_timeout_of_a_session_lock_nothing_is_held() {
        let (key, (mut connection, observer)) = (key_of("diesel session"), connect());
        never_held(&key, observer, |outcome| {
            outcome(
                Lock::new(&mut connection, &key)
                    .timeout(TIMEOUT)
                    .run(|_| Ok(())),
            );
        });
    }

    #[test]
    fn after_a_timeout_in_a_transaction_it_holds_nothing() {
        let (key, (mut connection, observer)) = (key_of("diesel transaction"), connect());
        never_held(&key, observer, |outcome| {
            let done = connection.transaction(|conn| {
                outcome(Lock::new(&mut *conn, &key).timeout(TIMEOUT).run(|_| Ok(())));
                conn.batch_execute("SELECT 'still usable'")
            });
            done.unwrap();
        });
    }

    #[test]
    fn after_a_timeout_of_a_transaction_of_its_own_nothing_is_held() {
        let (key, (mut connection, observer)) = (key_of("diesel with transaction"), connect());
        never_held(&key, observer, |outcome| {
            outcome(
                Lock::new(&mut connection, &key)
                    .timeout(TIMEOUT)
                    .run_in_transaction(|_| Ok(())),
            );
        });
    }
}

/// The control: shows that the tests above hit the moment that they are about.
#[test]
fn a_plain_advisory_lock_is_held_after_some_timeouts() {
    let (key, mut client) = (key_of("control"), connect());
    let mut observer = Observer::of_client(&mut client);
    let lock = format!("SELECT pg_advisory_lock('{}')", key.as_i64().unwrap());
    client.batch_execute("SET lock_timeout = '1ms'").unwrap();
    under_contention(&key, || {
        let held = (0..100 * timeouts()).any(|_| {
            let timed_out = match client.batch_execute(&lock) {
                Ok(()) => false,
                Err(error) => {
                    assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE));
                    true
                }
            };
            // The driver returns before the server has released what the failed statement held.
            client.batch_execute("").unwrap();
            let held = timed_out && observer.sees_a_lock();
            client
                .batch_execute("SELECT pg_advisory_unlock_all()")
                .unwrap();
            held
        });
        assert!(
            held,
            "no timeout met a grant: the other tests of this file show nothing"
        );
    });
}

fn lock_timeout(client: &mut impl GenericClient) -> String {
    client.query_one("SHOW lock_timeout", &[]).unwrap().get(0)
}

/// A body that looks at the setting.
fn shows<C: GenericClient>(expected: &str) -> impl FnOnce(&mut C) -> Result<(), Error> {
    move |client| {
        assert_eq!(lock_timeout(client), expected, "in the body");
        Ok(())
    }
}

/// Holds the key for as long as the client lives.
fn hold(key: &Key) -> Client {
    let mut holder = connect();
    let key = key.as_i64().unwrap();
    holder
        .batch_execute(&format!("SELECT pg_advisory_lock('{key}')"))
        .unwrap();
    holder
}

fn assert_timeout<T>(outcome: Result<T, Error>) {
    let error = outcome.err();
    assert!(matches!(error, Some(Error::Timeout { .. })), "{error:?}");
}

#[test]
fn a_lock_in_a_transaction_leaves_its_lock_timeout_as_the_caller_wrote_it() {
    let (free, other, busy) = (key_of("set"), key_of("set, other"), key_of("set, busy"));
    let _holder = hold(&busy);
    let mut client = connect();
    client.batch_execute("SET lock_timeout = '7s'").unwrap();
    for (set, within, after) in [
        ("", "7s", "7s"),
        ("SET LOCAL lock_timeout = '1234ms'", "1234ms", "7s"),
        ("SET LOCAL lock_timeout = '2min'", "2min", "7s"),
        ("SET LOCAL lock_timeout = 0", "0", "7s"),
        ("SET lock_timeout = '9s'", "9s", "9s"),
        (
            "SET lock_timeout = '8s'; SET LOCAL lock_timeout = '3s'",
            "3s",
            "8s",
        ),
        ("RESET lock_timeout", "0", "0"),
    ] {
        let mut transaction = client.transaction().unwrap();
        let tx = &mut transaction;
        tx.batch_execute(set).unwrap();
        transaction_lock(tx, &free).unwrap();
        assert_eq!(lock_timeout(tx), within, "{set}: after no timeout");
        let mut lock = Lock::new(&mut *tx, [&free, &other]).timeout(LATE);
        lock.run(|tx| shows(within)(tx)).unwrap();
        assert_timeout(Lock::new(&mut *tx, &busy).timeout(TIMEOUT).acquire());
        assert_eq!(lock_timeout(tx), within, "{set}: after a timeout");
        transaction.commit().unwrap();
        assert_eq!(lock_timeout(&mut client), after, "{set}: after COMMIT");
    }
}

#[test]
fn a_lock_outside_a_transaction_leaves_the_sessions_lock_timeout_as_it_was() {
    let (free, busy) = (key_of("session set"), key_of("session set, busy"));
    let _holder = hold(&busy);
    let mut client = connect();
    for (set, shown) in [
        ("", "0"),
        ("SET lock_timeout = '7s'", "7s"),
        ("SET lock_timeout = '60000'", "1min"),
    ] {
        client.batch_execute(set).unwrap();
        with_lock(&mut client, &free, shows(shown)).unwrap();
        let mut lock = Lock::new(&mut client, &free).timeout(LATE);
        lock.run(shows(shown)).unwrap();
        lock.run_in_transaction(|tx| shows(shown)(tx)).unwrap();
        assert_eq!(lock_timeout(&mut client), shown, "{set}: after success");
        assert_timeout(Lock::new(&mut client, &busy).timeout(TIMEOUT).acquire());
        assert_eq!(lock_timeout(&mut client), shown, "{set}: after a timeout");
    }
}
