//! Behind a pooler in transaction mode: the transaction forms work, and a session lock whose release
//! reaches another server session is reported.

#![cfg(any(feature = "postgres", feature = "diesel"))]

#[path = "support/bouncer.rs"]
mod bouncer;
#[path = "support/server.rs"]
mod server;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bouncer::Bouncer;
use pglock::driver::Session;
use pglock::{
    Error, Key, Lock, LockBackend, try_with_transaction_lock, with_lock, with_transaction_lock,
};
use postgres::{Client, NoTls};

#[cfg(feature = "diesel")]
fn connection(bouncer: &Bouncer) -> diesel::PgConnection {
    diesel::Connection::establish(&bouncer.url()).unwrap()
}

#[test]
fn transaction_scope_works_through_a_pooler() {
    let Some(bouncer) = Bouncer::start("bouncer-transaction") else {
        return;
    };
    #[cfg(feature = "postgres")]
    excludes_others(|| bouncer.client());
    #[cfg(feature = "diesel")]
    excludes_others(|| connection(&bouncer));
    assert_eq!(bouncer.holder(), None);
}

#[test]
fn one_message_works_through_a_pooler() {
    let Some(bouncer) = Bouncer::start("bouncer-message") else {
        return;
    };
    #[cfg(feature = "postgres")]
    loses_no_increment(&bouncer, || bouncer.client());
    #[cfg(feature = "diesel")]
    loses_no_increment(&bouncer, || connection(&bouncer));
    assert_eq!(bouncer.holder(), None);
}

/// One statement reads, and the next writes, a moment later: without the lock, increments are lost.
fn loses_no_increment<B: LockBackend>(bouncer: &Bouncer, connect: impl Fn() -> B + Sync) {
    let mut client = Client::connect(&bouncer.server.url(), NoTls).unwrap();
    client
        .batch_execute("DROP TABLE IF EXISTS counter; CREATE TABLE counter AS SELECT 0 AS n")
        .unwrap();
    let increment = "SELECT set_config('my.n', n::text, true) FROM counter; SELECT pg_sleep(0.001); \
        UPDATE counter SET n = current_setting('my.n')::int + 1";
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut backend = connect();
                for _ in 0..10 {
                    let mut lock = Lock::new(&mut backend, "counter");
                    lock.batch_execute(increment).unwrap();
                }
            });
        }
    });
    let row = client.query_one("SELECT n FROM counter", &[]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 40);
}

fn excludes_others<B: LockBackend>(connect: impl Fn() -> B + Sync) {
    with_transaction_lock(&mut connect(), "key", |_| {
        let busy = try_with_transaction_lock(&mut connect(), "key", |_| Ok::<_, Error>(()))?;
        assert!(busy.is_none());
        Ok::<_, Error>(())
    })
    .unwrap();
    // A counter that loses increments as soon as two sections overlap.
    let counter = AtomicI64::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut backend = connect();
                for _ in 0..10 {
                    let counted = with_transaction_lock(&mut backend, "key", |tx| {
                        let count = counter.load(Ordering::Relaxed);
                        tx.send("SELECT pg_sleep(0.001)").unwrap();
                        counter.store(count + 1, Ordering::Relaxed);
                        Ok::<_, Error>(())
                    });
                    counted.unwrap();
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 40);
}

/// diesel counts its statements, and PgBouncer gives a client the session on which another's statement has that
/// name, with parameters of the same types.
#[cfg(feature = "diesel")]
#[test]
fn a_statement_of_another_client_is_not_taken_for_a_lock() {
    let Some(bouncer) = Bouncer::start("bouncer-names") else {
        return;
    };
    let keys = [Key::from(1), Key::from(2)];
    let [mut first, mut second] = [connection(&bouncer), connection(&bouncer)];
    with_lock(&mut first, &keys, |_| Ok::<_, Error>(())).unwrap();
    let mut on_the_first = bouncer.client();
    let mut transaction = on_the_first.transaction().unwrap();
    transaction.batch_execute("SELECT 1").unwrap();
    try_with_transaction_lock(&mut second, &keys, |_| Ok::<_, Error>(())).unwrap();
    let held = with_lock(&mut first, &keys, |_| {
        Ok::<_, Error>(bouncer.holder_of_all(2))
    });
    assert!(held.unwrap());
}

