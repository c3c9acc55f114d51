//! `pglock`: PostgreSQL's advisory locks on the command line.

#![warn(clippy::print_stdout, clippy::print_stderr)] // print macros panic: see `output`

mod args;
mod claims;
mod connection;
mod conninfo;
mod descendants;
mod doctor;
mod ending;
mod exit;
mod grant;
mod groups;
mod hold;
mod key_args;
mod keys;
mod kill;
mod man;
mod names;
mod output;
mod prepared;
mod reach;
mod run;
mod running;
mod show;
mod signals;
mod spawn;
mod supervise;
mod table;
mod times;
mod tools;
mod transaction;
mod tree;
mod usage;
mod waiting;
mod waits;
mod wanted;
mod warden;
mod wire;

use std::process::ExitCode;

use args::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    if let Some(done) = warden::become_another() {
        return end(done);
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage::explain(error, &arguments).into(),
    };
    let Ok(url) = cli.url.unwrap_or_default().into_string() else {
        return end(Err(Failure::new(exit::USAGE, connection::NOT_UTF_8)));
    };
    let done = match cli.command {
        Command::Run(args) => run::run(&url, &args),
        Command::Ls(args) => show::ls(&url, &args),
        Command::Who(args) => show::who(&url, &args),
        Command::Kill(args) => kill::kill(&url, &args),
        Command::Doctor(args) => doctor::doctor(&url, &args),
        Command::Key(args) => keys::show(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "pglock", &mut script);
            output::print_raw(String::from_utf8_lossy(&script).trim_end()).map(|_| 0)
        }
        Command::Man { directory } => man::write(&directory),
    };
    end(done)
}

fn end(done: Result<u8, Failure>) -> ExitCode {
    output::finish();
    match done {
        Ok(code) => code.into(),
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                output::say(message);
            }
            code.into()
        }
    }
}
