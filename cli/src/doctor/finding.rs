//! What was found, and how it is shown.

use serde_json::{Value, json};

/// One thing that matters for locks.
#[derive(Debug)]
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
    let mut lines = Vec::new();
    for finding in findings {
        let (word, name) = (finding.level.word(), finding.name);
        lines.push(format!("{word:<8} {name}: {}", finding.sentence));
        lines.extend(
            finding
                .advice
                .iter()
                .map(|advice| format!("{:9}{advice}", "")),
        );
    }
    let unfit: Vec<_> = unfit(findings).map(|finding| finding.name).collect();
    lines.push(match unfit.as_slice() {
        [] => "This connection is fit for all forms of locks.".to_owned(),
        names => format!(
            "This connection is not fit for all forms of locks: {}.",
            names.join(", ")
        ),
    });
    lines.join("\n")
}

pub(super) fn json_of(findings: &[Finding]) -> Value {
    let object = |finding: &Finding| {
        json!({
            "name": finding.name,
            "level": finding.level.word(),
            "sentence": finding.sentence,
            "advice": finding.advice,
        })
    };
    json!({
        "fit": unfit(findings).next().is_none(),
        "findings": findings.iter().map(object).collect::<Vec<_>>(),
    })
}

fn unfit(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings
        .iter()
        .filter(|finding| finding.level == Level::Unfit)
}
