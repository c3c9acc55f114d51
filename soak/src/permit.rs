//! A section of a semaphore: a slot is logged as an account is, so that two in one slot would be seen.

use std::time::Duration;

use pglock::driver::Session;
use pglock::{Error, LockBackend, Permit, Semaphore};

use crate::bank::{FIRST_SLOT, SLOTS, slots};
use crate::random::Random;
use crate::section::{Broken, Fate, holds_nothing, one, send};

#[derive(Debug)]
pub struct Section {
    run: i32,
    timeout: Option<Duration>,
    nested: bool,
    sleep_millis: u64,
}

impl Section {
    pub fn choose(random: &mut Random, run: i32) -> Self {
        Self {
            run,
            timeout: match random.below(4) {
                0 => Some(Duration::ZERO),
                1 => Some(Duration::from_millis(1 + random.below(30))),
                2 => Some(Duration::from_secs(5)),
                _ => None,
            },
            nested: random.one_in(4),
            sleep_millis: random.below(10),
        }
    }

    pub fn run<B: LockBackend>(&self, backend: &mut B) -> Fate {
        match self.run_once(backend) {
            Err(Error::Timeout { .. }) => Fate::TimedOut,
            Err(Error::Body(error)) if error.is::<Broken>() => Fate::Failed(error.to_string()),
            ended => Fate::Ended(ended),
        }
    }

    fn run_once<B: LockBackend>(&self, backend: &mut B) -> Result<(), Error> {
        let name = slots(self.run).key().clone();
        let mut semaphore = Semaphore::new(&mut *backend, &name, SLOTS);
        if let Some(timeout) = self.timeout {
            semaphore = semaphore.timeout(timeout);
        }
        let outcome = semaphore.acquire().and_then(|mut permit| {
            let slot = Permit::slot(&permit);
            logged(&mut *permit, slot, |session| {
                if self.nested {
                    let mut nested = Semaphore::new(&mut *session, &name, SLOTS);
                    if let Some(mut second) = nested.try_acquire()? {
                        let slot = Permit::slot(&second);
                        logged(&mut *second, slot, |_| Ok(()))?;
                        Permit::release(second)?;
                    }
                }
                send(
                    session,
                    &format!("SELECT pg_sleep(0.00{})", self.sleep_millis),
                )
            })?;
            Permit::release(permit)
        });
        drop(semaphore);
        if matches!(outcome, Err(Error::Timeout { .. })) {
            let mut session = backend.session().map_err(Error::body)?;
            holds_nothing(&mut *session)?;
        }
        outcome
    }
}

/// Logs its entry and its exit on the session that holds the slot.
fn logged<S: Session>(
    session: &mut S,
    slot: u32,
    work: impl FnOnce(&mut S) -> Result<(), Error>,
) -> Result<(), Error> {
    let account = match i32::try_from(slot) {
        Ok(number) if slot < SLOTS => (FIRST_SLOT + number).to_string(),
        _ => return Err(Error::body(Broken("a slot that does not exist"))),
    };
    let entry = "WITH entry AS (INSERT INTO log (section, account, exclusive) \
        SELECT nextval('section'), ACCOUNT, true RETURNING section) \
        SELECT section::text AS line FROM entry";
    let section = one(session, &entry.replace("ACCOUNT", &account))?;
    work(session)?;
    let left = "UPDATE log SET left_ = clock_timestamp() WHERE section =";
    send(session, &format!("{left} {section}"))
}
