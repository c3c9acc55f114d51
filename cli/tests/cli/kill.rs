//! `pglock kill`.

use crate::oracle::Oracle;
use crate::process::{Running, assert_fails, stdout};
use crate::unique;

#[test]
fn a_holder_is_ended_only_when_that_was_meant() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &[], "");
    let pid = oracle.holder(&key);
    assert_fails(&["kill", &name], 64, &format!("held by pid {pid}"));
    // It is idle: there is nothing to cancel.
    stdout(&["kill", &name, "--cancel", "--yes"]);
    assert_eq!(oracle.holder(&key), pid);
    assert!(stdout(&["kill", &name, "--yes"]).starts_with(&format!("ended pid {pid} ")));
    assert_eq!(running.end().0.code(), Some(76));
    oracle.assert_free(&key);
}
