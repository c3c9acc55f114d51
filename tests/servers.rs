//! Promises that need a server of their own: a standby, a full lock table, one that does not speak
//! English, and one with a bad clock.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "support/server.rs"]
mod server;

use std::process::Command;
use std::time::{Duration, Instant};

use pglock::{Error, Lock, LockBackend, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};
use server::Server;

/// Calls a generic function with a connection of each driver, outside a transaction.
macro_rules! on_every_driver {
    ($function:ident($url:expr)) => {
        on_every_driver!($function($url, $url))
    };
    ($function:ident($url:expr, $argument:expr)) => {
        #[cfg(feature = "postgres")]
        $function(&mut Client::connect($url, NoTls).unwrap(), $argument);
        #[cfg(feature = "diesel")]
        $function(
            &mut <diesel::PgConnection as diesel::Connection>::establish($url).unwrap(),
            $argument,
        );
        #[cfg(all(feature = "r2d2", feature = "diesel"))]
        $function(&mut crate::diesel_pool($url), $argument);
    };
}

#[path = "servers/beside.rs"]
mod beside;
#[path = "servers/clock.rs"]
mod clock;
#[path = "servers/encodings.rs"]
mod encodings;
#[path = "servers/forms.rs"]
mod forms;
#[path = "servers/log.rs"]
mod log;
#[path = "servers/no_blocks.rs"]
mod no_blocks;
#[path = "servers/odd.rs"]
mod odd;
#[path = "servers/statements.rs"]
mod statements;

#[cfg(all(feature = "r2d2", feature = "postgres"))]
fn postgres_pool(url: &str) -> r2d2::Pool<r2d2_postgres::PostgresConnectionManager<NoTls>> {
    let manager = r2d2_postgres::PostgresConnectionManager::new(url.parse().unwrap(), NoTls);
    r2d2::Pool::builder().max_size(1).build(manager).unwrap()
}

#[cfg(all(feature = "r2d2", feature = "diesel"))]
fn diesel_pool(url: &str) -> r2d2::Pool<diesel::r2d2::ConnectionManager<diesel::PgConnection>> {
    let manager = diesel::r2d2::ConnectionManager::new(url);
    r2d2::Pool::builder().max_size(1).build(manager).unwrap()
}

/// A server with these settings.
fn on_server(name: &str, settings: &str) -> Server {
    let server = Server::new(name);
    server.configure(settings);
    server.start();
    server
}

fn never<S>(_: &mut S) -> Result<(), Error> {
    panic!("the body must not run")
}

/// But for the names of transactions.
fn granted_on(url: &str) -> i64 {
    let mut client = Client::connect(url, NoTls).unwrap();
    let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
        AND NOT (objsubid = 2 AND classid = x'70676c6b'::int)";
    client.query_one(query, &[]).unwrap().get(0)
}

#[test]
fn a_hot_standby_is_refused() {
    let (primary, standby) = (Server::new("primary"), Server::new("standby"));
    standby.follow(&primary);
    primary.start();
    standby.start();
    let mut client = Client::connect(&primary.url(), NoTls).unwrap();
    client
        .batch_execute("CREATE TABLE replayed (); SELECT pg_advisory_lock(1)")
        .unwrap();
    wait_for_table(&standby.url(), "replayed");
    // What pglock refuses: the standby grants a key that is held on the primary.
    let mut plain = Client::connect(&standby.url(), NoTls).unwrap();
    let granted = plain.query_one("SELECT pg_try_advisory_xact_lock(1)", &[]);
    assert!(granted.unwrap().get::<_, bool>(0));
    on_every_driver!(refuses_in_recovery(&standby.url()));
}

/// Waits until the standby has replayed what the primary did.
fn wait_for_table(url: &str, table: &str) {
    let mut client = Client::connect(url, NoTls).unwrap();
    let start = Instant::now();
    let query = format!("SELECT to_regclass('{table}') IS NOT NULL");
    while !client.query_one(&query, &[]).unwrap().get::<_, bool>(0) {
        assert!(start.elapsed() < Duration::from_secs(30), "no replication");
    }
}

