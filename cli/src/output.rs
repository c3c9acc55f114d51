//! All that is printed. It decides nothing: a reader that is gone changes neither what is done nor the
//! exit status, and one that does not read holds up nothing that matters.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::exit::{Failure, OS};

/// Prints a line on standard output. `false`: nobody reads it any more.
pub(crate) fn print(line: impl Display) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    // In one piece, so that an error shows here.
    let printed = out
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush());
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(OS, format_args!("standard output: {error}"))),
    }
}

/// Prints a message on standard error.
pub(crate) fn say(message: impl Display) {
    prompt(format_args!("pglock: {message}\n"));
}

/// Prints a text on standard error as it is.
pub(crate) fn prompt(text: impl Display) {
    // If this cannot be printed, neither can its error.
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Messages that are still to be printed.
static UNREAD: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Prints a message on standard error from a thread of its own: a full pipe would hold up a caller that
/// has a command to watch.
pub(crate) fn say_aside(message: String) {
    if let Ok(thread) = thread::Builder::new().spawn(move || say(message)) {
        unread().push(thread);
    }
}

/// Waits until all messages are printed.
pub(crate) fn finish() {
    for thread in std::mem::take(&mut *unread()) {
        let _ = thread.join();
    }
}

fn unread() -> std::sync::MutexGuard<'static, Vec<JoinHandle<()>>> {
    UNREAD.lock().unwrap_or_else(PoisonError::into_inner)
}
