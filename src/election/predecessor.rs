//! How the last holder lost the lock, and how long its successor waits before its own term begins.
//! Pure, like `lease`.
//!
//! A free lock does not prove that the last term is over by its leader's clock: somebody may have
//! ended the leader's session (`pg_terminate_backend`, a crash), and the leader may not know it
//! yet. So a successor waits for a lease, unless it can show that the term is over. What shows it:
//!
//! - The session goes on, and does something else: its client has released the lock.
//! - The session is gone, and since the successor last saw it with the lock, the database has
//!   counted no session that was ended from the server's side ([`pg_stat_database`]:
//!   `sessions_killed`, `sessions_fatal`): its client has closed it, or has died. A session is
//!   counted before it leaves `pg_stat_activity`, since PostgreSQL 15.
//! - Sessions were ended with an error, none at somebody's request, and this one has been silent for a
//!   lease: its term was over before.
//!
//! A connection that broke (`sessions_abandoned`) looks like a process that died. If its leader is
//! alive, it notices at its next look at the connection: the successor waits for a few of those.
//!
//! [`pg_stat_database`]: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW

use std::time::Duration;

use super::lease::Moment;

/// From one look of a leader at its connection to the next. A look sends nothing to the server.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// How long a successor waits for a leader to notice that its connection broke.
pub(super) const GRACE: Duration = Duration::from_millis(50);

/// What a candidate sees of the lock's holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) pid: i32,
    /// When its session began, as a number. `None`: this user cannot see it.
    pub(super) began: Option<String>,
    pub(super) role: Role,
    /// For how long it has been silent.
    pub(super) idle: Option<Duration>,
    pub(super) ends: Ends,
    pub(super) at: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It holds the lock outside any election.
    Other,
    /// It is elected, and waits for an earlier term to end.
    Candidate { lease: Duration },
    /// Its term has begun, or all earlier ones are over.
    Leader { lease: Duration },
}

/// How many sessions of the database have ended, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ends {
    /// At somebody's request.
    pub(super) killed: i64,
    /// With an error, such as a timeout.
    pub(super) fatal: i64,
    /// Because the connection broke.
    pub(super) abandoned: i64,
    /// When counting began, as a number.
    pub(super) reset: String,
    /// Whether each session is counted before it is gone.
    pub(super) in_time: bool,
}

/// What has become of the session that had the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The last message sent to it is a leader's question: it is about to end, or to be counted.
    Ending,
    /// It has been sent something else since.
    GoesOn,
    /// A pooler has cleared it, because its client has gone or was lost.
    Cleared,
    Gone(Ends),
    /// This user cannot see it.
    Hidden,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The last term is over.
    Over,
    /// It is, unless its leader has not seen yet that its connection broke.
    Broken,
    /// It may be on for another lease.
    Unknown,
}

impl Sight {
    /// Returns `None` if the candidate must look again.
    pub(super) fn verdict(&self, fate: &Fate, elected: Moment) -> Option<Verdict> {
        let lease = match self.role {
            Role::Other => return Some(Verdict::Over),
            Role::Candidate { .. } => return Some(Verdict::Unknown),
            Role::Leader { lease } => lease,
        };
        match fate {
            Fate::Ending => None,
            Fate::GoesOn => Some(Verdict::Over),
            Fate::Cleared => Some(Verdict::Broken),
            Fate::Hidden => Some(Verdict::Unknown),
            Fate::Gone(ends) => Some(self.how_it_ended(ends, lease, elected)),
        }
    }

    fn how_it_ended(&self, now: &Ends, lease: Duration, elected: Moment) -> Verdict {
        let before = &self.ends;
        if !now.in_time || now.reset != before.reset || now.killed != before.killed {
            return Verdict::Unknown;
        }
        if now.fatal != before.fatal {
            let silent = |idle| idle + elected.since(self.at) >= lease;
            return match self.idle.is_some_and(silent) {
                true => Verdict::Over,
                false => Verdict::Unknown,
            };
        }
        match now.abandoned == before.abandoned {
            true => Verdict::Over,
            false => Verdict::Broken,
        }
    }

    /// For how long the last term may still be on.
    pub(super) fn wait(&self, verdict: Verdict, caution: Caution) -> Duration {
        match verdict {
            Verdict::Over => Duration::ZERO,
            Verdict::Broken if !caution.strict => GRACE,
            Verdict::Broken | Verdict::Unknown => self.lease().max(caution.lease),
        }
    }

    fn lease(&self) -> Duration {
        match self.role {
            Role::Other => Duration::ZERO,
            Role::Candidate { lease } | Role::Leader { lease } => lease,
        }
    }
}

/// How a candidate waits when it does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caution {
    /// Its own lease. An election that it has not seen is assumed to have the same.
    pub(super) lease: Duration,
    /// It takes nothing for granted that it cannot show.
    pub(super) strict: bool,
}

/// What a candidate knows if it has seen nobody hold the lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer {
    /// It has, but its connection has broken since, as at a crash of the server.
    pub(super) saw_a_holder: bool,
    /// How long ago the server was started, unless that is the first time.
    pub(super) restarted: Option<Duration>,
}

