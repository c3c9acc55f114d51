//! What happened, by name, and how often.

use std::collections::BTreeMap;
use std::fmt;

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

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10}  {what}")?;
        }
        writeln!(f, "{:>10}  violations", self.violations())
    }
}
