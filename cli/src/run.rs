//! `pglock run`: a command under a lock.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::pg::PgConnection;
use diesel::sql_types::Bool;
use diesel::{QueryResult, RunQueryDsl, sql_query};
use pglock::{Error, Lock, Mode, Scope, Semaphore};

use crate::args::{RunArgs, ScopeArg};
use crate::connection::connect;
use crate::exit::{Failure, UNAVAILABLE, chain, one_line};
use crate::guard::Guard;
use crate::lease::{Lease, Moment};
use crate::signals::{Signals, end_by};
use crate::supervise::Held;
use crate::wanted::Wanted;

pub(crate) fn run(url: &str, args: &RunArgs) -> Result<u8, Failure> {
    let signals = Signals::listen()?;
    let mut connection = connect(url, &application(&args.command))?;
    if args.scope == ScopeArg::Transaction {
        AnsiTransactionManager::begin_transaction(&mut connection)
            .map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    }
    let lease = Lease::begin(&mut connection, args)?;
    signals.waiting();
    let acquired = acquire(connection, args, &signals);
    if let Some(signal) = signals.running() {
        drop(acquired);
        return Err(end_by(signal));
    }
    let mut guard = acquired.map_err(|error| match error {
        Error::Timeout { .. } if args.no_wait => busy(args, &in_the_way(url, args)),
        // The server's message would add nothing.
        Error::Timeout { .. } => busy(args, &error.to_string()),
        error if error.is_contention() => busy(args, &chain(&error)),
        error => error.into(),
    })?;
    let asked = Moment::now();
    check_at_leisure(&mut guard).map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    Held::keep(guard, lease, asked, &signals, args)?.run()
}

fn acquire(connection: PgConnection, args: &RunArgs, signals: &Signals) -> Result<Guard, Error> {
    let timeout = match args.no_wait {
        true => Some(Duration::ZERO),
        false => args.timeout,
    };
    if let Wanted::Slots(slots) = args.key.wanted(args.slots) {
        let semaphore = Semaphore::new(connection, slots.name(), slots.count())
            .labelled(true)
            .stop_on(&signals.stop);
        let semaphore = match timeout {
            Some(timeout) => semaphore.timeout(timeout),
            None => semaphore,
        };
        return semaphore.into_permit().map(Guard::Slot);
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
    lock.into_guard().map(Guard::Lock)
}

/// From now on, `statement_timeout` could only cancel the checks whether the lock is held.
fn check_at_leisure(guard: &mut Guard) -> QueryResult<usize> {
    let local = guard.scope() == Scope::Transaction;
    sql_query("SELECT set_config('statement_timeout', '0', $1)")
        .bind::<Bool, _>(local)
        .execute(guard.connection())
}

/// So that whoever looks at the locks sees the command.
fn application(command: &[OsString]) -> String {
    let program = command.first().map(Path::new).and_then(Path::file_name);
    let program = program.map(OsStr::to_string_lossy).unwrap_or_default();
    format!("pglock: {program}")
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
