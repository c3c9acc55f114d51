//! Whether the server has said something unasked, such as why it ends the session. libpq would read that
//! as a notice, and drop it; after the next question it is the answer.

use std::collections::BTreeSet;
use std::fs::{metadata, read_dir};
use std::os::fd::RawFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::OnceLock;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Sockets that were there before the first connection: inherited ones.
static OTHERS: OnceLock<BTreeSet<RawFd>> = OnceLock::new();

/// To be called before each connection is opened.
pub(crate) fn about_to_connect() {
    OTHERS.get_or_init(sockets);
}

fn sockets() -> BTreeSet<RawFd> {
    let entries = read_dir("/dev/fd").into_iter().flatten().flatten();
    let is_socket =
        |path: &std::path::Path| metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let sockets = entries.filter(|entry| is_socket(&entry.path()));
    sockets
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The sockets of this process, since libpq's cannot be told from others; news of one costs a question.
pub(crate) struct Wire {
    /// `None`: there are none to be found.
    poll: Option<(Poll, Events)>,
}

impl Wire {
    pub(crate) fn listen() -> Self {
        let others = OTHERS.get_or_init(BTreeSet::new);
        let poll = Poll::new().and_then(|poll| {
            for socket in sockets().difference(others) {
                let registry = poll.registry();
                registry.register(&mut SourceFd(socket), Token(0), Interest::READABLE)?;
            }
            Ok((poll, Events::with_capacity(8)))
        });
        Self { poll: poll.ok() }
    }

    /// Whether something has arrived since the last call.
    pub(crate) fn has_news(&mut self) -> bool {
        let Some((poll, events)) = &mut self.poll else {
            return false;
        };
        poll.poll(events, Some(Duration::ZERO)).is_ok() && !events.is_empty()
    }
}
