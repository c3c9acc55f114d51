//! The way to the lock: connect, begin the lease, wait. A server that goes away during the wait is waited
//! for, too.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use humantime::format_duration;
use pglock::held::{Held, Moment, Silence};
use pglock::{Error, Lock, Mode, Scope, Semaphore};

use crate::args::{RunArgs, ScopeArg};
use crate::connection::connect;
use crate::exit::{Failure, UNAVAILABLE, chain, one_line};
use crate::hold::Hold;
use crate::output::say_aside;
use crate::reach::{is_gone, may_come_back};
use crate::signals::{Limit, Signals};
use crate::transaction::{Guard, Kept, begin, check_at_leisure};
use crate::waiting::Waiting;
use crate::wanted::Wanted;
use crate::wire::Wired;

/// From one attempt to reach a server to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// How much later than its timeout a wait may end: the server is asked who holds the lock.
const LATE: Duration = Duration::from_secs(5);

/// How long it may take to connect, which is no part of the timeout: there may be several hosts.
const CONNECTING: Duration = Duration::from_secs(15);

enum Miss {
    /// There is no server now.
    Away(Failure),
    Failed(Failure),
}

impl Miss {
    fn on(connection: &mut PgConnection, failure: Failure) -> Self {
        match is_gone(connection) {
            true => Self::Away(failure),
            false => Self::Failed(failure),
        }
    }
}

/// Waits for the lock, for as long as the arguments say.
pub(crate) fn grant(url: &str, args: &RunArgs, signals: &Signals) -> Result<Hold, Failure> {
    let wait = args.wait_for_server.unwrap_or_default() + CONNECTING;
    let mut reach = Reach {
        begun: Instant::now(),
        reached: None,
        limit: timeout(args)
            .map(|timeout| give_up_after(wait + timeout, signals))
            .transpose()?,
    };
    let mut said = false;
    loop {
        let failure = match attempt(url, args, signals, &mut reach) {
            Ok(granted) => return Ok(granted),
            Err(Miss::Away(failure)) if reach.may_try_again(args) => failure,
            Err(Miss::Away(failure) | Miss::Failed(failure)) => return Err(failure),
        };
        if !said {
            said = true;
            say_aside(format!("waiting for the server: {}", failure.message));
        }
        if signals.stop.wait(PAUSE) {
            return Err(failure);
        }
    }
}

fn give_up_after(time: Duration, signals: &Signals) -> Result<Limit, Failure> {
    let shown = format_duration(Duration::from_secs(time.as_secs()));
    let message = format!("the server does not answer, gave up after {shown}");
    signals.give_up_after(time, message)
}

/// When the server was there.
struct Reach {
    begun: Instant,
    /// For the first time. From then on, the wait for the server is a part of the wait for the lock.
    reached: Option<Instant>,
    /// When pglock gives up on a server that is silent.
    limit: Option<Limit>,
}

impl Reach {
    fn may_try_again(&self, args: &RunArgs) -> bool {
        let next = Instant::now() + PAUSE;
        match (self.reached, timeout(args)) {
            (None, _) => args
                .wait_for_server
                .is_some_and(|time| next <= self.begun + time),
            (Some(reached), Some(timeout)) => next <= reached + timeout,
            (Some(_), None) => true,
        }
    }

    /// How much of the timeout is left.
    fn left(&mut self, args: &RunArgs, signals: &Signals) -> Result<Option<Duration>, Failure> {
        let Some(timeout) = timeout(args) else {
            self.reached.get_or_insert_with(Instant::now);
            return Ok(None);
        };
        if self.reached.is_none() {
            self.limit = Some(give_up_after(timeout + LATE, signals)?);
        }
        let reached = *self.reached.get_or_insert_with(Instant::now);
        let left = timeout.saturating_sub(reached.elapsed());
        // In whole milliseconds, as the server counts, and an error shows.
        let millis = left.as_micros().div_ceil(1_000);
        Ok(Some(
            u64::try_from(millis).map_or(left, Duration::from_millis),
        ))
    }
}

fn timeout(args: &RunArgs) -> Option<Duration> {
    match args.no_wait {
        true => Some(Duration::ZERO),
        false => args.timeout,
    }
}

