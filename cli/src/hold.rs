//! What is held while a command runs.

use std::sync::mpsc::Sender;
use std::time::Duration;

use pglock::LockInfo;
use pglock::held::Held;

use crate::exit::{Failure, LOST, chain};
use crate::signals::Event;
use crate::transaction::Kept;

pub(crate) enum Hold {
    Session(Held),
    Transaction(Kept),
}

impl Hold {
    pub(crate) fn lock_info(&self) -> &LockInfo {
        match self {
            Self::Session(held) => held.lock_info(),
            Self::Transaction(kept) => &kept.lock,
        }
    }

    pub(crate) fn slot(&self) -> Option<u32> {
        match self {
            Self::Session(held) => held.slot(),
            Self::Transaction(_) => None,
        }
    }

    pub(crate) fn lease(&self) -> Duration {
        match self {
            Self::Session(held) => held.lease(),
            Self::Transaction(kept) => kept.lease.time(),
        }
    }

    /// How long the lock is still held if the server says nothing more. `None`: it is lost, as an event
    /// says.
    pub(crate) fn left(&self) -> Option<Duration> {
        match self {
            Self::Session(held) => Some(held.left()).filter(|_| !held.is_lost()),
            Self::Transaction(kept) => Some(kept.left()),
        }
    }

    /// Has the loss sent as an event.
    pub(crate) fn tell(&self, events: Sender<Event>) {
        if let Self::Session(held) = self {
            held.on_loss(move |error| {
                let reason = std::error::Error::source(error).map_or_else(|| chain(error), chain);
                let _ = events.send(Event::Lost(reason));
            });
        }
    }

    /// The error says that it was not held to the end, or that nobody knows.
    pub(crate) fn release(self) -> Result<(), Failure> {
        match self {
            Self::Session(held) => held.release().map_err(|error| Failure::of(LOST, &error)),
            Self::Transaction(kept) => kept.release(),
        }
    }
}
