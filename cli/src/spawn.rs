//! Starts the command, such that it does not survive a killed pglock.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

use rustix::process::{Pid, Signal, getppid, kill_process, kill_process_group};

use crate::exit::{CANNOT_RUN, Failure, NOT_FOUND};

/// The argument by which pglock becomes the command.
const BECOME: &str = "--become-the-command-of";

/// pglock itself.
const SELF: &str = "/proc/self/exe";

/// Where the command finds the number of its slot.
const SLOT: &str = "PGLOCK_SLOT";

/// A running command, and where its signals go.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// Without a terminal, and so without job control to disturb, the command has a process group of
    /// its own, so that signals reach its children too.
    pub(crate) own_group: bool,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn tell(&self, signal: Signal) {
        let _ = if self.own_group {
            kill_process_group(self.pid(), signal)
        } else {
            kill_process(self.pid(), signal)
        };
    }
}

/// Starts the command: on Linux through pglock itself, which asks for a TERM at its parent's death and
/// then becomes the command. (Without unsafe code, only another program can run between fork and
/// exec.) The command finds the number of its slot in its environment.
pub(crate) fn spawn(command: &[OsString], slot: Option<u32>) -> Result<Running, Failure> {
    let (program, arguments) = split(command);
    let mut starter = if cfg!(target_os = "linux") {
        if !Path::new(SELF).exists() {
            let message = format!("run needs {SELF}, and /proc is not mounted");
            return Err(Failure::new(CANNOT_RUN, message));
        }
        let mut starter = Command::new(SELF);
        starter
            .arg(BECOME)
            .arg(std::process::id().to_string())
            .arg(program);
        starter
    } else {
        Command::new(program)
    };
    match slot {
        Some(slot) => starter.env(SLOT, slot.to_string()),
        None => starter.env_remove(SLOT), // from an outer pglock
    };
    let own_group = File::open("/dev/tty").is_err();
    if own_group {
        starter.process_group(0);
    }
    let child = starter.args(arguments).spawn();
    let child = child.map_err(|error| cannot_run(command, &error))?;
    Ok(Running { child, own_group })
}

/// Becomes the command, if pglock was started for that. Returns only if not, or if it cannot.
pub(crate) fn become_the_command() -> Option<Failure> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [mode, parent, command @ ..] = arguments.as_slice() else {
        return None;
    };
    if mode != BECOME || command.is_empty() {
        return None;
    }
    #[cfg(target_os = "linux")]
    {
        // If refused, it is as on other systems.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    }
    let alive =
        getppid().is_some_and(|pid| parent.to_str() == Some(&pid.as_raw_nonzero().to_string()));
    if !alive {
        return Some(Failure::new(
            CANNOT_RUN,
            "pglock is gone, and the lock with it",
        ));
    }
    let (program, arguments) = split(command);
    let error = Command::new(program).args(arguments).exec();
    // exec has set SIGPIPE to its default, so a message that nobody reads would end this process.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::default());
    Some(cannot_run(command, &error))
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
