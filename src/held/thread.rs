//! A thread that keeps a session, and what is heard from it.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::office::LOOK;

/// A question to a server that is gone may hang, so nobody else waits for this one for longer than he wants.
#[derive(Debug)]
pub(crate) struct Thread<T> {
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    news: Mutex<Receiver<T>>,
}

/// What came of the wait for news.
pub(crate) enum Heard<T> {
    News(T),
    /// The caller waits no longer.
    Nothing,
    /// The thread has ended.
    Ended,
}

impl<T: Send + 'static> Thread<T> {
    pub(crate) fn start(body: impl FnOnce(&Sender<T>) + Send + 'static) -> io::Result<Self> {
        let (sender, news) = mpsc::channel();
        let thread = thread::Builder::new().name("pglock keeper".to_owned());
        let thread = thread.spawn(move || body(&sender))?;
        Ok(Self {
            thread: Some(thread),
            news: Mutex::new(news),
        })
    }

    /// Waits for news, for as long as the caller wants to. A panic of the thread comes out here.
    pub(crate) fn hear(&mut self, mut gives_up: impl FnMut() -> bool) -> Heard<T> {
        loop {
            match self.next(LOOK) {
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
    pub(crate) fn finish(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        loop {
            match self.next(patience.saturating_sub(start.elapsed())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.join();
                    return true;
                }
            }
        }
    }

    fn next(&mut self, patience: Duration) -> Result<T, RecvTimeoutError> {
        let news = self.news.get_mut().unwrap_or_else(PoisonError::into_inner);
        news.recv_timeout(patience)
    }

    fn join(&mut self) -> Option<thread::Result<()>> {
        self.thread.take().map(JoinHandle::join)
    }
}
