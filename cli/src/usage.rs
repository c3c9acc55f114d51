//! What clap says about a wrong command line, with hints, and without the connection string that stands in
//! a wrong place.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use pglock::inspect::escaped;

use crate::exit::USAGE;
use crate::output::prompt;

/// Prints help, the version or an error, and returns the exit status.
pub(crate) fn explain(mut error: clap::Error, arguments: &[OsString]) -> u8 {
    if error.kind() == ErrorKind::UnknownArgument && lacks_dashes(arguments) {
        let tip = "put -- before the command: pglock run KEY -- COMMAND";
        let tip = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
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

fn lacks_dashes(arguments: &[OsString]) -> bool {
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    has("run") && !has("--")
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
