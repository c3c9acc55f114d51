//! Acquiring one of several slots, whichever is free.
//!
//! The statement that finds a free slot takes it for the message, and puts its key into a setting of the
//! message. Only the last statement takes it for the session: in its WHERE clause and without a row, as
//! everywhere. So a message that fails has taken nothing, and one that succeeds has named the slot
//! before it took it.
//!
//! A driver without rows learns nothing from a message that succeeds. So a message that fails tells it
//! which slot is free, and it asks for that slot; after a wait, it asks which slot the session got.

use super::conditions::{Conditions, setting_millis, timeout};
use super::keys::{Client, REFUSED, allowed_for_session, answer};
use super::{advisory_rows, block, carried, carry, mark, raise};
use crate::failure::Replies;
use crate::key::Key;
use crate::request::{LockInfo, WaitTime};

/// The subject of a semaphore's acquire.
pub(crate) struct Slots<'a> {
    pub(crate) lock: &'a LockInfo,
    /// The slots, in the order in which they are tried.
    pub(crate) order: &'a [Key],
    /// Those that this session may hold.
    pub(crate) held: &'a [Key],
    pub(crate) queue: &'a Key,
}

/// The slot that a message has taken for itself.
const SLOT: &str = "current_setting('pglock.slot')";

/// The slots that the session held before the message.
const MINE: &str = "current_setting('pglock.mine')";

/// Which slot a session got after a wait.
pub(crate) const TAKEN: &str = "SELECT current_setting('pglock.taken') AS line";

impl Slots<'_> {
    /// Takes a free slot, unless others wait for one: a waiter holds the queue's key exclusively.
    ///
    /// With rows, the first is the slot's key. Without, it takes the first slot of the order, or fails
    /// with the key of another that is free, which [`crate::ask`] reads.
    pub(crate) fn attempt(&self, client: Client, replies: Replies) -> String {
        let allowed = allowed_for_session(self.lock, client);
        let first_come = self.call("pg_try_advisory_xact_lock_shared", self.queue);
        let take = self.take(self.look().as_deref());
        match replies {
            Replies::Rows => [
                "SELECT CASE WHEN (",
                &allowed,
                ") IS NOT TRUE THEN ",
                REFUSED,
                " WHEN NOT ",
                &first_come,
                " THEN 'busy' ELSE coalesce(",
                &take,
                ", 'busy') END AS line; ",
                &keep(replies),
            ]
            .concat(),
            Replies::Errors => {
                let mut taken = Conditions::new();
                taken.and(&[&allowed, " AND ", &first_come]);
                taken.and(&[&take, " IS NOT NULL"]);
                let why = format!("CASE WHEN {allowed} THEN 'busy' ELSE {REFUSED} END");
                let mut kept = Conditions::new();
                if let Some(first) = self.order.first() {
                    kept.and(&[SLOT, " = ", &as_text(first)]);
                    kept.and(&[&self.call("pg_advisory_lock", first), " IS NOT NULL"]);
                }
                let free = format!("'rows ' || {SLOT} || chr(30)");
                [carry(&taken, &why), raise(&kept, &free)].join("; ")
            }
        }
    }

    /// Waits for the queue's key, and then, at the head of the queue, for a slot: in all for as long as
    /// `time` says. The end of the message brings the next waiter to the head.
    ///
    /// The head looks again after 1 ms, and then after twice as long, up to 12 ms.
    ///
    /// With rows, the first is the slot's key; without, [`TAKEN`] asks for it.
    pub(crate) fn wait(&self, time: WaitTime, client: Client, replies: Replies) -> String {
        let mark = mark();
        let allowed = allowed_for_session(self.lock, client);
        let limited = match timeout(time, true) {
            Some(timeout) => format!("PERFORM {timeout}; "),
            None => String::new(),
        };
        let line_up = self.call("pg_advisory_xact_lock", self.queue);
        let take = self.take(None);
        let look = match self.look() {
            Some(look) => format!("PERFORM {look}; "),
            None => String::new(),
        };
        let limit = setting_millis("lock_timeout");
        let body = format!(
            "IF ({allowed}) IS NOT TRUE THEN RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = '{mark}' || {REFUSED}; END IF; \
             {look}{limited}ends := statement_timestamp() + nullif({limit}, 0) * interval '1 ms'; \
             PERFORM {line_up}; PERFORM pg_sleep(float '0'); \
             LOOP EXIT WHEN {take} IS NOT NULL; \
             IF clock_timestamp() >= ends THEN RAISE EXCEPTION USING ERRCODE = '55P03', MESSAGE = 'no slot has become free'; END IF; \
             PERFORM pg_sleep(least(pause, extract(epoch FROM ends - clock_timestamp()))); \
             pause := least(pause * 2, 0.012); END LOOP; "
        );
        let handler = match replies {
            Replies::Rows => String::new(),
            Replies::Errors => carried(),
        };
        let declarations = "DECLARE ends timestamptz; pause float8 := 0.001; ";
        let waited = block(declarations, &body, &handler);
        match replies {
            Replies::Rows => format!("{waited}; SELECT {SLOT} AS line; {}", keep(replies)),
            Replies::Errors => [waited, keep(replies)].join("; "),
        }
    }

    /// Takes the first free slot of the order for the message; NULL if none is free.
    ///
    /// PostgreSQL would grant a session a slot that it holds already. A [`look`](Self::look) finds these:
    /// here, before the first that it may hold is tried, or earlier in the message.
    fn take(&self, mut look: Option<&str>) -> String {
        let mut cases = String::with_capacity(96 * self.order.len());
        for key in self.order {
            let slot = as_text(key);
            let tried = self.call("pg_try_advisory_xact_lock", key);
            cases += &match self.held.contains(key) {
                true => {
                    let found = look.take().map_or(String::new(), |look| {
                        [" WHEN ", look, " IS NULL THEN NULL"].concat()
                    });
                    format!("{found} WHEN {slot} <> ALL (string_to_array({MINE}, ' ')) AND {tried}")
                }
                false => [" WHEN ", &tried].concat(),
            };
            cases += &[" THEN ", &slot].concat();
        }
        [
            "nullif(set_config('pglock.slot', coalesce(CASE",
            &cases,
            " END, ''), true), '')",
        ]
        .concat()
    }

    /// Notes in a setting of the message which of the slots that this process holds are this session's.
    /// It must come before they are tried: `pg_locks` would also show what a try has taken.
    fn look(&self) -> Option<String> {
        (!self.held.is_empty()).then(|| {
            format!(
                "set_config('pglock.mine', coalesce((SELECT string_agg(((l.classid::bigint << 32) | l.objid::bigint)::text, ' ') \
                 FROM pg_catalog.pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND {}), ''), true)",
                advisory_rows(self.held)
            )
        })
    }

    fn call(&self, function: &str, key: &Key) -> String {
        [function, "(", &key.arguments(), ")"].concat()
    }
}

/// A key as it stands in a setting.
fn as_text(key: &Key) -> String {
    format!("'{}'", key.as_i64().unwrap_or_default())
}

/// Takes for the session the slot that the message holds, so without a wait. If there is none, the
/// message has said so before.
fn keep(replies: Replies) -> String {
    let mut kept = Conditions::new();
    if replies == Replies::Errors {
        kept.and(&[&format!(
            "set_config('pglock.taken', {SLOT}, false) IS NOT NULL"
        )]);
    }
    kept.and(&[
        "pg_advisory_lock(nullif(current_setting('pglock.slot', true), '')::bigint) IS NOT NULL",
    ]);
    answer(&kept, REFUSED, replies)
}
