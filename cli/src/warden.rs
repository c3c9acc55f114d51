//! The warden: a process between pglock and its command, on Linux. If pglock is killed, it ends the
//! command and all that came of it; if the warden is killed, pglock does.

use std::ffi::{OsStr, OsString};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::consts::SIGCHLD;

use crate::descendants;
use crate::ending::{Ended, Ending};
use crate::exit::{Failure, LOST, RUNS_ON};
use crate::output::say_aside;
use crate::running::Running;
use crate::signals::{LOOK, is_by_terminal, origins};
use crate::spawn::{BECOME, WATCH, become_the_command, spawn_here, tell_if_parent_ends};

/// Tells the warden that pglock ends. It comes before the last thread of pglock has ended, and
/// so while pglock still looks like the parent. Nothing else sends it.
const PARENT_ENDS: Signal = Signal::ALARM;

/// Becomes the command, or its warden, if pglock was started for that. Returns only if not, if it
/// cannot, or when the warden's work is done.
pub(crate) fn become_another() -> Option<Result<u8, Failure>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [mode, parent, command @ ..] if mode == BECOME && !command.is_empty() => {
            let gone = tell_if_parent_ends(parent, Signal::TERM).err();
            Some(Err(gone.unwrap_or_else(|| become_the_command(command))))
        }
        [mode, parent, grace, command @ ..] if mode == WATCH && !command.is_empty() => {
            Some(watch(parent, grace, command))
        }
        _ => None,
    }
}

/// Runs the command, passes signals on to it, and returns its status. `grace` is in milliseconds.
fn watch(parent: &OsStr, grace: &OsStr, command: &[OsString]) -> Result<u8, Failure> {
    let mut origins = origins(&[PARENT_ENDS.as_raw()])?;
    tell_if_parent_ends(parent, PARENT_ENDS)?;
    descendants::adopt();
    let mut running = spawn_here(command)?;
    for origin in origins.forever() {
        running.reap();
        if origin.signal == PARENT_ENDS.as_raw() {
            let grace = grace.to_str().and_then(|grace| grace.parse().ok());
            return Ok(end(&mut running, Duration::from_millis(grace.unwrap_or(0))));
        }
        if let Some(status) = running.status {
            return Ok(descendants::code(status));
        }
        if origin.signal != SIGCHLD
            && (running.own_group || !is_by_terminal(&origin))
            && let Some(signal) = Signal::from_named_raw(origin.signal)
        {
            running.tell(signal);
        }
    }
    unreachable!("the iterator over signals does not end")
}

/// pglock is gone, and the lock with it.
fn end(running: &mut Running, grace: Duration) -> u8 {
    if !running.gone {
        say_aside("pglock was killed and the lock is lost, ending the command".to_owned());
    }
    let mut ending = Ending::lost(running, grace);
    loop {
        match ending.go_on(running) {
            Some(Ended::RunsOn) => return RUNS_ON,
            Some(Ended::Lost | Ended::ByItself(_)) => return LOST,
            None => sleep(LOOK),
        }
        running.reap();
    }
}
