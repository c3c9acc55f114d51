/// Quotes a value as a literal of SQL, for texts that have no parameters: those of
/// [`Lock::batch_execute`](crate::Lock::batch_execute) and its siblings.
///
/// ```
/// use pglock::literal;
///
/// let text = format!("UPDATE seat SET buyer = {} WHERE id = {}", literal("O'Hara"), literal(42));
/// assert_eq!(text, "UPDATE seat SET buyer = E'O''Hara' WHERE id = E'42'");
/// ```
///
/// The server reads it as the type that it needs where it stands: a column's, a parameter's; text where
/// nothing says. Write `{}::bigint` to name one. There is no literal for NULL: write `NULL`.
///
/// It is an escape string ([String Constants With C-Style Escapes]), which means the same whatever
/// `standard_conforming_strings` says, and has no dollar sign, so that it cannot end a dollar-quoted body.
/// A NUL byte, which PostgreSQL has in no text, stays in it: the whole text is then refused with
/// [`Error::NulByte`](crate::Error::NulByte). It is for values: the name of a table is no literal.
///
/// [String Constants With C-Style Escapes]: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE
#[must_use]
#[allow(clippy::needless_pass_by_value)] // `42` reads better than `&42`
pub fn literal(value: impl ToString) -> String {
    let text = value
        .to_string()
        .replace('\\', r"\\")
        .replace('\'', "''")
        .replace('$', r"\x24");
    format!("E'{text}'")
}
