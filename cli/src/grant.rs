//! The way to the lock: connect, begin the lease, wait. A server that goes away during the wait is waited
//! for, too.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;
use humantime::format_duration;
use pglock::{Error, Lock, Mode, Scope, Semaphore};

use crate::args::{RunArgs, ScopeArg};
use crate::connection::connect;
use crate::exit::{Failure, UNAVAILABLE, chain, one_line};
use crate::guard::Guard;
use crate::lease::{Lease, Moment};
use crate::output::say_aside;
use crate::reach::{is_gone, may_come_back};
use crate::signals::{Limit, Signals};
use crate::waiting::Waiting;
use crate::wanted::Wanted;

/// From one attempt to reach a server to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// How much later than its timeout a wait may end: the server is asked who holds the lock.
const LATE: Duration = Duration::from_secs(5);

/// How long it may take to connect, which is no part of the timeout: there may be several hosts.
const CONNECTING: Duration = Duration::from_secs(15);

/// A lock that the server has just granted.
pub(crate) struct Granted {
    pub(crate) guard: Guard,
    pub(crate) lease: Lease,
    /// A question that was sent then has been answered.
    pub(crate) asked: Moment,
}

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
pub(crate) fn grant(url: &str, args: &RunArgs, signals: &Signals) -> Result<Granted, Failure> {
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
        if signals.stop.wait_timeout(PAUSE) {
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
fn attempt(
    url: &str,
    args: &RunArgs,
    signals: &Signals,
    reach: &mut Reach,
) -> Result<Granted, Miss> {
    let mut connection = connect(url, &application(&args.command)).map_err(|failure| {
        match may_come_back(&failure.message) {
            true => Miss::Away(failure),
            false => Miss::Failed(failure),
        }
    })?;
    let lease =
        begin(&mut connection, args).map_err(|failure| Miss::on(&mut connection, failure))?;
    let left = reach.left(args, signals).map_err(Miss::Failed)?;
    signals.waiting();
    let waiting = Waiting::begin(url, args);
    let granted = acquire(connection, args, left, signals);
    drop(waiting);
    let mut guard = granted.map_err(|error| match error {
        error @ Error::ConnectionLost { .. } => Miss::Away(Failure::of(UNAVAILABLE, &error)),
        error => Miss::Failed(refused(url, args, error)),
    })?;
    let asked = Moment::now();
    let message = "the server granted the lock, and does not answer any more".to_owned();
    let limit = signals.give_up_after(lease.term(), message);
    let _limit = limit.map_err(Miss::Failed)?;
    check_at_leisure(&mut guard).map_err(|error| {
        let failure = Failure::of(UNAVAILABLE, &error);
        Miss::on(guard.connection(), failure)
    })?;
    Ok(Granted {
        guard,
        lease,
        asked,
    })
}

fn begin(connection: &mut PgConnection, args: &RunArgs) -> Result<Lease, Failure> {
    if args.scope == ScopeArg::Transaction {
        AnsiTransactionManager::begin_transaction(connection)
            .map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    }
    Lease::begin(connection, args)
}

fn acquire(
    connection: PgConnection,
    args: &RunArgs,
    timeout: Option<Duration>,
    signals: &Signals,
) -> Result<Guard, Error> {
    if let Wanted::Slots(slots) = args.key.wanted(args.slots) {
        let semaphore = Semaphore::new(connection, slots.key(), slots.count())
            .labelled(true)
            .stop_on(&signals.stop);
        let semaphore = match timeout {
            Some(timeout) => semaphore.timeout(timeout),
            None => semaphore,
        };
        return semaphore.acquire_owned().map(Guard::Slot);
    }
    let mode = match args.shared {
        true => Mode::Shared,
        false => Mode::Exclusive,
    };
    let scope = match args.scope {
        ScopeArg::Session => Scope::Session,
        ScopeArg::Transaction => Scope::Transaction,
    };
    let lock = Lock::new(connection, args.key.key())
        .mode(mode)
        .scope(scope)
        .labelled(true)
        .name_holders(true)
        .stop_on(&signals.stop);
    let lock = match timeout {
        Some(timeout) => lock.timeout(timeout),
        None => lock,
    };
    lock.acquire_owned().map(Guard::Lock)
}

/// From now on, `statement_timeout` could only cancel the checks whether the lock is held. By the simple
/// protocol: the other leaves a portal, and with it a snapshot, in a transaction.
fn check_at_leisure(guard: &mut Guard) -> diesel::QueryResult<()> {
    let set = match guard.scope() {
        Scope::Session => "SET statement_timeout = 0",
        Scope::Transaction => "SET LOCAL statement_timeout = 0",
    };
    guard.connection().batch_execute(set)
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
