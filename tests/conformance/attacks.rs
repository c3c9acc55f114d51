//! Two things go wrong at once.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use pglock::{
    Error, Key, Lock, LockBackend, LockGuard, Row, Scope, Table as TableLock, transaction_lock,
    with_lock, with_transaction_lock,
};

use crate::harness::{Harness, InTransaction, holds, on, sql};
use crate::oracle::{Oracle, Table, unique_key, unique_name};

const SHORT: Duration = Duration::from_millis(20);

/// How many advisory keys a session holds.
fn keys_held(oracle: &mut Oracle, pid: i32) -> i64 {
    let query =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = $1";
    oracle.client.query_one(query, &[&pid]).unwrap().get(0)
}

/// Cancels the session again and again, each time as many microseconds after a message as it says.
pub(crate) fn canceler(
    pid: i32,
    waits: std::sync::mpsc::Receiver<u64>,
    done: &std::sync::mpsc::Sender<()>,
) {
    let mut oracle = Oracle::new();
    for micros in waits {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(micros) {
            std::hint::spin_loop();
        }
        oracle.cancel(pid);
        if done.send(()).is_err() {
            break;
        }
    }
}

pub(crate) const MANY: i64 = 500;

pub(crate) fn many_keys() -> Vec<Key> {
    let namespace = unique_name("many");
    (0..MANY)
        .map(|n| Key::namespaced(namespace.clone(), n.to_string()))
        .collect()
}

/// Chance decides whether a cancel hits the request: of some hundred, several do.
fn a_cancel_in_a_nested_section<H: Harness>(at_release: bool) {
    let mut oracle = Oracle::new();
    let keys = many_keys();
    H::with(|backend| {
        with_lock(backend, unique_key(), |conn| {
            let mark = unique_key();
            let pid = with_lock(conn, &mark, |_| Ok::<_, Error>(oracle.holder(&mark)))?;
            let (cancel, waits) = channel();
            let (done, canceled) = channel();
            thread::scope(|threads| {
                threads.spawn(move || canceler(pid, waits, &done));
                let cancel = cancel; // ends the thread, also when this one panics
                let mut outer = Lock::new(&mut *conn, &keys);
                let mut guard = outer.acquire()?;
                for attempt in 0..30_u64 {
                    let micros = attempt * 97 % 1_500;
                    let mut inner = Lock::new(&mut *guard, &keys);
                    if !at_release {
                        cancel.send(micros).unwrap();
                    }
                    let ended = inner.run(|_| {
                        if at_release {
                            cancel.send(micros).unwrap();
                        }
                        Ok::<_, Error>(())
                    });
                    canceled.recv().unwrap();
                    let _ = sql(&mut *guard, "SELECT 1"); // takes a late cancel
                    assert_eq!(keys_held(&mut oracle, pid), 1 + MANY, "{ended:?}");
                    assert!(
                        matches!(ended, Ok(()) | Err(Error::Canceled { .. })),
                        "{ended:?}"
                    );
                }
                LockGuard::release(guard)
            })?;
            assert_eq!(
                keys_held(&mut oracle, pid),
                1,
                "each was released as often as acquired"
            );
            Ok::<_, Error>(())
        })
        .unwrap();
    });
}

pub fn a_cancel_at_a_nested_release_leaves_the_outer_hold<H: Harness>() {
    a_cancel_in_a_nested_section::<H>(true);
}

pub fn a_cancel_at_a_nested_acquire_leaves_the_outer_hold<H: Harness>() {
    a_cancel_in_a_nested_section::<H>(false);
}

/// COMMIT and ROLLBACK are up to the caller.
pub fn a_raw_transaction_that_has_only_locked_is_not_committed<H: Harness>() {
    let (mut oracle, table) = (Oracle::new(), Table::new());
    for target in ["key", "table"] {
        let (first, second) = (unique_key(), unique_key());
        H::with(|backend| {
            on(backend, "BEGIN").unwrap();
            Lock::new(&mut *backend, &first)
                .scope(Scope::Transaction)
                .run(|_| Ok::<_, Error>(()))
                .unwrap();
            let refused = match target {
                "key" => with_transaction_lock(backend, &second, |_| Ok::<_, Error>(())),
                _ => with_transaction_lock(backend, TableLock::new(&*table.name), |_| {
                    Ok::<_, Error>(())
                }),
            };
            assert!(
                matches!(refused, Err(Error::InTransaction { .. })),
                "{target}: {refused:?}"
            );
            // Fails if the transaction is aborted; a pool may have handed out another session by now.
            let _ = on(
                backend,
                &format!(
                    "INSERT INTO {} SELECT 1 WHERE now() <> statement_timestamp()",
                    table.name
                ),
            );
            let _ = on(backend, "ROLLBACK");
            assert_eq!(table.rows(), 0, "{target}");
            oracle.assert_free(&first);
            oracle.assert_free(&second);
            with_transaction_lock(backend, &second, |_| Ok::<_, Error>(())).unwrap();
        });
    }
}

