//! `pglock`: advisory locks of PostgreSQL on the command line.

mod args;
mod connection;
mod exit;
mod keys;
mod kill;
mod run;
mod show;
mod signals;
mod spawn;
mod supervise;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use exit::Failure;

fn main() -> ExitCode {
    if let Some(failure) = spawn::become_the_command() {
        return end(Err(failure));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            return code.into();
        }
    };
    let url = cli.url.unwrap_or_default();
    let done = match cli.command {
        Command::Run(args) => run::run(&url, &args),
        Command::Ls(args) => show::ls(&url, &args),
        Command::Who(args) => show::who(&url, &args),
        Command::Kill(args) => kill::kill(&url, &args),
        Command::Key(args) => keys::print(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pglock", &mut std::io::stdout());
            Ok(0)
        }
    };
    end(done)
}

fn end(done: Result<u8, Failure>) -> ExitCode {
    match done {
        Ok(code) => code.into(),
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                eprintln!("pglock: {message}");
            }
            code.into()
        }
    }
}
