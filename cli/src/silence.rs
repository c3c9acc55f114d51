//! For how long the server has said nothing, in time that pglock itself was awake for.

use std::time::{Duration, Instant};

/// Between two looks at the socket, which ask nothing of the server.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

pub(crate) struct Silence {
    limit: Duration,
    lasted: Duration,
    last_look: Instant,
}

impl Silence {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            lasted: Duration::ZERO,
            last_look: Instant::now(),
        }
    }

    /// Counts the time since the last look, and says whether the server has been silent for too
    /// long.
    ///
    /// What exceeds a look's time counts for nothing: pglock was stopped, and the answer may have
    /// come meanwhile.
    pub(crate) fn is_too_long(&mut self, heard: bool) -> bool {
        let now = Instant::now();
        let awake = now.duration_since(self.last_look).min(LOOK);
        self.last_look = now;
        self.lasted = match heard {
            true => Duration::ZERO,
            false => self.lasted + awake,
        };
        self.lasted > self.limit
    }
}