pub fn a_body_that_puts_another_transaction_in_place_is_told<H: Harness>() {
    let table = Table::new();
    for ends in [
        "COMMIT AND CHAIN",
        "COMMIT; BEGIN",
        "ROLLBACK AND CHAIN",
        "ROLLBACK; BEGIN",
    ] {
        let (mut oracle, key) = (Oracle::new(), unique_key());
        H::with(|backend| {
            prepared(backend, &key);
            let told = with_transaction_lock(backend, &key, |tx| {
                sql(tx, ends)?;
                sql(tx, &table.insert())
            });
            assert!(
                matches!(&told, Err(error) if error.is_lock_lost()),
                "{ends}: {told:?}"
            );
            assert_eq!(
                table.rows(),
                0,
                "{ends}: what ran unprotected is rolled back"
            );
            oracle.assert_free(&key);
            assert!(holds(backend, "true"), "{ends}");
            with_transaction_lock(backend, &key, |tx| sql(tx, "SELECT 1")).unwrap();
        });
    }
}

/// From the third use on, the statements are prepared.
pub fn prepared<B: LockBackend>(backend: &mut B, key: &Key) {
    for _ in 0..3 {
        with_transaction_lock(backend, key, |_| Ok::<_, Error>(())).unwrap();
    }
}

/// A deferred trigger fails at COMMIT with a text of its own, which decides nothing.
pub fn the_words_of_an_error_decide_nothing<H: Harness>() {
    let table = Table::new();
    let name = &table.name;
    on_oracle(&format!(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION '%', current_setting('test.words'); END $$; \
         CREATE CONSTRAINT TRIGGER t AFTER INSERT ON {name} DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION {name}()"
    ));
    H::with(|backend| {
        prepared(backend, &unique_key());
        for words in [
            "a newline\n",
            "SAVEPOINT can only be used in transaction blocks",
            "pglock:08006 x",
            "pglock:busy",
            "pglock:not held",
        ] {
            let told = with_transaction_lock(backend, unique_key(), |tx| {
                sql(
                    tx,
                    &format!("SET LOCAL test.words = '{words}'; {}", table.insert()),
                )
            });
            assert!(
                matches!(told, Err(Error::NotCommitted { .. })),
                "{words:?}: {told:?}"
            );
            with_lock(backend, unique_key(), |_| Ok::<_, Error>(())).unwrap();
        }
    });
    assert_eq!(table.rows(), 0);
    on_oracle(&format!("DROP FUNCTION {name}() CASCADE"));
}

fn on_oracle(text: &str) {
    Oracle::new().client.batch_execute(text).unwrap();
}

pub fn a_failed_commit_that_may_succeed_later_is_contention<H: Harness>() {
    let table = Table::new();
    on_oracle(&table.insert());
    H::with(|backend| {
        on(backend, "SET default_transaction_isolation = serializable").unwrap();
        let row = Row::new(&*table.name, "n", 1);
        let read = format!("SELECT count(*) FROM {}", table.name);
        let told = with_transaction_lock(backend, row, |tx| {
            // Reads what the other writes, and writes what the other reads.
            sql(tx, &read)?;
            sql(tx, &table.insert())?;
            let mut other = Oracle::new();
            let mut other = other
                .client
                .build_transaction()
                .isolation_level(postgres::IsolationLevel::Serializable)
                .start()
                .unwrap();
            other.batch_execute(&read).unwrap();
            other.batch_execute(&table.insert()).unwrap();
            other.commit().unwrap();
            Ok::<_, Error>(())
        });
        assert!(
            matches!(&told, Err(error) if error.is_retryable()),
            "{told:?}"
        );
    });
}

pub fn only_a_lock_of_the_session_is_held_by_it<H: Harness>() {
    let key = unique_key();
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key);
        let mut guard = lock.acquire().unwrap();
        let number = key.as_i64().unwrap();
        let give_away =
            format!("SELECT pg_advisory_xact_lock({number}), pg_advisory_unlock({number})");
        sql(&mut *guard, &format!("BEGIN; {give_away}")).unwrap();
        Oracle::new().holder(&key); // the transaction
        assert!(!LockGuard::is_held(&mut guard).unwrap());
        assert!(LockGuard::release(guard).unwrap_err().is_lock_lost());

        let mut guard = lock.acquire().unwrap();
        for _ in 0..3 {
            assert!(LockGuard::is_held(&mut guard).unwrap());
        }
        Oracle::new().holder(&key);
        LockGuard::release(guard).unwrap();
        Oracle::new().assert_free(&key);
    });
}

