//! `pglock` as a process, and commands that run under it.

use std::io::{PipeWriter, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::oracle::{PATIENCE, wait_until};

/// Starts it as a terminal does: under nohup the tests, and all that they start, would ignore HUP.
pub fn pglock(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_pglock")]);
    command.args(arguments).stdin(Stdio::null());
    command
}

pub fn output(arguments: &[&str]) -> Output {
    pglock(arguments).output().unwrap()
}

#[track_caller]
pub fn assert_fails(arguments: &[&str], code: i32, message: &str) {
    let output = output(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(message), "{arguments:?}: {stderr}");
}

#[track_caller]
pub fn stdout(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A `pglock run` whose command has printed that it has started, and ends with its input.
pub struct Running(pub Child);

impl Running {
    pub fn start(key: &str, options: &[&str], script: &str) -> Self {
        let script = format!("{script}\necho started; read -r _");
        let command = &["--", "sh", "-c", &script];
        Self::of(&mut pglock(&[&["run", key], options, command].concat()))
    }

    pub fn of(command: &mut Command) -> Self {
        Self::with_stderr(command, Stdio::piped())
    }

    /// The same for a command that does not print that.
    pub fn begin(command: &mut Command) -> Self {
        Self::spawn(command, Stdio::piped())
    }

    pub fn with_stderr(command: &mut Command, stderr: impl Into<Stdio>) -> Self {
        let mut running = Self::spawn(command, stderr);
        assert_eq!(running.line(), "started");
        running
    }

    fn spawn(command: &mut Command, stderr: impl Into<Stdio>) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn();
        Self(child.unwrap())
    }

    /// The next line of the command's output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut stdout = self.0.stdout.take().unwrap();
        let (sender, read) = mpsc::channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            #[allow(clippy::unbuffered_bytes)] // what follows the line is for the next call
            for byte in (&mut stdout).bytes() {
                match byte.unwrap() {
                    b'\n' => break,
                    byte => line.push(byte),
                }
            }
            let _ = sender.send((line, stdout));
        });
        let (line, stdout) = read.recv_timeout(PATIENCE).expect("a line");
        self.0.stdout = Some(stdout);
        String::from_utf8(line).unwrap()
    }

    pub fn signal(&self, number: Signal) {
        signal(number, &self.0);
    }

    /// Its status, and what it printed on standard error, unless that was closed.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = wait_until("the end of pglock", || self.0.try_wait().unwrap());
        let mut stderr = String::new();
        if let Some(mut stream) = self.0.stderr.take() {
            stream.read_to_string(&mut stderr).unwrap();
        }
        (status, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn signal(number: Signal, child: &Child) {
    kill_process(Pid::from_child(child), number).unwrap();
}

/// A pipe whose reader is gone.
pub fn broken_pipe() -> PipeWriter {
    std::io::pipe().unwrap().1
}
