//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Error, Parser, Subcommand, ValueEnum, value_parser};
use pglock::Slots;

use crate::key_args::{KeyArgs, name};
use crate::times::{lease, pause, time};

const AFTER: &str = "\
Connection:
  --url, else DATABASE_URL, else what libpq reads by itself: PGHOST, PGPORT,
  PGUSER, PGDATABASE, the other PG* variables, ~/.pgpass and pg_service.conf.
  Others see the session as PGAPPNAME, or else as pglock and the command that
  it runs.

Times:
  Seconds, or numbers with units: 5, 0.5, 300ms, 5m, \"1m 30s\".

Keys:
  A name is hashed as the library pglock hashes it; `pglock key NAME` shows
  the number, and those of other libraries (--scheme). Locks in different
  databases are independent.

Exit status:
    0  done
    1  nobody holds the lock (who, kill); you said no (kill); not fit (doctor)
   64  wrong usage
   69  no connection, or the server refused
   71  system error
   75  somebody else holds the lock
   76  the lock was lost while the command ran
   77  so it was, and the command could not be ended
  126  the command cannot be run
  127  the command was not found
128+n  the command was ended by signal n";

/// Locks that live in PostgreSQL: run commands under them, and see who holds them.
#[derive(Debug, Parser)]
#[command(name = "pglock", version, after_long_help = AFTER)]
pub(crate) struct Cli {
    /// The database, as a URL or as libpq's keyword=value pairs
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    pub(crate) url: Option<OsString>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command under a lock, as flock(1) does for one machine
    #[command(
        override_usage = "\
pglock run [OPTIONS] <KEY> <COMMAND> [ARGS]...
       pglock run [OPTIONS] <--int <N>|--pair <A,B>> -- <COMMAND> [ARGS]...",
        after_long_help = "\
Examples:
  pglock run --try --at-least 5m nightly-report ./report.sh
                                     from cron: one machine of the fleet runs it
  pglock run -w 5m deploy make deploy      one at a time; waits for five minutes
  pglock run --slots 3 mail ./send.sh      three at a time
  pglock run --shared catalogue ./list.sh  beside readers, not beside a writer

Options stand before the name or behind it; from the command on, all is the
command's. A -- before the command is allowed, and needed behind --int and
--pair.

A wait of more than a second says on standard error what it waits for and who
holds it, unless --quiet; to find that out, pglock opens a second connection.
On a terminal it keeps that current.

The exit status is the command's own, or 128+n if signal n ended it. It is 75
if somebody else holds the lock, 127 if there is no such command, 126 if it
cannot be run, 76 if the lock was lost while the command ran, and 77 if it was
lost and the command could not be ended, since it has become another user, such
as root. TERM, INT, HUP, QUIT, USR1, USR2 and WINCH are passed on to the
command; where there is no terminal, they go to its process group. As PID 1 of
a container, pglock also does what an init does: it reaps the orphans that are
left to it.

A server that goes away while pglock waits is waited for, until the timeout;
one that is not up when pglock starts only with --wait-for-server. If the
server is there but does not answer, pglock gives up (69) some 5 s after the
timeout, or 15 s if it cannot even connect.

--try alone prevents only runs that overlap: where the clocks of two machines
differ, a short job can still run on one after the other. --at-least keeps the
lock for that long, even if the command is done sooner: choose more than the
clocks differ by. TERM, INT, HUP and QUIT end that time.

If pglock, its host or the network freezes, the server frees the lock after the
lease (--lease). pglock ends the command before that: by TERM when an answer is
long overdue, and by KILL after the grace time. A pglock that is itself stopped
cannot do so. If the connection breaks, the lock is free at once, and pglock
ends the command then.

However the command or pglock ends, the lock is free afterwards. On Linux,
pglock ends all that has come of the command, too, such as workers in the
background, and stays until all of it is gone. If pglock is killed, a second
process of its own does that. What remains: if both are killed at once, the
command gets a TERM, and what it has started goes on; so does a command that
has become another user; and so does, without the lock, what a command leaves
behind when it ends by itself. On other systems, pglock ends the command, and
where there is no terminal its process group; if pglock is killed, they go on."
    )]
    Run(RunArgs),
    /// List all advisory locks of the database: who holds them, who waits
    Ls(LsArgs),
    /// Show who holds a lock, and who waits for it (status 1: nobody holds it)
    #[command(override_usage = "pglock who [OPTIONS] <KEY|--int <N>|--pair <A,B>>")]
    Who(WhoArgs),
    /// End the sessions that hold a lock (status 1: nobody holds it)
    #[command(
        override_usage = "pglock kill [OPTIONS] <KEY|--int <N>|--pair <A,B>>",
        after_long_help = "\
pg_terminate_backend ends the session: its transaction is rolled back, and all
its locks are free. --cancel only cancels its running statement: the client
gets an error, and may then release the lock; an idle session stays as it is. A
prepared transaction has no session: pglock prints what ends it (status 69).
You must be the session's user or a superuser, or have the role
pg_signal_backend."
    )]
    Kill(KillArgs),
    /// Say whether this connection is fit for locks, and what to change (status 1: not fit)
    #[command(after_long_help = "\
It opens three connections, then others one after the other, and checks what is
between them and the server, whether reads go where locks are, timeouts, what
happens to the lock of a client that vanishes, the room in the lock table, the
rights of this user, PL/pgSQL, and the isolation of transactions. Behind a
pooler, the server reports on the pooler's connection.

Each line is a finding: 'ok', 'note' (good to know), 'warning' (locks work,
with a drawback) or 'unfit' (some or all forms of locks do not work).")]
    Doctor(DoctorArgs),
    /// Show the number of a name in every scheme, with the SQL to type into psql
    Key(KeyNameArgs),
    /// Print the completions of a shell
    #[command(after_long_help = "\
