//! What happened, by name, and how often.

use std::collections::BTreeMap;
use std::fmt;

use pglock::Error;

/// How the names of broken promises begin.
const VIOLATION: &str = "VIOLATION";

#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
}

impl Tally {
    pub fn count(&mut self, what: &str) {
        self.count_many(what, 1);
    }

    pub fn count_many(&mut self, what: &str, times: u64) {
        *self.counts.entry(what.to_owned()).or_default() += times;
    }

    pub fn violation(&mut self, what: &str) {
        eprintln!("{VIOLATION}: {what}");
        self.count(&format!("{VIOLATION}: {what}"));
    }

    /// An outcome beside faults: what it is called, and whether something explains the error.
    pub fn outcome(
        &mut self,
        outcome: &Result<(), Error>,
        [done, over]: [&str; 2],
        explained: impl Fn(&Error) -> bool,
    ) {
        match outcome {
            Ok(()) => self.count(&format!("outcomes: {done}")),
            Err(error) if explained(error) => self.count(&format!("outcomes: {over}")),
            Err(error) => self.violation(&format!("no fault explains this error: {error:?}")),
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            self.count_many(what, *count);
        }
    }

    pub fn violations(&self) -> u64 {
        let violations = self.counts.iter();
        let violations = violations.filter(|(what, _)| what.starts_with(VIOLATION));
        violations.map(|(_, count)| count).sum()
    }

    /// As one line, for [`Tally::read`] in the parent process.
    pub fn line(&self) -> String {
        let counts: Vec<_> = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count} {what}").replace(['\n', ';'], " "))
            .collect();
        counts.join(";")
    }

    pub fn read(line: &str) -> Self {
        let counts = line.split(';').filter_map(|entry| {
            let (count, what) = entry.split_once(' ')?;
            Some((what.to_owned(), count.parse().ok()?))
        });
        Self {
            counts: counts.collect(),
        }
    }
}

/// A cut connection or a cancelled statement can cause each of these while something is held elsewhere.
pub fn by_a_fault(error: &Error) -> bool {
    matches!(
        error,
        Error::Stopped { .. }
            | Error::Checkout { .. }
            | Error::Canceled { .. }
            | Error::ConnectionLost { .. }
            | Error::LockLost { .. }
    )
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10}  {what}")?;
        }
        writeln!(f, "{:>10}  violations", self.violations())
    }
}
