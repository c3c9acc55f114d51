//! Many sessions at once, some of which are cancelled, killed or time out: there are never more sections
//! than slots, and no slot is lost.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, LockBackend, Permit, Semaphore, Slots, StopToken};

use crate::harness::holds;
use crate::oracle::{Oracle, unique_name, wait_until};

const SLOTS: u32 = 3;
const THREADS: u64 = 8;
const SECTIONS: u32 = 100;

/// Whether a session holds no lock, asked by itself; a cancel may end the question.
const NOTHING: &str = "SELECT count(*) = 0 FROM pg_locks \
    WHERE locktype = 'advisory' AND pid = pg_backend_pid()";

/// A pseudo-random number, the same in each run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Who is in a slot.
struct Inside {
    now: AtomicU32,
    most: AtomicU32,
    slots: [AtomicBool; SLOTS as usize],
}

impl Inside {
    fn new() -> Self {
        Self {
            now: AtomicU32::new(0),
            most: AtomicU32::new(0),
            slots: Default::default(),
        }
    }

    fn section(&self, slot: u32, work: impl FnOnce()) {
        let taken = self.slots[slot as usize].swap(true, SeqCst);
        assert!(!taken, "slot {slot} is held twice");
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        work();
        self.now.fetch_sub(1, SeqCst);
        self.slots[slot as usize].store(false, SeqCst);
    }
}

/// Threads with a connection each. Some take a second slot inside the first, or end their session instead
/// of a release, while another thread cancels whatever they do.
pub fn never_more_than_there_are_slots<B: LockBackend>(connect: impl Fn(&str) -> B + Sync) {
    let slots = Slots::new(unique_name("semaphore"), SLOTS);
    let application = unique_name("model");
    let (inside, over) = (Inside::new(), AtomicBool::new(false));
    let over = &over;
    thread::scope(|threads| {
        threads.spawn(|| disturb(&application, over));
        let sections: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let (connect, inside) = (&connect, &inside);
                let (application, name) = (&application, slots.key());
                threads.spawn(move || {
                    let mut seed = seed;
                    let mut connection = connect(application);
                    let mut done = 0;
                    while done < SECTIONS {
                        match section(&mut connection, name, inside, random(&mut seed)) {
                            Ok(true) => done += 1,
                            Ok(false) => wait_until("a session that holds nothing", || {
                                holds(&mut connection, NOTHING).then_some(())
                            }),
                            Err(_) => connection = connect(application),
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = sections
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, SeqCst);
        for ended in ended {
            ended.unwrap();
        }
    });
    assert_eq!(inside.most.load(SeqCst), SLOTS);
    let mut oracle = Oracle::new();
    oracle.wait_until_free(slots.queue());
    for key in slots.keys() {
        oracle.wait_until_free(key);
    }
}

/// One section, or none. An error means that the connection is gone.
fn section<B: LockBackend>(
    connection: &mut B,
    name: &pglock::Key,
    inside: &Inside,
    random: u64,
) -> Result<bool, Error> {
    let semaphore = Semaphore::new(&mut *connection, name, SLOTS);
    let mut semaphore = match random % 4 {
        0 => semaphore.timeout(Duration::from_micros(random / 4 % 20_000)),
        1 => semaphore.stop_on(&StopToken::new()),
        _ => semaphore,
    };
    let acquired = match random % 5 {
        0 => semaphore.try_acquire(),
        _ => semaphore.acquire().map(Some),
    };
    let mut permit = match acquired {
        Ok(Some(permit)) => permit,
        Ok(None) | Err(Error::Timeout { .. } | Error::Canceled { .. }) => return Ok(false),
        Err(error @ Error::ConnectionLost { .. }) => return Err(error),
        Err(error) => panic!("{error:?}"),
    };
    inside.section(Permit::slot(&permit), || {
        if random.is_multiple_of(3) {
            // A cancel may end it.
            let mut nested = Semaphore::new(&mut *permit, name, SLOTS);
            if let Ok(Some(second)) = nested.try_acquire() {
                inside.section(Permit::slot(&second), || {});
                Permit::release(second).unwrap();
            }
        }
        let _ = permit.send(&format!(
            "SELECT pg_sleep({})",
            (random % 3) as f64 / 1_000.0
        ));
    });
    if random.is_multiple_of(11) {
        let _ = permit.send("SELECT pg_terminate_backend(pg_backend_pid())");
    }
    Permit::release(permit)?;
    Ok(true)
}

fn disturb(application: &str, over: &AtomicBool) {
    let mut oracle = Oracle::new();
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
        WHERE application_name = $1 ORDER BY random() LIMIT 2";
    while !over.load(SeqCst) {
        oracle.client.execute(cancel, &[&application]).unwrap();
        thread::sleep(Duration::from_micros(300)); // between two faults
    }
}

#[cfg(feature = "postgres")]
#[test]
fn on_clients() {
    never_more_than_there_are_slots(|application| {
        let mut config: postgres::Config = crate::oracle::url().parse().unwrap();
        config.application_name(application);
        // A cancel can hit a session that is still connecting.
        wait_until("a connection", || config.connect(postgres::NoTls).ok())
    });
}

#[cfg(feature = "diesel")]
#[test]
fn on_connections_of_diesel() {
    never_more_than_there_are_slots(|application| {
        let url = crate::oracle::url();
        wait_until("a connection", || {
            let mut connection: diesel::PgConnection = diesel::Connection::establish(&url).ok()?;
            let name = format!("SET application_name = '{application}'");
            connection.send(&name).ok().map(|()| connection)
        })
    });
}
