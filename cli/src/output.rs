//! All that is printed. It decides nothing: a reader that is gone changes neither what is done nor the
//! exit status, and one that does not read holds up nothing that matters. A terminal takes none of it for
//! a command, whoever has chosen the names in it.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use pglock::inspect::escaped;
use serde::Serialize;

use crate::exit::{Failure, OS};

/// Moves a terminal's cursor home, and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints lines on standard output. `false`: nobody reads them any more.
pub(crate) fn print(lines: impl Display) -> Result<bool, Failure> {
    print_raw(harmless(&lines.to_string()))
}

/// The same in place of all that the terminal shows.
pub(crate) fn print_alone(lines: impl Display) -> Result<bool, Failure> {
    print_raw(format_args!("{CLEAR}{}", harmless(&lines.to_string())))
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<bool, Failure> {
    let json = serde_json::to_string(value).map_err(|error| Failure::of(OS, &error))?;
    print_raw(harmless_json(&json))
}

/// Prints what pglock itself has written.
pub(crate) fn print_raw(line: impl Display) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    // In one piece, so that an error shows here.
    let printed = out
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush());
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(OS, format_args!("standard output: {error}"))),
    }
}

/// Prints a message on standard error.
pub(crate) fn say(message: impl Display) {
    prompt(format_args!("pglock: {message}\n"));
}

/// Prints a text on standard error, without a line's end of its own.
pub(crate) fn prompt(text: impl Display) {
    // If this cannot be printed, neither can its error.
    let _ = io::stderr().write_all(harmless(&text.to_string()).as_bytes());
}

/// With its lines.
pub(crate) fn harmless(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escaped).collect();
    lines.join("\n")
}

/// The same JSON: what could be a command is in strings only, and those have escapes for all characters.
fn harmless_json(text: &str) -> String {
    let mut units = [0; 2];
    let mut json = String::new();
    for character in text.chars() {
        if escaped(character.to_string()) == character.to_string() {
            json.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut units) {
            json += &format!("\\u{unit:04x}");
        }
    }
    json
}

/// Messages that are still to be printed.
static UNREAD: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Prints a message on standard error from a thread of its own: a full pipe would hold up a caller that
/// has a command to watch.
pub(crate) fn say_aside(message: String) {
    if let Ok(thread) = thread::Builder::new().spawn(move || say(message)) {
        unread().push(thread);
    }
}

/// Waits until all messages are printed.
pub(crate) fn finish() {
    for thread in std::mem::take(&mut *unread()) {
        let _ = thread.join();
    }
}

fn unread() -> std::sync::MutexGuard<'static, Vec<JoinHandle<()>>> {
    UNREAD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn is_harmless(text: &str) -> bool {
        text.split('\n').all(|line| escaped(line) == line)
    }

    /// All characters, those that are commands often.
    fn text() -> impl Strategy<Value = String> {
        let command = "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{61c}\u{200e}\u{200f}\u{2028}-\u{202e}\u{2066}-\u{206f}\"\\\\]{0,6}";
        prop_oneof![any::<String>(), command.prop_map(String::from)]
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_is_a_command(text in text()) {
            prop_assert!(is_harmless(&harmless(&text)));
            if is_harmless(&text) {
                prop_assert_eq!(harmless(&text), text);
            }
        }

        #[test]
        fn json_is_the_same_value_without_commands(text in text()) {
            let mut value = json!({"text": text});
            value[&text] = json!([text]);
            let json = harmless_json(&value.to_string());
            prop_assert!(is_harmless(&json) && !json.contains('\n'), "{}", json);
            prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }
    }
}
