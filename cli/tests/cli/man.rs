//! The manual pages and the completions, as in the packages.

use std::fs;
use std::path::PathBuf;

use crate::oracle::unique_name;
use crate::process::{assert_fails, stdout};

/// The subcommands as `pglock --help` lists them.
fn subcommands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let list = help.split_once("\nCommands:\n").unwrap().1;
    let list = list.split_once("\n\n").unwrap().0;
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The long options in a text, such as `--timeout`.
fn options(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
    let words = text.split(|c| !is_name(c));
    words
        .filter(|word| word.len() > 2 && word.starts_with("--"))
        .collect()
}

fn directory() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique_name("man"));
    fs::create_dir(&directory).unwrap();
    directory
}

/// A page without the escapes of roff.
fn page(text: &str) -> String {
    text.replace("\\-", "-").replace("\\fR", "")
}

#[test]
fn each_command_has_a_page_with_all_its_options() {
    let directory = directory();
    assert_eq!(stdout(&["man", directory.to_str().unwrap()]), "");
    let mut expected = vec!["pglock.1".to_owned()];
    for command in subcommands() {
        let name = format!("pglock-{command}.1");
        let text = page(&fs::read_to_string(directory.join(&name)).unwrap());
        let help = stdout(&[&command, "--help"]);
        assert!(options(&help).contains(&"--help"), "{help}");
        for option in options(&help) {
            assert!(text.contains(option), "{option} is not in {name}: {text}");
        }
        let usage = help.lines().find_map(|line| line.strip_prefix("Usage: "));
        assert!(text.contains(usage.unwrap()), "{usage:?} {text}");
        expected.push(name);
    }
    let pglock = page(&fs::read_to_string(directory.join("pglock.1")).unwrap());
    assert!(pglock.contains("somebody else holds the lock"), "{pglock}");
    assert!(pglock.contains("DATABASE_URL"), "{pglock}");
    let mut found: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    assert_fails(&["man", "/nonexistent/pages"], 71, "/nonexistent/pages");
}

#[test]
fn all_goes_by_the_name_of_the_command() {
    let version = format!("pglock {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&["--version"]), version);
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        for command in subcommands() {
            assert!(script.contains(&command), "{command} is not in {script}");
        }
    }
}
