//! What an election changes on its connection, and puts back: settings, and the locks that mark it.

use std::time::Duration;

use super::keys::Keys;
use super::lease::Lease;
use crate::driver::Session;
use crate::failure::Failure;
use crate::sql::election as sql;

/// The settings that were found, and the marks that were set.
pub(super) struct Settings {
    found: Vec<(String, String)>,
    lease: Lease,
    /// The number of the term, once it is taken.
    pub(super) number: Option<i32>,
}

/// Why a connection is not fit for a lease.
pub(super) enum Unfit {
    Lease(Duration),
    Failure(Failure),
}

impl From<Failure> for Unfit {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Settings {
    /// Makes the server end the session after a lease of silence (or sooner, if it does already),
    /// and for no other reason. Marks the session as one of the election's.
    pub(super) fn apply<S: Session>(
        session: &mut S,
        keys: &Keys,
        lease: Lease,
    ) -> Result<Self, Unfit> {
        let found: Vec<(String, String)> = session
            .query(sql::SETTINGS)?
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let number = |name| {
            let found = found.iter().find(|(found, _)| found == name);
            found.and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let lease = match number("idle_session_timeout") {
            None | Some(0) => lease,
            Some(millis) => {
                let shorter = lease.length().min(Duration::from_millis(millis));
                Lease::new(shorter).ok_or(Unfit::Lease(shorter))?
            }
        };
        let seconds = lease.length().as_secs() + 1;
        let mut calls = Vec::new();
        for (name, value) in &found {
            let value = match name.as_str() {
                "idle_session_timeout" => lease.millis().to_string(),
                // A network that is silent must not end the session before the lease does.
                "tcp_keepalives_idle" if value.parse().is_ok_and(|found: u64| found < seconds) => {
                    seconds.to_string()
                }
                "tcp_keepalives_idle" => continue,
                _ => "0".to_owned(),
            };
            calls.push(sql::set(name, &value));
        }
        let mark = keys.mark(lease);
        calls.push(sql::call("pg_advisory_lock_shared", &mark));
        session.send(&sql::calls(&calls))?;
        Ok(Self {
            found,
            lease,
            number: None,
        })
    }

    /// How long the server lets this session be silent.
    pub(super) fn lease(&self) -> Lease {
        self.lease
    }

    /// Restores the connection: it may belong to a pool.
    pub(super) fn restore<S: Session>(self, session: &mut S, keys: &Keys) -> Result<(), Failure> {
        let mark = keys.mark(self.lease);
        let term = self.number.map(|number| keys.term(number));
        let term = term.map(|term| sql::call("pg_advisory_unlock", &term));
        let mark = sql::call("pg_advisory_unlock_shared", &mark);
        let settings = self.found.iter();
        let settings = settings.map(|(name, value)| sql::set(name, value));
        let calls: Vec<_> = term.into_iter().chain([mark]).chain(settings).collect();
        session.send(&sql::calls(&calls))
    }
}
