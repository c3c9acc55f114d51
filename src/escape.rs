//! How texts of other people's are shown.

use std::fmt::Write as _;

/// Shows a text that somebody else has chosen, so that a terminal or a log takes none of it for a command:
/// control characters (C0, DEL, C1), those that change the direction of writing, and line separators
/// become `\n`, `\u{1b}` and the like, and bytes that are not UTF-8 `\xff`. All other characters stay.
///
/// The texts of a [`Claim`](crate::inspect::Claim) have gone through it already, and so has what pglock's own errors
/// quote. It is for what a server says otherwise: the text of a driver's error, a name that a query returns.
///
/// ```
/// use pglock::inspect::escaped;
///
/// assert_eq!(escaped("Zoë's\n\u{1b}[2J"), r"Zoë's\n\u{1b}[2J");
/// assert_eq!(escaped(b"caf\xe9"), r"caf\xe9");
/// ```
#[must_use]
pub fn escaped(text: impl AsRef<[u8]>) -> String {
    let mut shown = String::new();
    for chunk in text.as_ref().utf8_chunks() {
        for character in chunk.valid().chars() {
            match is_command(character) {
                true => shown.extend(character.escape_default()),
                false => shown.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}"); // into a String
        }
    }
    shown
}

/// Whether a character moves the cursor, ends a line or turns the direction of what follows.
fn is_command(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_characters_only_commands_are_escaped() {
        for character in '\0'..=char::MAX {
            let shown = escaped(character.to_string());
            let harmless = shown.chars().all(|c| !is_command(c));
            assert!(harmless, "{character:?}");
            assert_eq!(shown == character.to_string(), !is_command(character));
            // What errors show with `{:?}` is no less safe.
            let debug = format!("{character:?}");
            assert!(debug.chars().all(|c| !is_command(c)), "{debug}");
        }
        for command in "\0\u{7}\t\n\r\u{1b}\u{7f}\u{80}\u{85}\u{9b}\u{9f}\u{61c}\u{200e}\u{202e}\u{2066}\u{2069}\u{2028}".chars() {
            assert!(is_command(command), "{command:?}");
        }
        for harmless in " ~'\"\\é🔒\u{5d0}\u{301}\u{200d}".chars() {
            assert!(!is_command(harmless), "{harmless:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(escaped(b"a\xff\xc3\xa9\xc3"), r"a\xffé\xc3");
        assert_eq!(escaped(b"\xc2\x9b\x9b"), r"\u{9b}\x9b");
    }
}