#[test]
fn a_session_lock_that_a_pooler_has_moved_is_told() {
    let Some(bouncer) = Bouncer::start("bouncer-session") else {
        return;
    };
    #[cfg(feature = "postgres")]
    is_told_of_the_move(&bouncer, &mut bouncer.client());
    #[cfg(feature = "diesel")]
    is_told_of_the_move(&bouncer, &mut connection(&bouncer));
}

/// While the section runs, the pooler gives the server process that holds the lock to somebody else, so
/// the release gets another one.
fn is_told_of_the_move<B: LockBackend>(bouncer: &Bouncer, backend: &mut B) {
    let mut others: Vec<_> = (0..8).map(|_| bouncer.client()).collect();
    let mut taken = Vec::new();
    let outcome = with_lock(backend, "key", |_| {
        let holder = bouncer.holder();
        assert!(holder.is_some());
        for other in &mut others {
            let mut transaction = other.transaction().unwrap();
            let row = transaction.query_one("SELECT pg_backend_pid()", &[]);
            let pid: i32 = row.unwrap().get(0);
            taken.push(transaction);
            if Some(pid) == holder {
                return Ok::<_, Error>(());
            }
        }
        panic!("nobody got the holder's server process");
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error:?}");
    assert!(error.to_string().contains("pooler"), "{error}");

    // The lock stays in the pooler's server process, out of reach of this client, until that ends.
    let holder = bouncer.holder().expect("the pooler's server process");
    drop(taken);
    Client::connect(&bouncer.server.url(), NoTls)
        .unwrap()
        .execute("SELECT pg_terminate_backend($1)", &[&holder])
        .unwrap();
    let start = Instant::now();
    while bouncer.holder().is_some() {
        assert!(start.elapsed() < Duration::from_secs(30), "still held");
    }
}

/// Tells a child what to do: its driver, where the pooler is, the mark of a section, for how long.
const TASK: &str = "PGLOCK_TEST_POOLED";

/// How long to run with each driver and each number of server connections.
fn seconds() -> f64 {
    let seconds = std::env::var("PGLOCK_POOLER_SECONDS");
    seconds.map_or(1.0, |seconds| seconds.parse().expect("a number"))
}

/// Session locks where they do not work: each one is refused, or reported as lost.
#[test]
fn processes_behind_a_pooler_are_never_in_a_section_together() {
    for size in 1..=3 {
        let settings = format!("pool_mode = transaction\ndefault_pool_size = {size}\n");
        let Some(bouncer) = Bouncer::start_with(&format!("bouncer-shared-{size}"), &settings)
        else {
            return;
        };
        #[cfg(feature = "postgres")]
        three_processes(&bouncer, "postgres");
        #[cfg(feature = "diesel")]
        three_processes(&bouncer, "diesel");
    }
}

fn three_processes(bouncer: &Bouncer, driver: &str) {
    let all = pooled_processes(bouncer, driver, 3, seconds());
    let told = |what: &str| all.matches(what).count();
    assert!(told("refused: ") == 3 && told("done: 0 ") < 3, "{all}");
    eprintln!("{driver}: {}", all.replace('\n', " "));
    // So that what the pooler has kept does not disturb the next round.
    Client::connect(&bouncer.server.url(), NoTls)
        .unwrap()
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        .unwrap();
}

/// What they say.
fn pooled_processes(bouncer: &Bouncer, driver: &str, count: u32, seconds: f64) -> String {
    let mark = std::env::temp_dir().join(format!("pglock-pooled-{}", std::process::id()));
    let task = [
        driver,
        &bouncer.url(),
        mark.to_str().unwrap(),
        &seconds.to_string(),
    ];
    let children: Vec<_> = (0..count)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "pooled_process", "--ignored", "--nocapture"])
                .env(TASK, task.join("|"))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut all = String::new();
    let mut well = true;
    for child in children {
        let output = child.wait_with_output().unwrap();
        well &= output.status.success();
        all += &String::from_utf8_lossy(&output.stdout);
    }
    assert!(well, "{all}");
    all
}