fn refuses_in_recovery<B: LockBackend>(backend: &mut B, url: &str) {
    let refused = [
        with_lock(backend, "key", never),
        Lock::new(&mut *backend, "key")
            .timeout(Duration::ZERO)
            .run(never),
        Lock::new(&mut *backend, "key")
            .timeout(Duration::from_secs(9))
            .run(never),
        with_transaction_lock(backend, "key", |_| never(&mut ())),
        Lock::new(&mut *backend, "key").batch_execute("SELECT 1"),
    ];
    for result in refused {
        assert!(
            matches!(result, Err(Error::InRecovery { .. })),
            "{result:?}"
        );
    }
    assert_eq!(granted_on(url), 0);
}

#[test]
fn a_full_lock_table_is_told_and_nothing_stays_held() {
    let server = Server::new("full");
    server.configure("max_locks_per_transaction = 10\nmax_connections = 10\n");
    server.start();
    on_every_driver!(fills_the_lock_table(&server.url()));
}

fn fills_the_lock_table<B: LockBackend>(backend: &mut B, url: &str) {
    for timeout in [None, Some(Duration::ZERO), Some(Duration::from_secs(60))] {
        let mut lock = Lock::new(&mut *backend, (0..5_000_i64).collect::<Vec<_>>());
        if let Some(timeout) = timeout {
            lock = lock.timeout(timeout);
        }
        let refused = [lock.run(never), lock.run_in_transaction(|_| never(&mut ()))];
        for result in refused {
            let Err(error @ Error::LockTableFull { .. }) = &result else {
                panic!("{:.300}", format!("{result:?}"));
            };
            assert!(error.to_string().contains("max_locks_per_transaction"));
            assert_eq!(granted_on(url), 0);
        }
    }
    with_lock(backend, 1, |_| Ok::<_, Error>(())).unwrap();
}

#[test]
fn a_crash_of_the_server_is_told_and_outlived() {
    let server = Server::new("crash");
    server.start();
    Client::connect(&server.url(), NoTls)
        .unwrap()
        .batch_execute("CREATE TABLE work (n int)")
        .unwrap();
    #[cfg(feature = "postgres")]
    outlives_a_crash(&server, || Client::connect(&server.url(), NoTls).unwrap());
    #[cfg(feature = "diesel")]
    outlives_a_crash(&server, || {
        <diesel::PgConnection as diesel::Connection>::establish(&server.url()).unwrap()
    });
    #[cfg(all(feature = "r2d2", feature = "diesel"))]
    {
        let pool = diesel_pool(&server.url());
        outlives_a_crash(&server, || pool.clone());
    }
}

/// What was committed before the crash is there, and nothing else.
fn outlives_a_crash<B: LockBackend>(server: &Server, fresh: impl Fn() -> B) {
    let insert = "INSERT INTO work VALUES (1)";
    let outcome = with_lock(&mut fresh(), "key", |conn| {
        pglock::driver::Session::send(conn, insert).unwrap();
        server.crash();
        Ok::<_, Error>(())
    });
    assert!(
        matches!(outcome, Err(Error::LockLost { .. })),
        "{outcome:?}"
    );
    server.start();
    let outcome = with_transaction_lock(&mut fresh(), "key", |tx| {
        pglock::driver::Session::send(tx, insert).unwrap();
        server.crash();
        Ok::<_, Error>(())
    });
    let lost = matches!(
        outcome,
        Err(Error::ConnectionLost {
            committing: true,
            ..
        })
    );
    assert!(lost, "{outcome:?}");
    server.start();
    with_lock(&mut fresh(), "key", |_| Ok::<_, Error>(())).unwrap();
    let url = server.url();
    assert_eq!(granted_on(&url), 0);
    let mut client = Client::connect(&url, NoTls).unwrap();
    let taken = client.execute("DELETE FROM work", &[]).unwrap();
    assert_eq!(taken, 1, "the row that was committed");
}

