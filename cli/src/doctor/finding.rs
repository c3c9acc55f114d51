//! What was found, and how it is shown.

use serde::{Serialize, Serializer};

use crate::table::prose;

/// One thing that matters for locks.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) level: Level,
    /// What it means for locks.
    pub(super) sentence: String,
    /// What to change.
    pub(super) advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Fine,
    /// Good to know.
    Note,
    /// Locks work, with a drawback.
    Warning,
    /// Some or all forms of locks do not work.
    Unfit,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Unfit => "unfit",
        }
    }
}

impl Finding {
    pub(super) fn fine(name: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Fine,
            sentence: sentence.into(),
            advice: None,
        }
    }

    pub(super) fn new(
        level: Level,
        name: &'static str,
        sentence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            name,
            level,
            sentence: sentence.into(),
            advice: Some(advice.into()),
        }
    }
}

/// A line per finding, what to change below it, and the verdict.
pub(super) fn text_of(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        let (word, name) = (finding.level.word(), finding.name);
        rows.push([word.to_owned(), format!("{name}: {}", finding.sentence)]);
        rows.extend(
            finding
                .advice
                .iter()
                .map(|advice| [String::new(), advice.clone()]),
        );
    }
    let unfit: Vec<_> = unfit(findings).map(|finding| finding.name).collect();
    let verdict = match unfit.as_slice() {
        [] => "This connection is fit for all forms of locks.".to_owned(),
        names => format!(
            "This connection is not fit for all forms of locks: {}.",
            names.join(", ")
        ),
    };
    format!("{}\n{verdict}", prose(rows))
}

/// All findings, for programs.
#[derive(Serialize)]
pub(super) struct Report<'f> {
    fit: bool,
    findings: &'f [Finding],
}

impl<'f> Report<'f> {
    pub(super) fn of(findings: &'f [Finding]) -> Self {
        Self {
            fit: unfit(findings).next().is_none(),
            findings,
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

fn unfit(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings
        .iter()
        .filter(|finding| finding.level == Level::Unfit)
}
