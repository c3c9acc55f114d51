//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use pglock::Slots;

use crate::key_args::KeyArgs;
use crate::times::{lease, pause, time};
use crate::wanted::Wanted;

const AFTER: &str = "\
Connection:
  --url, else DATABASE_URL, else what libpq reads by itself: PGHOST, PGPORT, PGUSER,
  PGDATABASE, the other PG* variables, ~/.pgpass and pg_service.conf.

Keys:
  A name is hashed as the library pglock does it; `pglock key NAME` shows the number, and
  those of other libraries (--scheme). Locks of different databases have nothing to do with
  each other.

Exit status:
    0  done
    1  nobody holds it (who, kill), not fit (doctor)
   64  wrong usage
   69  no connection, or the server refused
   71  system error
   75  somebody else holds the lock
   76  the lock was lost while the command ran
  126  the command cannot be run
  127  the command was not found
128+n  the command was ended by signal n";

/// Locks that live in PostgreSQL: run commands under them, and see who holds them.
#[derive(Debug, Parser)]
#[command(name = "pglock", version, after_long_help = AFTER)]
pub(crate) struct Cli {
    /// The database, as a URL or as libpq's keyword=value pairs
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    pub(crate) url: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command under a lock, as flock(1) does for one machine
    #[command(after_long_help = "\
Examples:
  pglock run nightly-report --try --at-least 5m -- ./report.sh
                                           from cron: one machine of the fleet does it
  pglock run deploy --timeout 5m -- make deploy
                                           one at a time, five minutes' patience
  pglock run mail --slots 3 -- ./send.sh
                                           three at a time
  pglock run catalogue --shared -- ./read-only.sh
                                           beside others, not beside a writer

The exit status is the command's own, or 128+n if signal n ended it. It is 75 if somebody
else holds the lock, 127 if there is no such command, 126 if it cannot be run, and 76 if the
lock was lost while the command ran. TERM, INT, HUP, QUIT, USR1 and USR2 are passed on to the
command; where there is no terminal, signals go to its children too.

--try alone keeps runs apart that overlap: where the clocks of two machines differ, a short
job can still run on one after the other. --at-least keeps the lock for longer than the
clocks differ, even when the command is done sooner. TERM, INT, HUP and QUIT end that.

If pglock, its host or the network freezes, the server frees the lock after the lease
(--lease). The command is ended before: by TERM when an answer has been overdue for long, and
after the grace time by KILL, both within the lease. A pglock that is stopped itself cannot do
so. If the connection breaks, the lock is free at once, and the command is ended then.

However the command or pglock ends, the lock is free afterwards. On Linux, a pglock that is
killed takes its command with it (TERM).")]
    Run(RunArgs),
    /// List all advisory locks of the database: who holds them, who waits
    Ls(LsArgs),
    /// Show who holds a lock, and who waits for it (status 1: nobody holds it)
    Who(WhoArgs),
    /// End the sessions that hold a lock (status 1: nobody holds it)
    #[command(after_long_help = "\
The session is ended by pg_terminate_backend: its transaction is rolled back, and all its
locks are free. --cancel only cancels the statement that it runs: its client is told, and may
then let go; an idle session stays as it is. A prepared transaction has no session: what ends
it is printed (status 69). It takes the rights of the same database user, of
pg_signal_backend, or of a superuser.")]
    Kill(KillArgs),
    /// Say what this connection is worth for locks, and what to change (status 1: not fit)
    #[command(after_long_help = "\
It opens two connections, and looks at what is between them and the server, at timeouts, at what
happens to the lock of a client that vanishes, at the room in the lock table, at the rights of
this user, and at the kind of transactions. Behind a pooler, what the server says is of the
pooler's connection. Each line is a finding: 'ok', 'note' (to be known), 'warning' (locks work,
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
        /// The directory, which exists
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Run up to N at a time: a semaphore of that name with N slots, of which the command finds
    /// its own, from 0 on, in PGLOCK_SLOT
    #[arg(long, value_name = "N", value_parser = slots(),
          conflicts_with_all = ["int", "pair", "namespace", "scheme", "shared", "scope"])]
    pub(crate) slots: Option<u32>,

    /// Share the lock with other shared holders
    #[arg(short, long)]
    pub(crate) shared: bool,

    /// Wait for at most this long, such as 5s, 300ms or "1m 30s"; for ever by default
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,

    /// Do not wait at all
    #[arg(short = 'n', long = "try", conflicts_with = "timeout")]
    pub(crate) no_wait: bool,

    /// What the lock belongs to; behind a pooler in transaction mode it must be the transaction
    #[arg(long, value_enum, default_value_t = ScopeArg::Session)]
    pub(crate) scope: ScopeArg,

    /// The exit status if somebody else holds the lock
    #[arg(short = 'E', long, value_name = "STATUS", default_value_t = crate::exit::BUSY)]
    pub(crate) busy_status: u8,

    /// How long the server waits for a word from pglock before somebody else can have the lock
    #[arg(long, value_name = "TIME", value_parser = lease, default_value = "10s")]
    pub(crate) lease: Duration,

    /// How long the command has between TERM and KILL when the lock is lost; where the server is
    /// only silent, at most four tenths of the lease
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "3s")]
    pub(crate) grace: Duration,

    /// Keep the lock for at least this long from the start of the command
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) at_least: Option<Duration>,

    /// Say nothing if somebody else holds the lock
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
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
    /// Look again and again, every two seconds or with this time between two looks
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s", value_parser = pause)]
    pub(crate) watch: Option<Duration>,

    /// Show the names in this file, one a line, for their numbers in every scheme; - is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) names: Option<PathBuf>,

    /// Look for the names in this namespace, too
    #[arg(long, value_name = "NS", requires = "names")]
    pub(crate) namespace: Vec<String>,

    /// Show who waits for whom: waiters below the sessions that hold them up
    #[arg(long, conflicts_with = "json")]
    pub(crate) tree: bool,

    /// Print JSON: one array a look
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Of the N slots of that semaphore, and of the queue for them; its first holds the queue
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

    /// Only cancel what the session is doing
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
    pub(crate) name: String,

    /// The namespace that the name is in (pglock's own scheme alone)
    #[arg(long, value_name = "NS")]
    pub(crate) namespace: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn slots() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=i64::from(Slots::MAX))
}

impl RunArgs {
    pub(crate) fn wanted(&self) -> Wanted {
        self.key.wanted(self.slots)
    }
}

impl WhoArgs {
    pub(crate) fn wanted(&self) -> Wanted {
        self.key.wanted(self.slots)
    }
}
