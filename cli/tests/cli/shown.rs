//! What is shown on a terminal, and what elsewhere.

use std::process::Stdio;

use crate::oracle::{Oracle, unique_name, wait_until};
use crate::process::{Running, pglock, stdout};
use crate::terminal::Terminal;
use crate::unique;

/// One line of the terminal's width, which is gone with the wait.
#[test]
fn a_wait_on_a_terminal_is_a_line_that_keeps_itself_current() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let holder = Running::start(&name, &[], "");
    let pid = oracle.holder(&key);
    let (terminal, silent) = (Terminal::new(80), Terminal::new(80));
    let wait = |options: &[&str], terminal: &Terminal| {
        let run = [&["run"], options, &[&name, "true"]].concat();
        pglock(&run).stderr(terminal.end()).spawn().unwrap()
    };
    let shows = |text: &str| {
        wait_until(text, || {
            let lines = terminal.lines();
            lines.iter().any(|line| line.contains(text)).then_some(())
        });
    };
    let mut waiting = vec![wait(&[], &terminal)];
    shows(&format!("waiting for \"{name}\", held by pid {pid} "));
    waiting.push(wait(&["-q"], &silent));
    shows(&format!("waiting for \"{name}\" with another, held"));
    drop(holder);
    for waiting in &mut waiting {
        assert!(waiting.wait().unwrap().success());
    }
    let lines = wait_until("the end of the line", || {
        let lines = terminal.lines();
        lines.last().is_some_and(String::is_empty).then_some(lines)
    });
    let widths = lines.iter().map(|line| line.chars().count());
    assert_eq!(widths.max(), Some(80), "{lines:?}");
    assert!(!terminal.written().contains('\n'), "{lines:?}");
    assert!(terminal.written().ends_with("\r\x1b[2K"), "{lines:?}");
    assert_eq!(silent.written(), "");
}

/// The texts are cut, and neither the numbers nor the times. In a pipe nothing is.
#[test]
fn tables_are_as_wide_as_the_terminal() {
    let name = unique_name(&"long".repeat(20));
    let application = "a".repeat(63); // the longest that the server keeps
    let mut command = pglock(&["run", &name, "sh", "-c", "echo started; read -r _"]);
    let _holder = Running::of(command.env("PGAPPNAME", &application));
    let pid = Oracle::new().holder(&pglock::Key::from(&name)).to_string();
    let mut waiting = pglock(&["run", "-q", "-w", "60", &name, "true"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
    let whole = wait_until("a waiter", || {
        Some(stdout(&["who", &name])).filter(|table| table.contains(" waits "))
    });
    assert!(whole.contains(&application), "{whole}");
    for arguments in [&["ls"][..], &["who", &name], &["ls", "--tree"]] {
        for columns in [60, 80] {
            let terminal = Terminal::new(columns);
            let mut show = pglock(arguments);
            let show = show.env_remove("COLUMNS").stdout(terminal.end()).status();
            assert!(show.unwrap().success());
            let lines = wait_until("the holder's line", || {
                let (lines, written) = (terminal.lines(), terminal.written());
                let found = lines.iter().any(|line| line.contains(&pid));
                (found && written.ends_with('\n')).then_some(lines)
            });
            let text = lines.join("\n");
            let table = lines
                .iter()
                .filter(|line| !line.starts_with(&format!("\"{name}")));
            for line in table {
                assert!(line.chars().count() <= columns.into(), "{text}");
            }
            assert!(text.contains('…'), "something was cut: {text}");
        }
    }
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}
