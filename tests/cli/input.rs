//! What is typed.

use crate::process::{assert_fails, stdout};

#[test]
fn bad_input_is_told_in_its_place() {
    assert_fails(&[], 64, "Usage");
    assert_fails(&["run", "--", "true"], 64, "required");
    assert_fails(
        &["run", "x", "--int", "5", "--", "true"],
        64,
        "cannot be used with",
    );
    assert_fails(&["run", "x", "--timeout", "5x", "--", "true"], 64, "5x");
    assert_fails(&["run", "x", "--timeout", "5", "--", "true"], 64, "'5'");
    assert_fails(
        &["run", "--pair", "1", "--", "true"],
        64,
        "two 32-bit numbers",
    );
    assert_fails(
        &["run", "x", "--scheme", "y", "--", "true"],
        64,
        "no key scheme",
    );
    assert_fails(&["--url", "dbname=nosuch", "ls"], 69, "nosuch");
    assert_fails(&["--url", "dbname='nosuch", "ls"], 69, "pglock: ");
    assert!(stdout(&["--help"]).contains("Exit status:"));
    assert!(stdout(&["completions", "bash"]).contains("_pglock"));
}
