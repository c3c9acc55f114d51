//! Acquiring one of several slots, whichever is free.
//!
//! A statement takes one slot for the session, as every acquire does: in its WHERE clause, and without a
//! row. If that one is not free, its row says which other is, and the next statement asks for that.
//!
//! Who finds none takes the queue's key, as any lock: first come, first served. Its holder alone looks for
//! a slot, and lets the queue's key go in the statement that takes the slot.

use super::conditions::setting_millis;
use super::keys::{Client, allowed_for_session, held_here};
use super::line::IDLE_MILLIS;
use super::statement::{Conditions, Statement};
use crate::key::Key;
use crate::targets::{LockInfo, Mode, Target};

/// The subject of a semaphore's acquire.
pub(crate) struct Slots<'a> {
    pub(crate) lock: &'a LockInfo,
    /// The slots, in the order in which they are tried.
    pub(crate) order: &'a [Key],
    /// Those that this session may hold: PostgreSQL would grant them again.
    pub(crate) held: &'a [Key],
    pub(crate) queue: &'a Key,
}

impl Slots<'_> {
    /// Takes the first slot of the order, unless others wait for one. If that is not free, the row says
    /// which other is: its place in the order.
    pub(crate) fn attempt(&self, client: Client, at_head: bool) -> Statement {
        let mut conditions = Conditions::new();
        let why = allowed_for_session(&mut conditions, self.lock, client);
        let queue = conditions.key(self.queue);
        let first_come = format!("pg_catalog.pg_try_advisory_xact_lock_shared({queue})");
        if !at_head {
            conditions.and(&[&first_come]);
        }
        let slots: Vec<_> = self
            .order
            .iter()
            .map(|slot| self.slot(&mut conditions, slot))
            .collect();
        if let Some((mine, first, _)) = slots.first() {
            conditions.and(&[mine, "pg_catalog.pg_try_advisory_lock(", first, ")"]);
        }
        if at_head {
            conditions.and(&["pg_catalog.pg_advisory_unlock(", &queue, ")"]);
            conditions.and(&["(", PATIENT_AGAIN, ") IS NOT NULL"]);
        }
        let mut free = String::new();
        for (place, (mine, _, other)) in slots.iter().enumerate().skip(1) {
            free += &format!(" WHEN {mine}{other} THEN 'free {place}'");
        }
        let busy = match at_head {
            true => String::new(),
            false => format!(" WHEN NOT {first_come} THEN 'busy'"),
        };
        let why = format!("CASE {why}{busy}{free} ELSE 'busy' END");
        Statement::new(conditions, why)
    }

    /// The condition that the session does not hold a slot, its argument, and a try for the message.
    fn slot(&self, conditions: &mut Conditions, slot: &Key) -> (String, String, String) {
        let argument = conditions.key(slot);
        let mine = match self.held.contains(slot) {
            true => {
                let one = LockInfo::new(Target::from(slot.clone()), Mode::Exclusive);
                format!("NOT {} AND ", held_here(conditions, &one))
            }
            false => String::new(),
        };
        let other = format!("pg_catalog.pg_try_advisory_xact_lock({argument})");
        (mine, argument, other)
    }

    /// Looks for a free slot for so many milliseconds, more and more seldom, up to every 12 ms. Ends as
    /// soon as there is one; an attempt takes it.
    pub(crate) fn look(&self, millis: i32) -> String {
        let free: Vec<_> = self
            .order
            .iter()
            .filter(|slot| !self.held.contains(slot))
            .map(|slot| slot.as_i64().unwrap_or_default().to_string())
            .collect();
        format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{millis} {}', true); {LOOK}",
            free.join(" ")
        )
    }
}

const LOOK: &str = "DO $pglock$ DECLARE ask text[] := pg_catalog.string_to_array(pg_catalog.current_setting('pglock.wait'), ' '); \
    ends timestamptz := pg_catalog.clock_timestamp() + ask[1]::int * interval '1 ms'; pause float8 := 0.001; \
    BEGIN LOOP FOR i IN 2 .. pg_catalog.cardinality(ask) LOOP \
    IF ask[i] <> '' THEN IF pg_catalog.pg_try_advisory_xact_lock(ask[i]::bigint) THEN RETURN; END IF; END IF; END LOOP; \
    EXIT WHEN pg_catalog.clock_timestamp() >= ends; \
    PERFORM pg_catalog.pg_sleep(pause); pause := least(pause * 2, 0.012); END LOOP; END $pglock$; ";

/// In front of the wait for the queue. Its holder may be frozen, or its host gone, while a slot is free: so
/// the server ends a session that is silent for long. The session's own limit is noted.
pub(crate) fn impatient() -> String {
    let limit = setting_millis("idle_session_timeout");
    format!(
        "SELECT pg_catalog.set_config('pglock.queue', pg_catalog.current_setting('idle_session_timeout'), false), \
         CASE WHEN {limit} NOT BETWEEN 1 AND {IDLE_MILLIS} \
         THEN pg_catalog.set_config('idle_session_timeout', '{IDLE_MILLIS}', false) END"
    )
}

/// Puts the session's own limit back, if it was noted.
const PATIENT_AGAIN: &str = "CASE WHEN coalesce(pg_catalog.current_setting('pglock.queue', true), '') = '' THEN '' \
    ELSE pg_catalog.set_config('idle_session_timeout', pg_catalog.current_setting('pglock.queue'), false) \
    || pg_catalog.set_config('pglock.queue', '', false) END";

/// [`impatient`] undone, where no slot was had.
pub(crate) fn patient_again() -> String {
    format!("SELECT {PATIENT_AGAIN}")
}

/// The lock on the queue of a semaphore.
pub(crate) fn queue(key: &Key) -> LockInfo {
    LockInfo::new(Target::from(key.clone()), Mode::Exclusive)
}
