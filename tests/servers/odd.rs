//! Databases and roles with unusual settings.

use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, Key, Lock, LockBackend, Row, inspect, with_lock, with_transaction_lock};
use postgres::{Client, NoTls};

use super::{granted_on, never, on_server};

fn run(url: &str, statements: &[&str]) {
    let mut client = Client::connect(url, NoTls).unwrap();
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
}

fn holds_one(url: &str) -> Result<(), Error> {
    assert_eq!(granted_on(url), 1);
    Ok(())
}

/// All that locks a key, and shows who holds it, without contention; and a wait that fails.
fn works<B: LockBackend>(backend: &mut B, url: &str) {
    let key = "cl\u{e9} \u{1F512}";
    with_lock(backend, key, |_| holds_one(url)).unwrap();
    with_transaction_lock(backend, key, |_| holds_one(url)).unwrap();
    let mut lock = Lock::new(&mut *backend, key).labelled(true);
    lock.batch_execute("SELECT 1").unwrap();
    let mut lock = lock.timeout(Duration::from_secs(9));
    lock.run(|_| holds_one(url)).unwrap();
    drop(lock);
    let mut several = Lock::new(&mut *backend, [1, 2]).shared();
    several.run(|_| Ok::<_, Error>(())).unwrap();
    is_told_who_holds(backend, url, key);
    assert_eq!(granted_on(url), 0);
}

fn is_told_who_holds<B: LockBackend>(backend: &mut B, url: &str, key: &str) {
    let mut other = Client::connect(url, NoTls).unwrap();
    let number = Key::from(key).as_i64().unwrap();
    let take = "SELECT pg_catalog.pg_advisory_lock($1::bigint)";
    other.execute(take, &[&number]).unwrap();
    assert_eq!(inspect::holders(backend, key).unwrap().len(), 1);
    let mut lock = Lock::new(&mut *backend, key).timeout(Duration::from_millis(5));
    let timeout = [lock.run(never), lock.run_in_transaction(|_| never(&mut ()))];
    for result in timeout {
        let Err(Error::Timeout { holders, .. }) = result else {
            panic!("no timeout: {result:?}")
        };
        assert_eq!(holders.len(), 1);
    }
    let release = "SELECT pg_catalog.pg_advisory_unlock($1::bigint)";
    other.execute(release, &[&number]).unwrap();
}

#[test]
fn a_role_that_may_only_connect_locks() {
    let server = on_server("minimal", "");
    let owner = [
        "CREATE ROLE minimal LOGIN",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC",
    ];
    run(&server.url(), &owner);
    let url = server.url().replace("postgres@", "minimal@");
    on_every_driver!(works(&url));
}

#[test]
fn a_database_without_an_encoding_locks() {
    let server = on_server("ascii", "");
    let create =
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    run(&server.url(), &[create]);
    let url = [server.url().trim_end_matches("postgres"), "ascii"].concat();
    let seats = [
        "CREATE TABLE seat (name text)",
        "INSERT INTO seat VALUES ('cl\u{e9}')",
    ];
    run(&url, &seats);
    on_every_driver!(works(&url));
    on_every_driver!(outlives_bytes(&url));
}

/// Bytes that are not UTF-8, in a row and in an error.
fn outlives_bytes<B: LockBackend>(backend: &mut B, _: &str) {
    let mut lock = Lock::new(&mut *backend, 1);
    lock.batch_execute(r"SET LOCAL client_encoding = 'SQL_ASCII'; SELECT E'\xff'")
        .unwrap();
    for bytes in [r"SELECT E'\xff'", r"SELECT E'\xff'::int"] {
        let error = lock.batch_execute(bytes).unwrap_err();
        assert!(matches!(error, Error::Body(_)), "{error:?}");
    }
    let error = lock.run_in_transaction(|tx| {
        tx.send(r"SELECT E'\xff'::int")?;
        Ok::<_, Error>(())
    });
    assert!(matches!(error, Err(Error::Body(_))), "{error:?}");
    let row = Row::new("seat", "name", "cl\u{e9}");
    with_transaction_lock(backend, row, |_| Ok::<_, Error>(())).unwrap();
    let no_row =
        with_transaction_lock(
            backend,
            Row::new("s\u{e9}at", "name", 1),
            |_| never(&mut ()),
        );
    assert!(matches!(no_row, Err(Error::Database { .. })), "{no_row:?}");
    with_lock(backend, 1, |_| Ok::<_, Error>(())).unwrap();
}