/// Connects, and waits for the lock on that connection.
fn attempt(url: &str, args: &RunArgs, signals: &Signals, reach: &mut Reach) -> Result<Hold, Miss> {
    let mut connection = connect(url, &application(&args.command)).map_err(|failure| {
        match may_come_back(&failure.message) {
            true => Miss::Away(failure),
            false => Miss::Failed(failure),
        }
    })?;
    let lease = match args.scope {
        ScopeArg::Session => None,
        ScopeArg::Transaction => {
            let begun = begin(&mut connection, args.lease);
            Some(begun.map_err(|failure| Miss::on(&mut connection, failure))?)
        }
    };
    let left = reach.left(args, signals).map_err(Miss::Failed)?;
    signals.waiting();
    let waiting = Waiting::begin(url, args);
    let failed = |error| match error {
        error @ Error::ConnectionLost { .. } => Miss::Away(Failure::of(UNAVAILABLE, &error)),
        error => Miss::Failed(refused(url, args, error)),
    };
    let connection = Wired::new(connection);
    let Some(lease) = lease else {
        let held = hold(connection, args, left, signals);
        drop(waiting);
        return held.map(Hold::Session).map_err(failed);
    };
    let lock = lock(connection, args, left, signals).scope(Scope::Transaction);
    let granted = lock.acquire_owned();
    drop(waiting);
    keep(granted.map_err(failed)?, lease, signals).map(Hold::Transaction)
}

fn hold(
    connection: Wired,
    args: &RunArgs,
    timeout: Option<Duration>,
    signals: &Signals,
) -> Result<Held, Error> {
    let Wanted::Slots(slots) = args.key.wanted(args.slots) else {
        let lock = lock(connection, args, timeout, signals);
        return lock.lease(args.lease).hold();
    };
    let semaphore = Semaphore::new(connection, slots.key(), slots.count())
        .labelled(true)
        .stop_on(&signals.stop)
        .lease(args.lease);
    match timeout {
        Some(timeout) => semaphore.timeout(timeout),
        None => semaphore,
    }
    .hold()
}

fn lock(
    connection: Wired,
    args: &RunArgs,
    timeout: Option<Duration>,
    signals: &Signals,
) -> Lock<Wired> {
    let mode = match args.shared {
        true => Mode::Shared,
        false => Mode::Exclusive,
    };
    let lock = Lock::new(connection, args.key.key())
        .mode(mode)
        .labelled(true)
        .name_holders(true)
        .stop_on(&signals.stop);
    match timeout {
        Some(timeout) => lock.timeout(timeout),
        None => lock,
    }
}

/// Keeps the lock of a transaction that the server has just granted.
fn keep(mut guard: Guard, lease: Silence, signals: &Signals) -> Result<Kept, Miss> {
    let asked = Moment::now();
    let message = "the server granted the lock, and does not answer any more".to_owned();
    let limit = signals.give_up_after(lease.term(), message);
    let _limit = limit.map_err(Miss::Failed)?;
    check_at_leisure(&mut guard).map_err(|error| {
        let failure = Failure::of(UNAVAILABLE, &error);
        Miss::on(&mut guard.connection, failure)
    })?;
    let kept = Kept::keep(guard, lease, asked, signals.sender.clone());
    kept.map_err(|error| Miss::Failed(error.into()))
}

/// So that whoever looks at the locks sees the command.
fn application(command: &[OsString]) -> String {
    let program = command.first().map(Path::new).and_then(Path::file_name);
    let program = program.map(OsStr::to_string_lossy).unwrap_or_default();
    format!("pglock: {program}")
}

fn refused(url: &str, args: &RunArgs, error: Error) -> Failure {
    match error {
        Error::Timeout { .. } if args.no_wait => busy(args, &in_the_way(url, args)),
        // The server's message would add nothing.
        Error::Timeout { .. } => busy(args, &error.to_string()),
        error if error.is_retryable() => busy(args, &chain(&error)),
        error => error.into(),
    }
}

/// Who holds a lock that was only tried: that error does not say it.
fn in_the_way(url: &str, args: &RunArgs) -> String {
    let wanted = args.key.wanted(args.slots);
    let claims = connect(url, "pglock")
        .map(|mut connection| wanted.claims(&mut connection).unwrap_or_default());
    let mut claims = claims.unwrap_or_default();
    claims.retain(|claim| wanted.is_held_by(claim));
    let names: Vec<_> = claims.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => format!("{wanted} is held by another session"),
        names => format!("{wanted} is held by {}", names.join(" and ")),
    }
}

fn busy(args: &RunArgs, message: &str) -> Failure {
    let message = match args.quiet {
        true => String::new(),
        false => one_line(message),
    };
    Failure {
        code: args.busy_status,
        message,
    }
}
