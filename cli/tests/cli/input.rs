//! Arguments.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
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
    for timeout in ["-5", "5 5", "1e9", ".", ""] {
        let timeout = format!("--timeout={timeout}");
        assert_fails(&["run", "x", &timeout, "true"], 64, "invalid value");
    }
    assert_fails(&["run", "x", "--lease", "999ms", "--", "true"], 64, "1s");
    assert_fails(
        &["run", "--pair", "1", "--", "true"],
        64,
        "two 32-bit numbers",
    );
    assert_fails(
        &["run", "x", "--scheme", "y", "--", "true"],
        64,
        "there are django-concurrency-safe, postgresql-lock, django-pglocks-1, ",
    );
    let both = "django-pglocks-1 up to 1.0.4, django-pgware from 2";
    assert_fails(&["who", "x", "--scheme", "django-pglocks"], 64, both);
    assert_fails(&["--url", "dbname=nosuch", "ls"], 69, "nosuch");
    assert_fails(&["--url", "dbname='nosuch", "ls"], 64, "pglock: ");
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

const CONNECTING: [&[&str]; 6] = [
    &["run", "x", "--", "true"],
    &["run", "x", "--slots", "2", "--", "true"],
    &["ls"],
    &["who", "x"],
    &["kill", "x", "--yes"],
    &["doctor"],
];

/// The property tests of all strings are beside the code.
#[test]
fn a_connection_string_that_cannot_be_read_is_not_shown() {
    for url in [
        "postgresql+driver://u:Secret@h/db",
        "postgres://u:Secret/Secret@h/db",
        "postgres://u:Secret@h@h/db",
        "postgres://u:Secret%Secret@h/db",
        "postgres://u:Secret@[::1/db",
        "postgres://u:Secret@h/db?schema=public",
        "host=h password=Secret Secret",
    ] {
        for arguments in CONNECTING {
            let by_option = pglock(&[&["--url", url], arguments].concat()).output();
            let by_variable = pglock(arguments).env("DATABASE_URL", url).output();
            for output in [by_option, by_variable] {
                let output = output.unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(64), "{arguments:?}: {stderr}");
                assert!(
                    stderr.contains("(--url or DATABASE_URL) cannot be read: "),
                    "{stderr}"
                );
                assert!(!stderr.contains("Secret"), "{arguments:?}: {stderr}");
            }
        }
    }
    let other = OsStr::from_bytes(b"postgres://u:Secret\xff@h/db");
    let output = pglock(&["ls"]).env("DATABASE_URL", other).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("DATABASE_URL) is not UTF-8"), "{stderr}");
}

#[test]
fn a_connection_string_in_a_wrong_place_is_not_shown() {
    let url = "postgres://u:Sec'\"ret@h/db";
    for arguments in [
        &["ls", url][..],
        &[url, "ls"],
        &["ls", "host=h password=Sec'\"ret"],
        &["ls", &format!("--ur={url}")],
        &["who", url],
        &["who", "--int", url],
        &["who", &format!("--pair={url}")],
        &["who", "x", "--scheme", url],
        &["run", "x", &format!("-w{url}"), "--", "true"],
    ] {
        let output = pglock(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("ret"), "{arguments:?}: {stderr}");
    }
    assert_fails(&["who", url], 64, "put --url before it");
}

#[test]
fn an_empty_name_is_refused() {
    for arguments in [
        &["run", "", "--", "true"][..],
        &["run", "", "--slots", "2", "--", "true"],
        &["run", "x", "--namespace", "", "--", "true"],
        &["who", ""],
        &["kill", "", "--yes"],
        &["key", ""],
        &["key", "x", "--namespace", ""],
    ] {
        assert_fails(arguments, 64, "is empty");
    }
}

#[test]
fn common_slips_get_a_hint() {
    let behind = "the command stands behind the name";
    assert_fails(&["run", "x", "-c", "echo"], 64, behind);
    assert_fails(&["run", "x", "--tyr", "true"], 64, "exists: '--try'");
    assert_fails(&["run", "x", "-t", "5", "true"], 64, "exists: '--timeout'");
    assert_fails(&["rnu", "x", "true"], 64, "exists: 'run'");
    assert_fails(&["run", "x"], 64, "a command is required");
    assert_fails(&["run", "--", "x", "true"], 64, "before the --");
    assert_fails(&["run", "x", "-w", "5x", "true"], 64, "5, 300ms or");
    assert_fails(&["key", "x", "--scheme", "sqlx"], 64, "found\n\nUsage");
    assert_fails(&["who"], 64, "pglock who [OPTIONS] <KEY|");
    let dashes = "put -- before the command";
    for command in [&["true"][..], &["make", "-n"]] {
        let run = [&["run", "--int", "5"], command].concat();
        assert_fails(&run, 64, dashes);
    }
}

#[test]
fn what_is_behind_the_name_is_the_command() {
    let (name, _) = unique();
    for (run, said) in [
        (&["-n", &name, "echo", "-n", "--try", "-w"][..], "--try -w"),
        (&[&name, "-w", "5", "echo", "--", "-q"], "-- -q\n"),
        (
            &[&name, "--timeout", "0.5", "--", "echo", "--", "x"],
            "-- x\n",
        ),
        (&["--int", "-7", "--", "echo", "a", "-E"], "a -E\n"),
        (&["--pair", "-7,7", "--try", "--", "echo"], "\n"),
    ] {
        assert_eq!(stdout(&[&["run"], run].concat()), said, "{run:?}");
    }
}