/// The text of a server's error proves nothing: only its SQLSTATE does, and diesel shows none.
#[test]
fn errors_are_told_apart_in_german() {
    let mut server = Server::new("german");
    let made = Command::new("localedef")
        .args(["-i", "de_DE", "-f", "UTF-8"])
        .arg(server.dir().join("de_DE.UTF-8"))
        .output();
    server.set_environment("LOCPATH", &server.dir().display().to_string());
    server.configure("lc_messages = 'de_DE.UTF-8'\ndeadlock_timeout = '10min'\n");
    if !made.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: localedef cannot make de_DE.UTF-8 (Debian: install locales)");
    }
    server.start();
    let url = server.url();
    let error = Client::connect(&url, NoTls)
        .unwrap()
        .batch_execute("SELECT 1 / 0")
        .unwrap_err();
    if !error
        .as_db_error()
        .unwrap()
        .message()
        .contains("durch Null")
    {
        return eprintln!("skipped: this PostgreSQL was installed without its translations");
    }
    on_every_driver!(tells_errors_apart(&url));
    #[cfg(feature = "diesel")]
    tells_an_aborted_transaction(&url);
}

fn tells_errors_apart<B: LockBackend>(backend: &mut B, url: &str) {
    let mut other = Client::connect(url, NoTls).unwrap();
    other.batch_execute("SELECT pg_advisory_lock(1)").unwrap();

    let timeout = Lock::new(&mut *backend, 1)
        .timeout(Duration::from_millis(5))
        .run(never);
    assert!(matches!(timeout, Err(Error::Timeout { .. })), "{timeout:?}");
    let busy = Lock::new(&mut *backend, 1)
        .timeout(Duration::ZERO)
        .run_in_transaction(|_| never(&mut ()));
    assert!(matches!(busy, Err(Error::Timeout { .. })), "{busy:?}");
    let canceled = at_the_waiter(url, "pg_cancel_backend", || with_lock(backend, 1, never));
    assert!(
        matches!(canceled, Err(Error::Canceled { .. })),
        "{canceled:?}"
    );

    let deadlock = with_lock(backend, 2, |conn| {
        // Our deadlock check comes first: the other's keeps the server's ten minutes.
        pglock::driver::Session::send(conn, "SET deadlock_timeout = '10ms'").unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| other.batch_execute("SELECT pg_advisory_lock(2)").unwrap());
            let mut looker = Client::connect(url, NoTls).unwrap();
            while !has_waiter(&mut looker) {}
            with_lock(conn, 1, never).inspect_err(|_| {
                pglock::driver::Session::send(conn, "SELECT pg_advisory_unlock(2)").unwrap();
            })
        })
    });
    assert!(
        matches!(deadlock, Err(Error::Deadlock { .. })),
        "{deadlock:?}"
    );

    let lost = at_the_waiter(url, "pg_terminate_backend", || with_lock(backend, 1, never));
    assert!(
        matches!(lost, Err(Error::ConnectionLost { .. })),
        "{lost:?}"
    );
}

#[cfg(feature = "diesel")]
fn tells_an_aborted_transaction(url: &str) {
    use diesel::connection::{Connection, SimpleConnection};

    let mut connection = diesel::PgConnection::establish(url).unwrap();
    connection.begin_test_transaction().unwrap();
    connection.batch_execute("SELECT 1 / 0").unwrap_err();
    let aborted = pglock::transaction_lock(&mut connection, 3);
    assert!(
        matches!(aborted, Err(Error::TransactionAborted { .. })),
        "{aborted:?}"
    );
}

/// Calls a function of the server on the session that waits for a lock.
fn at_the_waiter<T>(url: &str, function: &str, wait: impl FnOnce() -> T) -> T {
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut client = Client::connect(url, NoTls).unwrap();
            while !has_waiter(&mut client) {}
            let call = format!("SELECT {function}(pid) FROM pg_locks WHERE NOT granted");
            client.batch_execute(&call).unwrap();
        });
        wait()
    })
}

fn has_waiter(client: &mut Client) -> bool {
    let query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
    client.query_one(query, &[]).unwrap().get(0)
}
