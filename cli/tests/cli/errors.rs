//! The causes of an error: all of them, each once.

use std::process::Command;

use crate::oracle::Oracle;
use crate::process::{assert_fails, output, pglock};
use crate::server::Server;
use crate::unique;

#[test]
fn the_server_s_reason_is_printed() {
    let ((name, key), mut holder) = (unique(), Oracle::new());
    holder.lock(&key);
    let mut command = pglock(&["run", "-q", "--scope", "transaction", &name, "true"]);
    command.env("PGOPTIONS", "-c statement_timeout=50ms");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    let reasons = ["canceled while waiting for", "due to statement timeout"];
    for reason in reasons {
        assert_eq!(stderr.matches(reason).count(), 1, "{stderr}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!stderr.contains("pglock-"), "{stderr}");
}

#[test]
fn a_reason_that_the_error_says_itself_is_not_repeated() {
    let server = Server::new("cli-errors");
    server.start();
    let mut client = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    let revoke = "REVOKE SELECT ON pg_locks FROM PUBLIC; CREATE ROLE app LOGIN";
    client.batch_execute(revoke).unwrap();
    let url = server.url().replace("postgres@", "app@");
    assert_fails(&["--url", &url, "ls"], 69, "permission denied");
    let stderr = output(&["--url", &url, "ls"]).stderr;
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(stderr.matches("permission denied").count(), 1, "{stderr}");
}

/// Skipped where users may not create namespaces: then /proc cannot be hidden.
#[test]
#[cfg(target_os = "linux")]
fn a_machine_without_proc_is_told_of_it() {
    let (name, _) = unique();
    // As another user, root would not reach the server's socket.
    let script = "[ $(id -u) = 0 ] || map=--map-root-user
        exec unshare $map --mount sh -c 'mount -t tmpfs none /proc && exec \"$@\"' sh \"$@\"";
    let hidden = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(arguments);
        command.output().unwrap()
    };
    if !hidden(&["true"]).status.success() {
        eprintln!("skipped: no namespaces here");
        return;
    }
    let pglock = env!("CARGO_BIN_EXE_pglock");
    let output = hidden(&[pglock, "run", &name, "--", "true"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(126), "{stderr}");
    assert!(stderr.contains("/proc is not mounted"), "{stderr}");
}
