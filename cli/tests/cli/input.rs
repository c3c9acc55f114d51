//! Arguments.

use std::process::Stdio;

use crate::oracle::Oracle;
use crate::process::{Running, assert_fails, broken_pipe, pglock, stdout};
use crate::unique;

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
    assert_fails(&["run", "x", "--lease", "999ms", "--", "true"], 64, "1s");
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

#[test]
fn the_longest_time_is_a_time() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let long = "18446744073709551615s";
    for option in ["--timeout", "--lease", "--grace"] {
        stdout(&["run", &name, option, long, "--", "true"]);
    }
    let running = Running::start(&name, &["--grace", long], "trap 'exit 0' TERM");
    let pid = oracle.holder(&key);
    oracle.terminate(pid);
    assert_eq!(running.end().0.code(), Some(76));
}

#[test]
fn a_watch_without_a_pause_is_refused() {
    // If it watched all the same, it would end too, since nobody reads.
    let mut command = pglock(&["ls", "--watch=0s"]);
    let output = command.stdout(broken_pipe()).stderr(Stdio::piped());
    let output = output.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("at least 100ms"), "{stderr}");
}
