//! The soak, for a few seconds.

use std::process::Command;

#[test]
fn a_few_seconds_break_no_promise() {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_soak"));
    let output = soak.args(["--seconds", "5"]).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
}
