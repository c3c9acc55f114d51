//! Attempts that do not wait: neither for the lock nor for a connection that others use.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, Lock, LockBackend, QueuedPool, try_with_lock, try_with_transaction_lock};
use r2d2::{ManageConnection, Pool};

use crate::oracle::{self, unique_key, wait_until};
use crate::timeouts::Timeouts;

/// How long a pool waits for a connection. Only a failing test waits that long.
const LONG: Duration = Duration::from_secs(5);

fn pool<M: ManageConnection>(manager: M, timeouts: &Timeouts) -> Pool<M> {
    Pool::builder()
        .max_size(1)
        .min_idle(Some(0))
        .connection_timeout(LONG)
        .event_handler(Box::new(timeouts.clone()))
        .build(manager)
        .unwrap()
}

with_each_manager!(an_attempt_does_not_wait_for_a_connection_of_others);

fn an_attempt_does_not_wait_for_a_connection_of_others<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let timeouts = Timeouts::default();
    let pool = pool(manager, &timeouts);
    let only = pool.get().unwrap();
    timeouts.take();
    attempts(&pool, |result| {
        let Err(error @ Error::Checkout { .. }) = result else {
            panic!("{result:?}")
        };
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(text.contains("in use"), "{text}");
    });
    assert_eq!(timeouts.take(), []);
    drop(only);
    attempts(&pool, |result| assert!(result.unwrap().is_some()));
}

/// Attempts in each form, on the pool and on a queued one.
fn attempts<M>(pool: &Pool<M>, check: impl Fn(Result<Option<()>, Error>))
where
    M: ManageConnection<Connection: Session>,
{
    fn each<B: LockBackend + Clone>(pool: &B, check: impl Fn(Result<Option<()>, Error>)) {
        let key = unique_key();
        let lock = || Lock::new(pool.clone(), &key);
        check(try_with_lock(&mut pool.clone(), &key, |_| Ok(())));
        check(try_with_transaction_lock(&mut pool.clone(), &key, |_| {
            Ok(())
        }));
        check(lock().shared().try_run(|_| Ok(())));
        check(lock().timeout(Duration::ZERO).run(|_| Ok(Some(()))));
    }
    each(pool, &check);
    each(&QueuedPool::new(pool.clone()), &check);
}

with_each_manager!(an_attempt_waits_for_a_connection_that_is_being_opened);

fn an_attempt_waits_for_a_connection_that_is_being_opened<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let pool = pool(manager, &Timeouts::default());
    for _ in 0..2 {
        assert_eq!(pool.state().connections, 0);
        let mut lock = Lock::new(&pool, unique_key());
        let ended = lock.try_run(|conn| {
            // So that the pool does not take it back, and the next attempt finds no connection either.
            let _ = conn.send("SELECT pg_terminate_backend(pg_backend_pid())");
            conn.terminate();
            Ok::<_, Error>(())
        });
        assert!(matches!(ended, Err(Error::LockLost { .. })), "{ended:?}");
        wait_until("the end of the connection", || {
            (pool.state().connections == 0).then_some(())
        });
    }
}

with_each_manager!(an_attempt_does_not_wait_for_one_that_another_thread_got);

/// Both wait until the same connection is open.
fn an_attempt_does_not_wait_for_one_that_another_thread_got<M>(manager: M, _application: &str)
where
    M: ManageConnection<Connection: Session>,
{
    let timeouts = Timeouts::default();
    let gate = Arc::<Gate>::default();
    let gated = Gated {
        manager,
        gate: Arc::clone(&gate),
    };
    let pool = pool(gated, &timeouts);
    thread::scope(|threads| {
        let attempt = threads.spawn(|| try_with_lock(&mut &pool, unique_key(), |_| Ok(())));
        let other = threads.spawn(|| {
            let connection = pool.get_timeout(oracle::PATIENCE).unwrap();
            wait_until("the end of the attempt", || {
                attempt.is_finished().then_some(())
            });
            drop(connection);
            attempt.join().unwrap()
        });
        // By then it looks again and again.
        let waited = wait_until("the attempt to wait", || {
            let waited = timeouts.take();
            (!waited.is_empty()).then_some(waited)
        });
        assert!(waited[0] < LONG, "{waited:?}");
        gate.open();
        // Whichever thread got the connection, the attempt has ended.
        match other.join().unwrap() {
            Ok(Some(())) | Err(Error::Checkout { .. }) => {}
            result => panic!("{result:?}"),
        }
    });
}

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

/// Opens no connection before its gate is open.
struct Gated<M> {
    manager: M,
    gate: Arc<Gate>,
}

impl<M: ManageConnection> ManageConnection for Gated<M> {
    type Connection = M::Connection;
    type Error = M::Error;

    fn connect(&self) -> Result<M::Connection, M::Error> {
        self.gate.pass();
        self.manager.connect()
    }

    fn is_valid(&self, connection: &mut M::Connection) -> Result<(), M::Error> {
        self.manager.is_valid(connection)
    }

    fn has_broken(&self, connection: &mut M::Connection) -> bool {
        self.manager.has_broken(connection)
    }
}

/// It ends after the pool's own timeout, with the reason.
#[cfg(feature = "postgres")]
#[test]
fn an_attempt_says_why_no_connection_opens() {
    struct Closed;

    impl ManageConnection for Closed {
        type Connection = postgres::Client;
        type Error = std::io::Error;

        fn connect(&self) -> Result<postgres::Client, Self::Error> {
            Err(std::io::Error::other("closed for today"))
        }

        fn is_valid(&self, _: &mut postgres::Client) -> Result<(), Self::Error> {
            Ok(())
        }

        fn has_broken(&self, _: &mut postgres::Client) -> bool {
            false
        }
    }

    let pool = Pool::builder()
        .max_size(1)
        .min_idle(Some(0))
        .connection_timeout(Duration::from_millis(100))
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(Closed);
    let error = try_with_lock(&mut &pool, "closed", crate::never::<(), _>).unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.contains("closed for today"), "{text}");
}
