//! Locks that are held for work elsewhere, several by one connection. All of them are told when it is lost.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pglock::held::Keeper;
use pglock::{Lock, StopToken, key};
use postgres::NoTls;

use crate::random::Random;
use crate::tally::{Tally, by_a_fault};

/// Longer than a connection that is cut or ended can go unnoticed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A thread that holds a few locks again and again, until it is stopped.
pub fn start(
    config: postgres::Config,
    run: i32,
    mut random: Random,
    stop: &StopToken,
    tally: &Arc<Mutex<Tally>>,
) -> JoinHandle<()> {
    let (stop, tally) = (stop.clone(), Arc::clone(tally));
    let keeper = Keeper::new(move || config.connect(NoTls));
    thread::spawn(move || {
        while !stop.is_stopped() {
            let held = (0..3).map(|number| {
                Lock::new(&keeper, key!("soak:held:{run}:{number}"))
                    .timeout(PATIENCE)
                    .lease(Duration::from_secs(2))
                    .stop_on(&stop)
                    .hold()
            });
            let outcome = held.collect::<Result<Vec<_>, _>>().and_then(|held| {
                let _ = held[0].wait(Duration::from_millis(random.below(100)));
                held.into_iter()
                    .rev()
                    .try_for_each(pglock::held::Held::release)
            });
            let mut tally = tally.lock().unwrap();
            tally.count("sections: held for work elsewhere");
            tally.outcome(
                &outcome,
                [
                    "three locks were held and released",
                    "a hold was lost, or not begun",
                ],
                by_a_fault,
            );
        }
    })
}
