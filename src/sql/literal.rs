use std::fmt::Write as _;

/// Quotes a value as a literal of SQL, for texts that have no parameters: those of
/// [`Lock::batch_execute`](crate::Lock::batch_execute) and its siblings.
///
/// ```
/// use pglock::quote_literal;
///
/// let text = format!("UPDATE seat SET buyer = {} WHERE id = {}", quote_literal("Zoë O'Hara"), quote_literal(42));
/// assert_eq!(text, r"UPDATE seat SET buyer = E'Zo\u00eb O\x27Hara' WHERE id = E'42'");
/// ```
///
/// The server reads it as the type that it needs where it stands: a column's, a parameter's; text where
/// nothing says. Write `{}::bigint` to name one. There is no literal for NULL: write `NULL`.
///
/// It is an escape string ([String Constants With C-Style Escapes]) in printable ASCII. So it means the
/// same whatever `client_encoding`, `standard_conforming_strings` and `backslash_quote` say; and since there
/// is no quote, backslash or dollar sign of the value's own in it, the value ends neither the literal nor a
/// dollar-quoted body around it. In a database whose encoding has no such character, the server refuses the
/// text, and nothing of it runs; in one with the encoding `SQL_ASCII`, that is every one beyond ASCII.
///
/// A NUL byte, which PostgreSQL has in no text, stays in it: the whole text is then refused with
/// [`Error::NulByte`](crate::Error::NulByte). It is for values: the name of a table is no literal.
///
/// [String Constants With C-Style Escapes]: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE
#[must_use]
#[allow(clippy::needless_pass_by_value)] // `42` reads better than `&42`
pub fn quote_literal(value: impl ToString) -> String {
    quoted(&value.to_string(), |quoted, character| {
        // The server decodes these into its own encoding.
        let _ = match u32::from(character) {
            code @ ..=0xffff => write!(quoted, "\\u{code:04x}"),
            code => write!(quoted, "\\U{code:08x}"),
        };
    })
}

/// A literal in a statement that is [`executed`]. That has the server's encoding by then, in which no
/// character has a byte of ASCII in it.
pub(super) fn literal_inside(value: &str) -> String {
    quoted(value, String::push)
}

/// A statement as an expression for `EXECUTE`. Unlike a literal's, its characters beyond ASCII work in a
/// database with the encoding `SQL_ASCII` too.
pub(super) fn executed(statement: &str) -> String {
    if statement.is_ascii() {
        return quote_literal(statement);
    }
    let mut bytes = String::new();
    for byte in statement.bytes() {
        let _ = write!(bytes, "{byte:02x}");
    }
    format!("pg_catalog.convert_from(pg_catalog.decode('{bytes}', 'hex'), 'UTF8')")
}

fn quoted(text: &str, beyond_ascii: impl Fn(&mut String, char)) -> String {
    let mut quoted = "E'".to_owned();
    for character in text.chars() {
        match character {
            '\n' => quoted += r"\n",
            '\'' | '\\' | '$' | '\u{1}'..'\u{20}' | '\u{7f}' => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(character));
            }
            '\0'..'\u{7f}' => quoted.push(character),
            _ => beyond_ascii(&mut quoted, character),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outside its own escapes, a literal has nothing but harmless characters.
    fn is_one(literal: &str) -> bool {
        let inside = literal
            .strip_prefix("E'")
            .and_then(|l| l.strip_suffix('\''));
        let inside = inside.expect("quotes around it");
        let printable = |c: char| c == '\0' || matches!(c, ' '..='~');
        let mut parts = inside.split('\\');
        inside.chars().all(printable)
            && !inside.contains(['\'', '$'])
            && parts.next().is_some()
            && parts.all(|escape| escape.starts_with(['n', 'x', 'u', 'U']))
    }

    #[test]
    fn no_character_leaves_its_literal() {
        for character in '\0'..=char::MAX {
            let literal = quote_literal(character);
            assert!(is_one(&literal), "{character:?}: {literal}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_leaves_its_literal(any in "(?s:.){0,30}", hostile in "[\\\\'$\0nxuUE0-9\n\u{e9}\u{1F512}]{0,30}") {
            for text in [any, hostile] {
                proptest::prop_assert!(is_one(&quote_literal(&text)));
                proptest::prop_assert!(is_one(&quote_literal(literal_inside(&text))));
                let executed = executed(&literal_inside(&text));
                proptest::prop_assert!(executed.is_ascii() && !executed.contains('$'));
            }
        }
    }
}
