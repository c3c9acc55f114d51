//! Starts the command, such that it does not survive a killed pglock.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Pid, Signal, getppid};

use crate::args::RunArgs;
use crate::descendants;
use crate::exit::{CANNOT_RUN, Failure, NOT_FOUND};
use crate::running::Running;

/// The argument by which pglock becomes the command.
pub(crate) const BECOME: &str = "--become-the-command-of";

/// The argument by which pglock becomes a warden.
pub(crate) const WATCH: &str = "--watch-over-the-command-of";

/// pglock itself.
const SELF: &str = "/proc/self/exe";

/// Where the command finds the number of its slot.
const SLOT: &str = "PGLOCK_SLOT";

/// Starts the command, on Linux through a warden. The command finds the number of its slot in its
/// environment.
pub(crate) fn spawn(args: &RunArgs, slot: Option<u32>) -> Result<Running, Failure> {
    descendants::adopt();
    let own_group = File::open("/dev/tty").is_err();
    let (program, arguments) = split(&args.command);
    if !cfg!(target_os = "linux") {
        let starter = with_slot(Command::new(program), slot);
        return begin(starter, own_group, &args.command, arguments);
    }
    if !Path::new(SELF).exists() {
        let message = format!("run needs {SELF}, and /proc is not mounted");
        return Err(Failure::new(CANNOT_RUN, message));
    }
    let mut starter = with_slot(Command::new(SELF), slot);
    starter.arg(WATCH).arg(std::process::id().to_string());
    starter.arg(args.grace.as_millis().to_string());
    let child = starter.args(&args.command).spawn();
    let child = child.map_err(|error| cannot_run(&args.command, &error))?;
    Ok(Running::warden(Pid::from_child(&child), own_group))
}

/// Starts the command as a child of this process, which it does not survive: through pglock itself,
/// which asks for a TERM at its parent's death and then becomes the command. (Without unsafe code, only
/// another program can run between fork and exec.)
pub(crate) fn spawn_here(command: &[OsString]) -> Result<Running, Failure> {
    let own_group = File::open("/dev/tty").is_err();
    let mut starter = Command::new(SELF);
    starter.arg(BECOME).arg(std::process::id().to_string());
    begin(starter, own_group, command, command)
}

fn begin(
    mut starter: Command,
    own_group: bool,
    command: &[OsString],
    arguments: &[OsString],
) -> Result<Running, Failure> {
    if own_group {
        starter.process_group(0);
    }
    let child = starter.args(arguments).spawn();
    let child = child.map_err(|error| cannot_run(command, &error))?;
    Ok(Running::command(Pid::from_child(&child), own_group))
}

fn with_slot(mut starter: Command, slot: Option<u32>) -> Command {
    match slot {
        Some(slot) => starter.env(SLOT, slot.to_string()),
        None => starter.env_remove(SLOT), // from an outer pglock
    };
    starter
}

/// Asks for a signal when the parent ends.
pub(crate) fn tell_if_parent_ends(parent: &OsStr, signal: Signal) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    {
        // If refused, it is as on other systems.
        let _ = rustix::process::set_parent_process_death_signal(Some(signal));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = signal;
    let alive =
        getppid().is_some_and(|pid| parent.to_str() == Some(&pid.as_raw_nonzero().to_string()));
    match alive {
        true => Ok(()),
        false => {
            let message = "pglock is gone, and the lock with it";
            Err(Failure::new(CANNOT_RUN, message))
        }
    }
}

pub(crate) fn become_the_command(command: &[OsString]) -> Failure {
    let (program, arguments) = split(command);
    let error = Command::new(program).args(arguments).exec();
    // exec has set SIGPIPE to its default, so a message that nobody reads would end this process.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::default());
    cannot_run(command, &error)
}

fn split(command: &[OsString]) -> (&OsString, &[OsString]) {
    match command {
        [program, arguments @ ..] => (program, arguments),
        [] => unreachable!("the command line requires a command"),
    }
}

fn cannot_run(command: &[OsString], error: &Error) -> Failure {
    let program = command.first().map(|program| program.to_string_lossy());
    let program = program.unwrap_or_default();
    match error.kind() {
        ErrorKind::NotFound => {
            Failure::new(NOT_FOUND, format_args!("{program}: command not found"))
        }
        _ => Failure::new(
            CANNOT_RUN,
            format_args!("{program}: cannot be run: {error}"),
        ),
    }
}
