//! A thread that keeps a session, and what is heard from it.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::office::LOOK;

/// A question to a server that is gone may hang, so nobody else waits for this one for longer than he wants.
#[derive(Debug)]
pub(crate) struct Thread(Option<JoinHandle<()>>);

/// What came of the wait for news.
pub(crate) enum Heard<T> {
    News(T),
    /// The caller waits no longer.
    Nothing,
    /// The thread has ended.
    Ended,
}

impl Thread {
    pub(crate) fn start(body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let thread = thread::Builder::new().name("pglock keeper".to_owned());
        thread.spawn(body).map(|thread| Self(Some(thread)))
    }

    /// Waits for news, for as long as the caller wants to. A panic of the thread comes out here.
    pub(crate) fn hear<T>(
        &mut self,
        news: &Receiver<T>,
        mut gives_up: impl FnMut() -> bool,
    ) -> Heard<T> {
        loop {
            match news.recv_timeout(LOOK) {
                Ok(news) => return Heard::News(news),
                Err(RecvTimeoutError::Timeout) if !gives_up() => {}
                Err(RecvTimeoutError::Timeout) => return Heard::Nothing,
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(Err(panic)) = self.join() {
                        resume_unwind(panic);
                    }
                    return Heard::Ended;
                }
            }
        }
    }

    /// Waits until the thread has closed its end. Returns `false` if it has not in that time.
    pub(crate) fn finish<T>(&mut self, news: &Receiver<T>, patience: Duration) -> bool {
        let start = Instant::now();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            match news.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.join();
                    return true;
                }
            }
        }
    }

    fn join(&mut self) -> Option<thread::Result<()>> {
        self.0.take().map(JoinHandle::join)
    }
}