#[test]
fn a_database_that_is_read_only_by_default_locks_keys() {
    let server = on_server("readonly", "");
    let table = ["CREATE TABLE seat (id int)", "INSERT INTO seat VALUES (7)"];
    run(&server.url(), &table);
    let default = "ALTER DATABASE postgres SET default_transaction_read_only = on";
    run(&server.url(), &[default]);
    on_every_driver!(works(&server.url()));
    on_every_driver!(locks_no_row(&server.url()));
}

fn locks_no_row<B: LockBackend>(backend: &mut B, _: &str) {
    let refused = with_transaction_lock(backend, Row::new("seat", "id", 7), |_| never(&mut ()));
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    with_lock(backend, 7, |_| Ok::<_, Error>(())).unwrap();
}

#[test]
fn a_database_that_is_serializable_by_default_locks_for_sessions() {
    let settings = "default_transaction_isolation = 'serializable'\n";
    let server = on_server("serializable", settings);
    on_every_driver!(locks_for_sessions(&server.url()));
}

fn locks_for_sessions<B: LockBackend>(backend: &mut B, url: &str) {
    with_lock(backend, 1, |conn| {
        conn.send("BEGIN; SELECT 1; COMMIT")?;
        holds_one(url)
    })
    .unwrap();
    let mut lock = Lock::new(&mut *backend, 1).timeout(Duration::from_secs(9));
    lock.run(|_| holds_one(url)).unwrap();
    let refused = [
        lock.run_in_transaction(|_| never(&mut ())),
        lock.batch_execute("SELECT 1"),
    ];
    for result in refused {
        assert!(
            matches!(result, Err(Error::StaleSnapshot { .. })),
            "{result:?}"
        );
    }
    assert_eq!(granted_on(url), 0);
}

/// PostgreSQL would prefer each of these to its own, if a call left the type of an argument open.
const OVERLOADS: &[&str] = &[
    "DO $do$ DECLARE name text; arguments text; BEGIN \
     FOR name, arguments IN SELECT proname, a FROM pg_proc, (VALUES ('text'), ('text, text')) AS a (a) \
     WHERE proname ~ '^pg_(try_)?advisory_' AND pronargs > 0 GROUP BY 1, 2 LOOP \
     EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS bool LANGUAGE sql AS $$SELECT true$$', name, arguments); \
     END LOOP; END $do$",
    "CREATE FUNCTION public.pg_sleep(int) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0'",
    "CREATE FUNCTION public.pg_sleep(text) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0'",
    "CREATE FUNCTION public.concat(text, text) RETURNS text LANGUAGE sql AS $$SELECT '1'$$",
    "CREATE FUNCTION public.current_setting(name, bool) RETURNS text LANGUAGE sql AS $$SELECT '1'$$",
    "CREATE FUNCTION public.set_config(varchar, varchar, bool) RETURNS text LANGUAGE sql AS $$SELECT '1'$$",
    "CREATE FUNCTION public.array_to_string(text[], text, text) RETURNS text LANGUAGE sql AS $$SELECT '1'$$",
];

#[test]
fn functions_in_a_schema_behind_the_servers_own_replace_nothing() {
    let server = on_server("overloads", "");
    run(&server.url(), OVERLOADS);
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let called = client.query_one("SELECT pg_try_advisory_lock('1')", &[]);
    assert!(called.unwrap().get::<_, bool>(0));
    assert_eq!(granted_on(&server.url()), 0, "they are there");
    on_every_driver!(works(&server.url()));
    on_every_driver!(is_refused(&server.url()));
}

fn is_refused<B: LockBackend>(backend: &mut B, _: &str) {
    let mut session = backend.session().unwrap();
    session.send("BEGIN; SELECT 1").unwrap();
    let refused = Lock::new(&mut *session, (1, 2)).batch_execute("SELECT 1");
    assert!(
        matches!(refused, Err(Error::InTransaction { .. })),
        "{refused:?}"
    );
    session.send("ROLLBACK").unwrap();
}

/// As `SECURITY.md` says: whoever may create functions in a schema that is searched before the server's own
/// does not decide what a lock is.
#[test]
fn functions_in_a_schema_before_the_servers_own_replace_nothing() {
    let server = on_server("evil", "search_path = 'evil, pg_catalog'\n");
    let functions = [
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.pg_advisory_xact_lock(bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION evil.pg_advisory_lock(bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ];
    run(&server.url(), &functions);
    on_every_driver!(is_a_lock(&server.url()));
}

/// Prepared too.
fn is_a_lock<B: LockBackend>(backend: &mut B, url: &str) {
    for _ in 0..3 {
        with_lock(backend, 1, |_| {
            assert_eq!(granted_on(url), 1);
            Ok::<_, Error>(())
        })
        .unwrap();
        with_transaction_lock(backend, 1, |_| {
            assert_eq!(granted_on(url), 1);
            Ok::<_, Error>(())
        })
        .unwrap();
    }
}