/// A process waits in line on the only server session, through the pooler, and others come by it.
#[test]
fn who_waits_in_line_has_the_session_for_itself() {
    let settings = "pool_mode = transaction\ndefault_pool_size = 1\n";
    let Some(bouncer) = Bouncer::start_with("bouncer-line", settings) else {
        return;
    };
    let server = || Client::connect(&bouncer.server.url(), NoTls).unwrap();
    let (mut holder, mut oracle) = (server(), server());
    let number = Key::from("key").as_i64().unwrap();
    holder
        .execute("SELECT pg_advisory_lock($1)", &[&number])
        .unwrap();
    std::thread::scope(|threads| {
        let waiter =
            threads.spawn(|| with_lock(&mut bouncer.client(), "key", |_| Ok::<_, Error>(())));
        // Beside the holder's lock, its membership, and the head's mutex.
        let (start, mut held) = (Instant::now(), 0_i64);
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
        while held < 3 && start.elapsed() < Duration::from_secs(30) {
            held = oracle.query_one(locks, &[]).unwrap().get(0);
        }
        let all = pooled_processes(&bouncer, "postgres", 2, 0.3);
        holder
            .execute("SELECT pg_advisory_unlock($1)", &[&number])
            .unwrap();
        waiter.join().unwrap().unwrap();
        assert_eq!(held, 3, "nobody in line");
        assert!(
            all.matches("done: 0 ").count() == 2 && all.contains("shared session"),
            "{all}"
        );
    });
    assert_eq!(bouncer.holder(), None);
}

/// A pooler that resets takes the wait's notes away, and its places may be anywhere.
#[test]
fn a_wait_that_a_pooler_has_reset_is_told() {
    let settings = "pool_mode = transaction\ndefault_pool_size = 1\n\
        server_reset_query = RESET ALL\nserver_reset_query_always = 1\n";
    let Some(bouncer) = Bouncer::start_with("bouncer-reset", settings) else {
        return;
    };
    let mut holder = Client::connect(&bouncer.server.url(), NoTls).unwrap();
    let number = Key::from("key").as_i64().unwrap();
    holder
        .execute("SELECT pg_advisory_lock($1)", &[&number])
        .unwrap();
    let told = with_lock(&mut bouncer.client(), "key", |_| Ok::<_, Error>(()));
    assert!(matches!(told, Err(Error::SharedSession { .. })), "{told:?}");
}

#[test]
#[ignore = "is what three_processes starts"]
fn pooled_process() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let task: Vec<_> = task.split('|').collect();
    let &[driver, url, mark, seconds] = task.as_slice() else {
        panic!("{task:?}")
    };
    let (mark, time) = (std::path::Path::new(mark), seconds.parse().unwrap());
    match driver {
        #[cfg(feature = "postgres")]
        "postgres" => sections(&mut Client::connect(url, NoTls).unwrap(), mark, time),
        #[cfg(feature = "diesel")]
        "diesel" => sections::<diesel::PgConnection>(
            &mut diesel::Connection::establish(url).unwrap(),
            mark,
            time,
        ),
        driver => panic!("no driver {driver}"),
    }
}

/// Two processes in a section at once would find the other's mark.
fn sections<B: LockBackend>(backend: &mut B, mark: &std::path::Path, seconds: f64) {
    let (mut done, mut refused) = (0, std::collections::BTreeMap::<&str, u32>::new());
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let section = |conn: &mut B::Session| {
            std::fs::File::create_new(mark).expect("nobody else is in a section");
            conn.send("SELECT pg_sleep(0.001)").unwrap();
            std::fs::remove_file(mark).unwrap();
            Ok::<_, Error>(())
        };
        let timeout = Duration::from_millis(20);
        let kind = match Lock::new(&mut *backend, "key")
            .timeout(timeout)
            .run(section)
        {
            Ok(()) => {
                done += 1;
                continue;
            }
            Err(Error::SharedSession { .. }) => "shared session",
            Err(Error::Timeout { .. }) => "timeout",
            Err(Error::LockLost { .. }) => "lock lost",
            Err(error) => panic!("{error:?}"),
        };
        *refused.entry(kind).or_default() += 1;
    }
    println!("done: {done} refused: {refused:?}");
}