impl Newcomer {
    /// For how long an earlier term may still be on. If a restart of the server ended a leader's
    /// session, that leader last asked before the restart.
    pub(super) fn wait(self, Caution { lease, strict }: Caution) -> Duration {
        if self.saw_a_holder || strict {
            return lease;
        }
        let restarted = self.restarted.unwrap_or(Duration::MAX);
        lease.saturating_sub(restarted).max(GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);
    const USUAL: Caution = Caution {
        lease: LEASE,
        strict: false,
    };
    const STRICT: Caution = Caution {
        lease: LEASE,
        strict: true,
    };

    fn at(seconds: f64) -> Moment {
        let time = Duration::from_secs_f64(seconds);
        Moment {
            steady: time,
            wall: time,
        }
    }

    fn sight(role: Role, idle: f64) -> Sight {
        let ends = Ends {
            in_time: true,
            ..Ends::default()
        };
        Sight {
            pid: 1,
            began: None,
            role,
            idle: Some(Duration::from_secs_f64(idle)),
            ends,
            at: at(100.0),
        }
    }

    fn after(change: impl FnOnce(&mut Ends)) -> Verdict {
        let sight = sight(Role::Leader { lease: LEASE }, 9.5);
        let mut ends = sight.ends.clone();
        change(&mut ends);
        sight.verdict(&Fate::Gone(ends), at(100.4)).unwrap()
    }

    #[test]
    fn a_session_that_nobody_ended_from_outside_was_its_clients() {
        assert_eq!(after(|_| ()), Verdict::Over);
        assert_eq!(after(|ends| ends.abandoned += 1), Verdict::Broken);
    }

    #[test]
    fn what_cannot_be_shown_is_unknown() {
        assert_eq!(after(|ends| ends.killed += 1), Verdict::Unknown);
        assert_eq!(after(|ends| ends.in_time = false), Verdict::Unknown);
        assert_eq!(after(|ends| ends.reset = "1".into()), Verdict::Unknown);
        let error = |ends: &mut Ends| ends.fatal += 1;
        assert_eq!(after(error), Verdict::Unknown, "0.1 s too early");
    }

    #[test]
    fn a_leader_that_was_silent_for_a_lease_is_over() {
        let sight = sight(Role::Leader { lease: LEASE }, 9.7);
        let mut ends = sight.ends.clone();
        ends.fatal += 1;
        let fate = Fate::Gone(ends.clone());
        assert_eq!(sight.verdict(&fate, at(100.4)), Some(Verdict::Over));
        ends.killed += 1;
        let fate = Fate::Gone(ends);
        assert_eq!(sight.verdict(&fate, at(100.4)), Some(Verdict::Unknown));
    }

    #[test]
    fn a_session_that_goes_on_has_released_the_lock() {
        let leader = sight(Role::Leader { lease: LEASE }, 0.0);
        let verdict = |fate| leader.verdict(&fate, at(100.4));
        assert_eq!(verdict(Fate::GoesOn), Some(Verdict::Over));
        assert_eq!(verdict(Fate::Cleared), Some(Verdict::Broken));
        assert_eq!(verdict(Fate::Hidden), Some(Verdict::Unknown));
        assert_eq!(verdict(Fate::Ending), None);
    }

    #[test]
    fn a_successor_that_was_not_in_office_yet_leaves_the_wait_to_the_next() {
        let lease = LEASE * 2;
        let candidate = sight(Role::Candidate { lease }, 0.0);
        let verdict = candidate.verdict(&Fate::GoesOn, at(100.4)).unwrap();
        assert_eq!(verdict, Verdict::Unknown);
        assert_eq!(candidate.wait(verdict, USUAL), lease, "the longer one");
        let other = sight(Role::Other, 0.0);
        assert_eq!(
            other.verdict(&Fate::Hidden, at(100.4)),
            Some(Verdict::Over),
            "no term"
        );
    }

    #[test]
    fn a_broken_connection_takes_a_moment_or_strictly_a_lease() {
        let leader = sight(Role::Leader { lease: LEASE }, 0.0);
        assert_eq!(leader.wait(Verdict::Broken, USUAL), GRACE);
        assert_eq!(leader.wait(Verdict::Broken, STRICT), LEASE);
        assert_eq!(leader.wait(Verdict::Over, STRICT), Duration::ZERO);
    }

    #[test]
    fn a_newcomer_waits_where_there_are_signs() {
        let newcomer = |saw_a_holder, restarted: Option<u64>| Newcomer {
            saw_a_holder,
            restarted: restarted.map(Duration::from_secs),
        };
        assert_eq!(newcomer(true, Some(3_600)).wait(USUAL), LEASE);
        assert_eq!(newcomer(false, Some(4)).wait(USUAL), LEASE * 6 / 10);
        assert_eq!(newcomer(false, Some(3_600)).wait(USUAL), GRACE);
        assert_eq!(newcomer(false, None).wait(USUAL), GRACE);
        assert_eq!(newcomer(false, None).wait(STRICT), LEASE);
    }
}
