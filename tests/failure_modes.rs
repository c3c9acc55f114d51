//! `docs/failure-modes.md` stays true: every row is there, and every test that it names exists. And the
//! README has the table of the guide.

use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../docs/failure-modes.md");
const ROWS: usize = 87;

/// The cells of each row that begins with a number.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    TABLE
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<_>| cells.len() > 2 && cells[1].parse::<usize>().is_ok())
}

/// `a::b::c` is the function `c` in `a/b.rs` of `tests`, `cli/tests` or `src`, or in a `mod.rs` or
/// `tests.rs` of the folder `src/a/b`.
fn exists(test: &str) -> bool {
    let mut path: Vec<_> = test.split("::").collect();
    let function = path.pop().unwrap();
    path.retain(|part| *part != "tests");
    let path = path.join("/");
    let files = [
        format!("tests/{path}.rs"),
        format!("cli/tests/{path}.rs"),
        format!("src/{path}.rs"),
        format!("src/{path}/mod.rs"),
        format!("src/{path}/tests.rs"),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    files
        .iter()
        .filter_map(|file| fs::read_to_string(root.join(file)).ok())
        .any(|source| {
            let start = format!("fn {function}");
            source
                .match_indices(&start)
                .any(|(at, _)| source[at + start.len()..].starts_with(['(', '<']))
        })
}

#[test]
fn every_row_names_a_test_that_exists() {
    let mut numbers: Vec<usize> = Vec::new();
    for cells in rows() {
        let [_, number, _, does, tests, on, _] = cells.as_slice() else {
            panic!("{cells:?} has not five cells");
        };
        numbers.push(number.parse().unwrap());
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        let missing: Vec<_> = tests.iter().filter(|test| !exists(test)).collect();
        assert!(
            missing.is_empty(),
            "row {number}: no such test: {missing:?}"
        );
        assert!(
            tests.is_empty() == does.starts_with("not yet built"),
            "row {number} has no test, or has one and says otherwise"
        );
        assert!(!on.is_empty(), "row {number} does not say where");
    }
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
}

/// A README cannot include the table, nor link as rustdoc does.
#[test]
fn the_readme_has_the_table_of_the_guide() {
    let table = include_str!("../src/guide/which.md");
    let table = table.replace("[`", "`").replace("`]", "`");
    assert!(include_str!("../README.md").contains(&table));
}

#[test]
fn what_does_not_exist_is_noticed() {
    assert!(exists("failure_modes::exists"));
    assert!(!exists("failure_modes::exist"));
    assert!(!exists("nowhere::exists"));
}
