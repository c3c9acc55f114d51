//! The running command: where its signals go, and when it is gone.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process, kill_process_group};

use crate::descendants::{self, Told};
use crate::output::say_aside;

pub(crate) struct Running {
    pid: Pid,
    /// The process is not the command, but the warden that passes signals on to it (Linux).
    is_warden: bool,
    /// Without a terminal, and so without job control to disturb, the command has a process group of
    /// its own, so that signals reach its children too.
    pub(crate) own_group: bool,
    /// How it has ended.
    pub(crate) status: Option<WaitStatus>,
    /// So have all that came of it, as far as this system tells.
    pub(crate) gone: bool,
}

impl Running {
    pub(crate) fn warden(pid: Pid, own_group: bool) -> Self {
        Self {
            is_warden: true,
            ..Self::command(pid, own_group)
        }
    }

    pub(crate) fn command(pid: Pid, own_group: bool) -> Self {
        Self {
            pid,
            is_warden: false,
            own_group,
            status: None,
            gone: false,
        }
    }

    /// Passes a signal on, and says so if it may not.
    pub(crate) fn tell(&self, signal: Signal) {
        let told = if self.has_group() {
            kill_process_group(self.pid, signal)
        } else if self.status.is_none() {
            // Until it is reaped, no other process can get its number.
            kill_process(self.pid, signal)
        } else {
            Ok(())
        };
        if told == Err(Errno::PERM) {
            let message = "the command runs as another user, and pglock may not send it signals";
            say_aside(message.to_owned());
        }
    }

    /// Sends a signal to the command and to all that came of it, on Linux wherever they are.
    pub(crate) fn end(&self, signal: Signal) -> Told {
        #[cfg(target_os = "linux")]
        {
            // The warden would pass it on, and ends by itself.
            let spared = self.is_warden && signal != Signal::KILL;
            descendants::tell_all(signal, spared.then_some(self.pid))
        }
        #[cfg(not(target_os = "linux"))]
        {
            self.tell(signal);
            Told::default()
        }
    }

    /// Finds out whether it has ended.
    pub(crate) fn reap(&mut self) {
        let reaped = descendants::reap(Some(self.pid));
        self.status = self.status.or(reaped.status);
        self.gone = match cfg!(target_os = "linux") {
            true => reaped.was_last,
            false => self.status.is_some() && !self.has_group(),
        };
    }

    /// Nobody but a warden's KILL ends it by a signal: it ends with a status.
    pub(crate) fn has_lost_its_warden(&self) -> bool {
        let signal = self.status.and_then(WaitStatus::terminating_signal);
        self.is_warden && signal.is_some()
    }

    /// Whether its group has members: the group's number is not given away before.
    fn has_group(&self) -> bool {
        let may_have = self.own_group && !self.is_warden;
        may_have && rustix::process::test_kill_process_group(self.pid).is_ok()
    }
}
