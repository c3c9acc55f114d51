//! Tables for `docs/performance.md`.

use std::fs;
use std::path::{Path, PathBuf};

use super::measures;

pub struct Table {
    name: String,
    lines: Vec<Vec<String>>,
}

impl Table {
    pub fn new(name: &str, heads: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            lines: vec![
                heads.iter().copied().map(str::to_owned).collect(),
                heads.iter().map(|_| "---".to_owned()).collect(),
            ],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.lines.push(cells.into_iter().collect());
    }

    /// Prints the table, and keeps it for the bench `charts`.
    pub fn finish(self) {
        let lines = self
            .lines
            .iter()
            .map(|cells| format!("| {} |\n", cells.join(" | ")));
        let text: String = lines.collect();
        println!("\n{}:\n\n{text}", self.name);
        if measures() {
            fs::create_dir_all(folder()).expect("a folder for the tables");
            fs::write(path(&self.name), text).expect("a file for the table");
        }
    }

    /// The table of the last run, as text.
    pub fn text(name: &str) -> String {
        let path = path(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run the benches first", path.display()))
    }

    /// The cells of the last run, without the heads.
    pub fn read(name: &str) -> Vec<Vec<String>> {
        let text = Self::text(name);
        let rows = text.lines().skip(2).map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        });
        rows.collect()
    }
}

fn path(name: &str) -> PathBuf {
    folder().join(format!("{name}.md"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/performance")
}