Examples:
  pglock completions bash >~/.local/share/bash-completion/completions/pglock
  pglock completions fish >~/.config/fish/completions/pglock.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory, for packagers
    #[command(hide = true)]
    Man {
        /// The directory, which must exist
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Run up to N at a time: a semaphore of that name with N slots; the command finds the number
    /// of its slot, from 0 on, in PGLOCK_SLOT
    #[arg(long, value_name = "N", value_parser = slots(),
          conflicts_with_all = ["int", "pair", "namespace", "scheme", "shared", "scope"])]
    pub(crate) slots: Option<u32>,

    /// Share the lock with other shared holders
    #[arg(short, long)]
    pub(crate) shared: bool,

    /// Wait for the lock for at most this long, such as 5 (seconds), 300ms or "1m 30s"; for ever by
    /// default
    #[arg(short = 'w', long, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,

    /// Do not wait at all
    #[arg(short = 'n', long = "try", conflicts_with = "timeout")]
    pub(crate) no_wait: bool,

    /// If the server cannot be reached at the start, try for this long; not at all by default
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) wait_for_server: Option<Duration>,

    /// What the lock belongs to; behind a pooler in transaction mode, it must be the transaction
    #[arg(long, value_enum, default_value_t = ScopeArg::Session)]
    pub(crate) scope: ScopeArg,

    /// The exit status if somebody else holds the lock
    #[arg(short = 'E', long, value_name = "STATUS", default_value_t = crate::exit::BUSY)]
    pub(crate) busy_status: u8,

    /// How long the server waits for a sign of life from pglock before it frees the lock
    #[arg(long, value_name = "TIME", value_parser = lease, default_value = "10s")]
    pub(crate) lease: Duration,

    /// How long the command has between TERM and KILL when the lock is lost; if the server is
    /// only silent, at most four tenths of the lease
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "3s")]
    pub(crate) grace: Duration,

    /// Keep the lock for at least this long from the start of the command
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) at_least: Option<Duration>,

    /// Do not say who holds the lock, neither while waiting for it nor at the end
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The command and its arguments
    #[arg(trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

impl RunArgs {
    /// Tells the name from the command. `behind` is how many words stand behind a `--`.
    fn settle(mut self, behind: Option<usize>) -> Result<Self, Error> {
        let all_are_behind = behind == Some(self.command.len() + 1);
        match (self.key.is_number(), self.key.take_name_if_number()) {
            (true, Some(first)) if all_are_behind => self.command.insert(0, first.into()),
            (true, Some(_)) => {
                let message =
                    "a name cannot be used with --int or --pair; put -- before the command";
                return Err(wrong(ErrorKind::ArgumentConflict, message));
            }
            (false, _) if all_are_behind => {
                let message = "the name of the lock is required before the --";
                return Err(wrong(ErrorKind::MissingRequiredArgument, message));
            }
            _ => {}
        }
        if self.command.is_empty() {
            let message = "a command is required behind the name of the lock";
            return Err(wrong(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(self)
    }
}

fn wrong(kind: ErrorKind, message: &str) -> Error {
    let mut command = command();
    command.build();
    let run = command.find_subcommand_mut("run");
    run.map_or_else(|| Error::raw(kind, message), |run| run.error(kind, message))
}

/// All that can be written.
pub(crate) fn command() -> clap::Command {
    // Behind a number, the first word of the command stands in the name's place.
    Cli::command().mut_subcommand("run", |run| {
        run.mut_group("Which", |which| which.multiple(true))
    })
}

impl Cli {
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, Error> {
        let matches = command().try_get_matches_from(arguments)?;
        let mut cli = <Self as clap::FromArgMatches>::from_arg_matches(&matches)?;
        if let Command::Run(args) = cli.command {
            let dashes = arguments.iter().position(|word| word == "--");
            let behind = dashes.map(|at| arguments.len() - at - 1);
            cli.command = Command::Run(args.settle(behind)?);
        }
        Ok(cli)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// The connection
    Session,
    /// A transaction, open for as long as the command runs
    Transaction,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Look again and again, every two seconds or at this interval
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s", value_parser = pause)]
    pub(crate) watch: Option<Duration>,

    /// Show the names in this file, one per line, in place of their numbers in any scheme; - is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) names: Option<PathBuf>,

    /// Look for the names in this namespace, too
    #[arg(long, value_name = "NS", requires = "names", value_parser = name)]
    pub(crate) namespace: Vec<String>,

    /// Show who waits for whom: waiters below the sessions that hold them up
    #[arg(long, conflicts_with = "json")]
    pub(crate) tree: bool,

    /// Print JSON: one array per look
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Show the N slots of the semaphore of that name, and the queue for them; the first in the
    /// queue holds the queue's key
    #[arg(long, value_name = "N", value_parser = slots(),
          conflicts_with_all = ["int", "pair", "namespace", "scheme"])]
    pub(crate) slots: Option<u32>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// The sessions that hold a slot of the semaphore of that name, which has N slots
    #[arg(long, value_name = "N", value_parser = slots(),
          conflicts_with_all = ["int", "pair", "namespace", "scheme"])]
    pub(crate) slots: Option<u32>,

    /// Only cancel the session's running statement
    #[arg(long, conflicts_with = "terminate")]
    pub(crate) cancel: bool,

    /// End the session; the default
    #[arg(long)]
    pub(crate) terminate: bool,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeyNameArgs {
    /// The name
    #[arg(value_parser = name)]
    pub(crate) name: String,

    /// The namespace that the name is in (only in pglock's own scheme)
    #[arg(long, value_name = "NS", value_parser = name)]
    pub(crate) namespace: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn slots() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=i64::from(Slots::MAX))
}