pub fn thousands_of_keys_make_a_short_error<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    let keys = (0..1_000).map(|n| Key::namespaced("many", n.to_string()));
    let keys: Vec<_> = keys.chain([key]).collect();
    H::with(|backend| {
        let mut lock = Lock::new(backend, keys).timeout(SHORT);
        let error = lock.acquire().unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert!(
            error.to_string().len() < 2_000,
            "{}",
            error.to_string().len()
        );
    });
}

pub fn a_savepoint_of_the_callers_is_left_alone<H: InTransaction>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    oracle.lock(&key);
    H::with(|backend| {
        on(
            backend,
            "CREATE TEMP TABLE work (n int) ON COMMIT DROP; SAVEPOINT pglock",
        )
        .unwrap();
        on(backend, "INSERT INTO work VALUES (1)").unwrap();
        on(backend, "SELECT 1 / 0").unwrap_err();
        let refused = transaction_lock(backend, &key);
        assert!(
            matches!(refused, Err(Error::TransactionAborted { .. })),
            "{refused:?}"
        );
        on(backend, "SELECT 1").expect_err("still aborted: nothing went back to the savepoint");
    });
}

pub fn is_held_tells_an_aborted_transaction<H: InTransaction>() {
    let key = unique_key();
    H::with(|backend| {
        let mut lock = Lock::new(backend, &key);
        let mut guard = lock.acquire().unwrap();
        sql(&mut *guard, "SELECT 1 / 0").unwrap_err();
        let told = LockGuard::is_held(&mut guard);
        assert!(
            matches!(told, Err(Error::TransactionAborted { .. })),
            "{told:?}"
        );
    });
}

/// With these settings every statement outside a transaction waits until all that write under
/// SERIALIZABLE have ended, and no `lock_timeout` bounds that.
pub fn a_deferrable_default_does_not_outlast_a_timeout<H: Harness>() {
    const DEFERRABLE: &str = "SET default_transaction_isolation = 'serializable'; \
        SET default_transaction_read_only = on; SET default_transaction_deferrable = on";
    // Each of its kind waits for the writers of all others.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let (mut oracle, taken, free, table) =
        (Oracle::new(), unique_key(), unique_key(), Table::new());
    oracle.lock(&taken);
    H::with(|backend| {
        // On the connection itself: a pool would test it first, and that test would wait.
        let mut session = backend.session().map_err(Error::body).unwrap();
        sql(&mut *session, DEFERRABLE).unwrap();
        let mut writer = Oracle::new();
        // It is still there at the end, or something has waited for it.
        let write = format!(
            "SET idle_in_transaction_session_timeout = '30s'; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT FROM {}; {}",
            table.name,
            table.insert()
        );
        writer.client.batch_execute(&write).unwrap();
        // diesel runs a lock of the session's by the extended protocol, in which nothing can stand in front.
        let in_front = <crate::SessionOf<'_, H> as pglock::driver::Session>::HAS_SQLSTATE;
        for timeout in [Duration::ZERO, SHORT] {
            let mut lock = Lock::new(&mut *session, &taken).timeout(timeout);
            if in_front {
                let busy = lock.run(|_| Ok::<_, Error>(()));
                assert!(
                    matches!(&busy, Err(Error::Timeout { holders, .. }) if timeout == SHORT || holders.len() == 1),
                    "{busy:?}"
                );
            }
            let refused = [
                lock.run_in_transaction(|_| Ok::<_, Error>(())),
                lock.batch_execute("SELECT 1"),
            ];
            for refused in refused {
                assert!(
                    matches!(refused, Err(Error::StaleSnapshot { .. })),
                    "{refused:?}"
                );
            }
        }
        if !in_front {
            return;
        }
        Lock::new(&mut *session, &free)
            .timeout(SHORT)
            .run(|_| {
                oracle.holder(&free);
                writer.client.batch_execute("ROLLBACK").unwrap();
                Ok::<_, Error>(())
            })
            .unwrap();
    });
}

/// Whatever is sent first. A driver that shows no SQLSTATE has only the server's message.
pub fn a_raw_transaction_is_told_whatever_the_wait<H: Harness>() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    for begin in ["BEGIN", "BEGIN; SELECT 1", "BEGIN; SAVEPOINT a; SELECT 1"] {
        for timeout in [None, Some(Duration::ZERO), Some(SHORT)] {
            H::with(|backend| {
                on(backend, begin).unwrap();
                let mut lock = Lock::new(&mut *backend, &key);
                if let Some(timeout) = timeout {
                    lock = lock.timeout(timeout);
                }
                let refused = lock.run(|_| Ok::<_, Error>(()));
                assert!(
                    matches!(refused, Err(Error::InTransaction { .. })),
                    "{begin} {timeout:?}: {refused:?}"
                );
                let _ = on(backend, "ROLLBACK");
                oracle.assert_free(&key);
            });
        }
    }
}
