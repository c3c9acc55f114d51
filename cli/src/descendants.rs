//! The processes that come of the command, also those that it has left behind: they work under the
//! lock, and must not outlive it.

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::exit::SIGNAL;

/// From now on, a descendant whose parent ends becomes a child of this process, so that none gets
/// lost. Only Linux has this.
pub(crate) fn adopt() {
    #[cfg(target_os = "linux")]
    {
        // If refused, it is as on other systems.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
}

/// What `reap` has found.
pub(crate) struct Reaped {
    /// How the process that was asked for has ended, if it was among them.
    pub(crate) status: Option<WaitStatus>,
    /// There are no children any more, and so no descendants that this process has adopted.
    pub(crate) was_last: bool,
}

/// Takes leave of all children that have ended, as parents must. Does not wait for any.
pub(crate) fn reap(child: Option<Pid>) -> Reaped {
    let mut status = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, ended))) if Some(pid) == child => status = Some(ended),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                return Reaped {
                    status,
                    was_last: false,
                };
            }
            Err(_) => {
                return Reaped {
                    status,
                    was_last: true,
                };
            }
        }
    }
}

/// The status of a process as shells count it.
pub(crate) fn code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, signal) => SIGNAL + u8::try_from(signal.unwrap_or(0)).unwrap_or(0),
    }
}

/// Who was sent a signal.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) count: usize,
    /// Those that this process has no right to end.
    pub(crate) refused: Vec<Pid>,
}

/// Sends a signal to all descendants but one.
#[cfg(target_os = "linux")]
pub(crate) fn tell_all(signal: rustix::process::Signal, except: Option<Pid>) -> Told {
    let mut told = Told::default();
    for pid in procfs::descendants().into_iter().filter_map(Pid::from_raw) {
        if Some(pid) == except {
            continue;
        }
        match rustix::process::kill_process(pid, signal) {
            Ok(()) => told.count += 1,
            Err(rustix::io::Errno::PERM) => told.refused.push(pid),
            Err(_) => {} // it has ended
        }
    }
    told
}

#[cfg(target_os = "linux")]
mod procfs {
    use std::collections::{HashMap, HashSet};

    struct Process {
        pid: i32,
        parent: i32,
        /// Its parent has yet to take leave of it.
        ended: bool,
    }

    /// Those that have not ended.
    pub(super) fn descendants() -> Vec<i32> {
        let mut children = HashMap::<_, Vec<_>>::new();
        for process in all() {
            children.entry(process.parent).or_default().push(process);
        }
        let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let (mut found, mut seen, mut next) = (Vec::new(), HashSet::from([own]), vec![own]);
        while let Some(parent) = next.pop() {
            for process in children.remove(&parent).unwrap_or_default() {
                // Processes end while this looks, and their numbers are used again.
                if seen.insert(process.pid) {
                    next.push(process.pid);
                    if !process.ended {
                        found.push(process.pid);
                    }
                }
            }
        }
        found
    }

    fn all() -> impl Iterator<Item = Process> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            read(pid, &String::from_utf8_lossy(&stat))
        })
    }

    /// The program's name, in parentheses, may have anything in it.
    fn read(pid: i32, stat: &str) -> Option<Process> {
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let ended = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        Some(Process { pid, parent, ended })
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn any_name_is_read() {
            for (stat, parent, ended) in [
                ("7 (sh) S 3 7 7 0", 3, false),
                ("7 (a) b) Z 9) Z 4 7", 4, true),
                ("7 () R 1 7", 1, false),
            ] {
                let process = super::read(7, stat).unwrap();
                assert_eq!((process.parent, process.ended), (parent, ended), "{stat}");
            }
            assert!(super::read(7, "7 (sh").is_none());
        }
    }
}
