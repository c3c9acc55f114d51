//! Many who lock, at random: no two are in a section at once that may not be, and at the end nothing is
//! held.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pglock::driver::Session;
use pglock::{Error, Key, Lock, LockBackend, Mode, StopToken};

use crate::harness::Harness;
use crate::line::Line;
use crate::oracle::{Oracle, PATIENCE, connect, unique_key};

const THREADS: u64 = 9;
const LASTS: Duration = Duration::from_secs(2);

/// A key, and who is in: -1 is one exclusive holder, else the number of shared ones.
struct Place {
    key: Key,
    inside: AtomicI32,
}

impl Place {
    fn enter(&self, mode: Mode) {
        let before = match mode {
            Mode::Exclusive => self.inside.swap(-1, Ordering::SeqCst),
            Mode::Shared => self.inside.fetch_add(1, Ordering::SeqCst),
        };
        let may = before == 0 || mode == Mode::Shared && before > 0;
        assert!(may, "{mode} beside {before} in {}", self.key);
    }

    fn leave(&self, mode: Mode) {
        match mode {
            Mode::Exclusive => self.inside.store(0, Ordering::SeqCst),
            Mode::Shared => drop(self.inside.fetch_sub(1, Ordering::SeqCst)),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What ends the wait of one call, if it lasts so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Nothing,
    Stop,
    Cancel,
    Kill,
}

pub fn any_mixture_excludes_and_leaves_nothing<H: Harness>() {
    let places = [(); 3].map(|()| Place {
        key: unique_key(),
        inside: AtomicI32::new(0),
    });
    let start = Instant::now();
    thread::scope(|threads| {
        for number in 1..=THREADS {
            let places = &places;
            threads.spawn(move || {
                let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                while start.elapsed() < LASTS {
                    H::with(|backend| {
                        while start.elapsed() < LASTS && call::<H>(backend, places, &mut random) {}
                    });
                }
            });
        }
    });
    let mut oracle = Oracle::new();
    for place in &places {
        Line::of(&place.key).wait_until_gone(&mut oracle);
        oracle.wait_until_free(&place.key);
    }
}

/// One call for a lock. It says whether the backend can be used again.
fn call<H: Harness>(backend: &mut H::Backend<'_>, places: &[Place], random: &mut Random) -> bool {
    let first = usize::try_from(random.below(3)).unwrap();
    let last = first + usize::try_from(random.below(3 - first as u64)).unwrap();
    let places = &places[first..=last];
    let mode = [Mode::Exclusive, Mode::Exclusive, Mode::Shared][random.below(3) as usize];
    let end = [
        End::Nothing,
        End::Nothing,
        End::Nothing,
        End::Stop,
        End::Cancel,
        End::Kill,
    ][random.below(6) as usize];
    let timeout = [0, 200, 1_500, 30_000][random.below(4) as usize];
    let (works, ends) = (random.below(250), random.below(2_000));
    let pid = backend.session().unwrap();
    let pid = { pid }
        .query("SELECT pg_backend_pid()::text AS line")
        .unwrap();
    let token = StopToken::new();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let told = thread::scope(|threads| {
        threads.spawn({
            let token = &token;
            move || {
                let signal = match end {
                    End::Nothing => return,
                    End::Stop | End::Cancel => "pg_cancel_backend",
                    End::Kill => "pg_terminate_backend",
                };
                if is_done.recv_timeout(Duration::from_millis(ends)).is_ok() {
                    return;
                }
                match end {
                    End::Stop => token.stop(),
                    _ => connect()
                        .batch_execute(&format!("SELECT {signal}({})", pid[0]))
                        .unwrap(),
                }
            }
        });
        let keys: Vec<_> = places.iter().map(|place| &place.key).collect();
        let lock = Lock::new(&mut *backend, keys).mode(mode).stop_on(&token);
        let mut lock = lock.timeout(Duration::from_millis(timeout).min(PATIENCE));
        let told = lock.run(|_| {
            // Who may be killed in it cannot say that it is in.
            if end != End::Kill {
                places.iter().for_each(|place| place.enter(mode));
            }
            thread::sleep(Duration::from_millis(works)); // the work
            if end != End::Kill {
                places.iter().for_each(|place| place.leave(mode));
            }
            Ok::<_, Error>(())
        });
        let _ = done.send(());
        told
    });
    match told {
        Ok(()) | Err(Error::Timeout { .. }) => {}
        Err(Error::Stopped { .. }) => assert_eq!(end, End::Stop),
        Err(Error::Canceled { .. }) => assert_eq!(end, End::Cancel),
        Err(error) => assert_eq!(end, End::Kill, "{error:?}"),
    }
    end != End::Kill
}
