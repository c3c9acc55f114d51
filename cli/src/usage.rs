//! What clap says about a wrong command line, with hints, and without the connection string that stands in
//! a wrong place.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use pglock::inspect::escaped;

use crate::args;
use crate::exit::USAGE;
use crate::output::prompt;

/// Prints help, the version or an error, and returns the exit status.
pub(crate) fn explain(mut error: clap::Error, arguments: &[OsString]) -> u8 {
    suggest(&mut error, arguments);
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let text = error.render().to_string();
    let hidden = without_secrets(&text, arguments);
    let harmless = text.split('\n').all(|line| escaped(line) == line);
    match hidden == text && harmless {
        true => drop(error.print()), // in colour
        false => prompt(hidden),
    }
    USAGE
}

/// What may have been meant, also where two letters changed places, which clap does not see in short words.
fn suggest(error: &mut clap::Error, arguments: &[OsString]) {
    let command = args::command();
    let runs = arguments.iter().any(|argument| argument == "run");
    let subcommand = command
        .get_subcommands()
        .find(|one| arguments.iter().any(|argument| argument == one.get_name()));
    let wrong = |kind| match error.get(kind) {
        Some(ContextValue::String(wrong)) => Some(wrong.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let names = command.get_subcommands().map(clap::Command::get_name);
            let wrong = wrong(ContextKind::InvalidSubcommand).unwrap_or_default();
            if let Some(meant) = similar(&wrong, names) {
                let meant = ContextValue::Strings(vec![meant]);
                error.insert(ContextKind::SuggestedSubcommand, meant);
            }
        }
        ErrorKind::UnknownArgument => {
            let options = subcommand.unwrap_or(&command).get_arguments();
            let options: Vec<_> = options
                .filter_map(|option| Some(format!("--{}", option.get_long()?)))
                .collect();
            let wrong = wrong(ContextKind::InvalidArg).unwrap_or_default();
            let meant = similar(&wrong, options.iter().map(String::as_str));
            // Other tools' letters, such as -t for a timeout.
            let letter = wrong.strip_prefix('-').filter(|rest| rest.len() == 1);
            let begins = |option: &&String| letter.is_some_and(|l| option[2..].starts_with(l));
            let meant = meant.or_else(|| options.iter().find(begins).cloned());
            let mut tips = Vec::new();
            match (meant, error.get(ContextKind::SuggestedArg)) {
                (Some(meant), _) => {
                    let meant = ContextValue::String(meant);
                    error.insert(ContextKind::SuggestedArg, meant);
                }
                (None, None) if runs => {
                    let tip = "the command stands behind the name: pglock run KEY COMMAND";
                    tips.push(tip.into());
                }
                _ => {}
            }
            // clap's own would put the option behind a --, where the command is.
            let tips = match tips.is_empty() {
                true => ContextValue::None,
                false => ContextValue::StyledStrs(tips),
            };
            error.insert(ContextKind::Suggested, tips);
        }
        _ => {}
    }
}

fn similar<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let distance = |name: &&str| strsim::osa_distance(wrong, name);
    names
        .filter(|name| distance(name) <= 1)
        .min_by_key(distance)
        .map(str::to_owned)
}

fn without_secrets(text: &str, arguments: &[OsString]) -> String {
    let mut text = text.to_owned();
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let value = argument.split_once('=').map(|(_, value)| value);
        let after_letter = argument.strip_prefix('-').and_then(|rest| rest.get(1..));
        for part in [Some(&*argument), value, after_letter]
            .into_iter()
            .flatten()
        {
            if part.contains("://") || part.contains("password") {
                text = text.replace(part, "…");
                text = text.replace(format!("{part:?}").trim_matches('"'), "…");
            }
        }
    }
    text
}
