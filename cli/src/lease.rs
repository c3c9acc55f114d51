//! The lease: how long the server waits for a sign of life from pglock before it ends the session, and
//! the lock with it; and how long before that the command is ended.

use std::time::{Duration, Instant, SystemTime};

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};
use humantime::format_duration;

use crate::args::{RunArgs, ScopeArg};
use crate::exit::{Failure, UNAVAILABLE};
use crate::times::SHORTEST_LEASE;

/// From one check of the connection to the next. It sends nothing to the server.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// A moment by two clocks of this machine: one stands still while the machine is suspended, the other
/// can be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The longer of the times by the two clocks.
    pub(crate) fn elapsed(self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        wall.max(self.steady.elapsed())
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    length: Duration,
    grace: Duration,
}

impl Lease {
    /// Makes the server end the session after a lease of silence, or sooner if its settings say so,
    /// and not for other reasons: a waiter that is granted the lock after its host is gone loses it, too.
    pub(crate) fn begin(connection: &mut PgConnection, args: &RunArgs) -> Result<Self, Failure> {
        let (set, timeout) = match args.scope {
            ScopeArg::Session => ("SET", "idle_session_timeout"),
            ScopeArg::Transaction => ("SET LOCAL", "idle_in_transaction_session_timeout"),
        };
        let found = found(connection, timeout);
        let found = found.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
        let length = match u64::try_from(found.timeout) {
            Ok(0) | Err(_) => args.lease,
            Ok(millis) => args.lease.min(Duration::from_millis(millis)),
        };
        if length < SHORTEST_LEASE {
            let (length, least) = (format_duration(length), format_duration(SHORTEST_LEASE));
            let message = format!("{timeout} is {length}, and a lease lasts at least {least}");
            return Err(Failure::new(UNAVAILABLE, message));
        }
        // A silent network must not free the lock before the lease ends.
        let mut settings = format!(
            "{set} {timeout} = {}; {set} tcp_user_timeout = 0",
            length.as_millis()
        );
        let keepalives = length.as_secs() + 1;
        if u64::try_from(found.keepalives).is_ok_and(|found| (1..keepalives).contains(&found)) {
            settings += &format!("; {set} tcp_keepalives_idle = {keepalives}");
        }
        let begun = connection.batch_execute(&settings);
        begun.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
        Ok(Self {
            length,
            grace: args.grace,
        })
    }

    pub(crate) fn between_questions(self) -> Duration {
        self.length / 3
    }

    /// How long the lock is surely held after sending a question that was answered. The rest of the
    /// lease is for clocks that run at different speeds.
    pub(crate) fn term(self) -> Duration {
        self.length - self.length / 10
    }

    /// The time between TERM and KILL, both of which come within the lease: at most four tenths of
    /// it, since the answer to a question takes time, too.
    pub(crate) fn grace(self) -> Duration {
        self.grace.min(self.length * 4 / 10)
    }
}

#[derive(QueryableByName)]
struct Found {
    /// In milliseconds; 0: none.
    #[diesel(sql_type = BigInt)]
    timeout: i64,
    /// In seconds; 0 on a Unix socket, which has none.
    #[diesel(sql_type = BigInt)]
    keepalives: i64,
}

fn found(connection: &mut PgConnection, timeout: &str) -> QueryResult<Found> {
    let query = "SELECT coalesce(max(setting::bigint) FILTER (WHERE name = $1), 0) AS timeout, \
                 coalesce(max(setting::bigint) FILTER (WHERE name = 'tcp_keepalives_idle'), 0) AS keepalives \
                 FROM pg_settings WHERE name IN ($1, 'tcp_keepalives_idle')";
    sql_query(query)
        .bind::<Text, _>(timeout)
        .get_result(connection)
}

/// If pglock has not checked for so long, it was itself stopped: the answer to its last question may
/// have arrived meanwhile.
const STOPPED: Duration = Duration::from_secs(1);

/// How long the server then has to answer a new one.
const ANSWER: Duration = Duration::from_secs(1);

/// How long the server has been silent.
pub(crate) struct Silence {
    /// When the last question that was answered was sent.
    asked: Moment,
    last_look: Moment,
    /// The end of the last time that pglock was stopped.
    resumed: Option<Instant>,
    /// Until when that counts. There is one excuse until the next answer: a holder that is stopped again
    /// and again must not keep its command for ever.
    excused_until: Option<Instant>,
}

impl Silence {
    /// Begins with a question that was sent at `asked` and has been answered.
    pub(crate) fn since(asked: Moment) -> Self {
        Self {
            asked,
            last_look: Moment::now(),
            resumed: None,
            excused_until: None,
        }
    }

    pub(crate) fn answered(&mut self, asked: Moment) {
        self.asked = asked;
        self.excused_until = None;
    }

    /// Whether it has lasted that long, by whichever clock is first. Not if pglock itself was stopped,
    /// and the server has had no time to answer since.
    pub(crate) fn is_too_long(&mut self, limit: Duration) -> bool {
        let now = Instant::now();
        if self.last_look.elapsed() > STOPPED {
            self.resumed = Some(now);
        }
        self.last_look = Moment::now();
        if self.asked.elapsed() < limit {
            return false;
        }
        let until = self.resumed.map_or(now, |resumed| resumed + ANSWER);
        now >= *self.excused_until.get_or_insert(until)
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.asked.elapsed().as_secs()
    }
}
