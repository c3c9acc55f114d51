//! What `pglock doctor` says.

use serde_json::Value;

use crate::process::pglock;

/// What the doctor says, and its status.
pub struct Report {
    pub json: Value,
    status: i32,
}

impl Report {
    pub fn of(url: &str) -> Self {
        Self::with(url, "")
    }

    /// With settings for the session.
    pub fn with(url: &str, settings: &str) -> Self {
        let mut command = pglock(&["--url", url, "doctor", "--json"]);
        let output = command.env("PGOPTIONS", settings).output().unwrap();
        let json = serde_json::from_slice(&output.stdout);
        Self {
            json: json.unwrap_or_else(|error| panic!("{error}: {output:?}")),
            status: output.status.code().unwrap(),
        }
    }

    /// The level and the sentence of a finding.
    #[track_caller]
    pub fn finding(&self, name: &str) -> (&str, &str) {
        let findings = self.json["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["name"] == name);
        let finding = finding.unwrap_or_else(|| panic!("no {name}: {}", self.json));
        let advised = finding["advice"].is_string();
        assert_eq!(advised, finding["level"] != "ok", "{finding}");
        let text = |field: &str| finding[field].as_str().unwrap();
        (text("level"), text("sentence"))
    }

    #[track_caller]
    pub fn level(&self, name: &str) -> &str {
        self.finding(name).0
    }

    /// Fit or not, and only for these reasons.
    #[track_caller]
    pub fn assert_unfit(&self, reasons: &[&str]) {
        let findings = self.json["findings"].as_array().unwrap();
        let unfit = findings
            .iter()
            .filter(|finding| finding["level"] == "unfit");
        let unfit: Vec<_> = unfit.map(|finding| finding["name"].as_str()).collect();
        let reasons: Vec<_> = reasons.iter().copied().map(Some).collect();
        assert_eq!(unfit, reasons, "{}", self.json);
        assert_eq!(self.json["fit"], reasons.is_empty());
        assert_eq!(self.status, i32::from(!reasons.is_empty()));
    }
}
