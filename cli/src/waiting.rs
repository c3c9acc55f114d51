//! What `pglock run` says while it waits: for what, and who holds it.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use diesel::pg::PgConnection;
use indicatif::{ProgressBar, ProgressStyle};
use pglock::Mode;

use crate::args::RunArgs;
use crate::connection::connect;
use crate::exit::Failure;
use crate::groups::{Does, Session, groups};
use crate::output::{harmless, say};
use crate::show::seen;
use crate::wanted::Wanted;

/// A wait that is over by then is no news.
const SILENT: Duration = Duration::from_secs(1);

/// From one look to the next, for a line that is kept current.
const PAUSE: Duration = Duration::from_secs(2);

/// How many holders are named.
const FEW: usize = 3;

/// A wait that may be told of. Dropped, nothing more is said of it.
pub(crate) struct Waiting {
    shown: Arc<Mutex<Shown>>,
    _ends: Sender<()>,
}

enum Shown {
    Nothing,
    /// On a terminal.
    Line(ProgressBar),
    Over,
}

impl Waiting {
    /// Looks over a connection of its own, since the wait takes the other one; a look that fails says
    /// nothing. Without a terminal it looks once.
    pub(crate) fn begin(url: &str, args: &RunArgs) -> Self {
        let (url, wanted) = (url.to_owned(), args.key.wanted(args.slots));
        let shown = Arc::new(Mutex::new(match args.quiet {
            true => Shown::Over,
            false => Shown::Nothing,
        }));
        let (ends, over) = mpsc::channel();
        if !args.quiet {
            let shown = Arc::clone(&shown);
            // Not joined: on a silent network it may hang.
            let _ = thread::Builder::new().spawn(move || tell(&url, &wanted, &shown, &over));
        }
        Self { shown, _ends: ends }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Shown::Line(line) = &*shown {
            line.finish_and_clear();
        }
        *shown = Shown::Over;
    }
}

fn tell(url: &str, wanted: &Wanted, shown: &Mutex<Shown>, over: &Receiver<()>) {
    let is_over = |time| over.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
    if is_over(SILENT) {
        return;
    }
    let Ok(mut connection) = connect(url, "pglock run") else {
        return;
    };
    loop {
        if let Ok(text) = text(&mut connection, wanted) {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            match &*shown {
                Shown::Over => return,
                Shown::Line(line) => line.set_message(harmless(&text)),
                Shown::Nothing if io::stderr().is_terminal() => *shown = Shown::Line(line(&text)),
                Shown::Nothing => return say(text),
            }
        }
        if is_over(PAUSE) {
            return;
        }
    }
}

fn line(text: &str) -> ProgressBar {
    let line = ProgressBar::new_spinner().with_elapsed(SILENT);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        line.set_style(style);
    }
    line.set_message(harmless(text));
    line.enable_steady_tick(Duration::from_millis(250));
    line
}

/// `waiting for "deploy" with 2 others, held by pid 4711 "pglock: make", held for 8m 2s`
fn text(connection: &mut PgConnection, wanted: &Wanted) -> Result<String, Failure> {
    let (claims, names) = seen(connection, wanted)?;
    let groups = groups(&claims, &names);
    let group = groups.iter().find(|group| wanted.is_itself(&group.what));
    let sessions = group.map_or(&[][..], |group| &group.sessions);
    let holders: Vec<_> = sessions.iter().filter(|one| one.does.holds()).collect();
    let waiters = sessions.iter().filter(|one| one.does == Does::Waits);
    // This process is one of them.
    let mut text = match waiters.count().saturating_sub(1) {
        0 => format!("waiting for {wanted}"),
        1 => format!("waiting for {wanted} with another"),
        others => format!("waiting for {wanted} with {others} others"),
    };
    if !holders.is_empty() {
        let named: Vec<_> = holders
            .iter()
            .take(FEW)
            .map(|holder| name(holder))
            .collect();
        text = format!("{text}, held by {}", named.join(" and "));
    }
    if holders.len() > FEW {
        text = format!("{text} and {} more", holders.len() - FEW);
    }
    Ok(text)
}

fn name(holder: &Session<'_>) -> String {
    match holder.claim.mode {
        Mode::Exclusive => holder.claim.to_string(),
        Mode::Shared => format!("{} (shared)", holder.claim),
    }
}
