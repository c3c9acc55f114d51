//! A statement with parameters, in each of the forms in which it can be sent.
//!
//! Prepared, the server plans it once a session, whatever its length: then all its conditions cost next to
//! nothing. As text, the server parses and plans it each time, which takes longer than the lock.

use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_64;

use super::IDLE;
use crate::failure::mark;
use crate::key::Key;

/// One statement of pglock's, with parameters.
///
/// It does all its work in its WHERE clause, and returns a row only if it did not do it: a word that
/// says why, which [`Refusal`](crate::driver::Refusal) reads.
#[derive(Debug, Clone)]
pub struct Statement {
    conditions: String,
    why: String,
    parameters: Vec<Parameter>,
    /// Whether a refusal is an error, so that nothing that stands behind the statement is executed.
    raises: bool,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// An `integer`.
    Int(i32),
    /// A `bigint`.
    BigInt(i64),
    /// A `text`.
    Text(String),
}

impl Parameter {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "integer",
            Self::BigInt(_) => "bigint",
            Self::Text(_) => "text",
        }
    }

    /// The value in quotes: a bare minimum of a type would be read as a larger one.
    fn literal(&self) -> String {
        match self {
            Self::Int(value) => format!("'{value}'"),
            Self::BigInt(value) => format!("'{value}'"),
            // Most are words and numbers, which need no escapes.
            Self::Text(value) if value.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                format!("'{value}'")
            }
            Self::Text(value) => super::literal(value),
        }
    }
}

/// What an extended query protocol shows of a raw BEGIN: a transaction begins with the Bind of a prepared
/// statement, at which the unnamed portal is made, or it began before.
const IDLE_EXTENDED: &str =
    "pg_catalog.now() = (SELECT creation_time FROM pg_catalog.pg_cursors WHERE name = '')";

impl Statement {
    pub(super) fn new(conditions: Conditions, why: impl Into<String>) -> Self {
        Self {
            conditions: conditions.text,
            why: why.into(),
            parameters: conditions.parameters,
            raises: false,
        }
    }

    /// The same, which fails where it would return a row: for what stands in front of other statements.
    /// The error's text carries the word, under any `lc_messages`: a number cannot be read from it.
    /// `concat` is not folded when the statement is planned.
    pub(crate) fn raising(mut self) -> Self {
        if !self.raises {
            self.parameters.push(Parameter::Text(mark()));
            self.raises = true;
        }
        self
    }

    /// The statement for the extended query protocol, with `$1`, `$2` and so on.
    #[must_use]
    pub fn extended(&self) -> String {
        self.sql().replace(IDLE, IDLE_EXTENDED)
    }

    /// Whether it asks for a raw BEGIN, which the text form sees in the simple query protocol alone.
    #[cfg(feature = "diesel")]
    pub(crate) fn needs_message(&self) -> bool {
        self.conditions.contains(IDLE)
    }

    /// The values of its parameters, in their order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The statement as text for the simple query protocol, its parameters written out.
    #[must_use]
    pub fn text(&self) -> String {
        let sql = self.sql();
        let mut text = String::with_capacity(sql.len() + 64);
        let mut parts = sql.split('$');
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = part.split_at(digits);
            let parameter = number
                .parse::<usize>()
                .ok()
                .and_then(|number| self.parameters.get(number - 1));
            match parameter {
                Some(parameter) => {
                    text.push_str(parameter.type_name());
                    text.push(' ');
                    text.push_str(&parameter.literal());
                }
                None => {
                    text.push('$');
                    text.push_str(number);
                }
            }
            text.push_str(rest);
        }
        text
    }

    /// Tells apart statements that differ in more than the values of their parameters. Every version of
    /// pglock gives the same statement the same name, so that clients who share a session share it.
    pub(crate) fn id(&self) -> u64 {
        let mut sql = self.sql();
        for parameter in &self.parameters {
            sql.push_str(parameter.type_name());
        }
        xxh3_64(sql.as_bytes())
    }

    pub(crate) fn prepare(&self, id: u64) -> String {
        let types: Vec<_> = self.parameters.iter().map(Parameter::type_name).collect();
        format!(
            "PREPARE {}({}) AS {}",
            name(id),
            types.join(", "),
            self.sql()
        )
    }

    pub(crate) fn execute(&self, id: u64) -> String {
        let mut text = format!("EXECUTE {}(", name(id));
        for (i, parameter) in self.parameters.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            let _ = write!(text, "{separator}{}", parameter.literal());
        }
        text.push(')');
        text
    }

    fn sql(&self) -> String {
        let parts = match self.raises {
            false => ["SELECT ", &self.why, " AS line"].concat(),
            true => format!(
                "SELECT pg_catalog.concat(${}, {})::int",
                self.parameters.len(),
                self.why
            ),
        };
        [&parts, " WHERE (", &self.conditions, ") IS NOT TRUE"].concat()
    }
}

/// A statement's name at the server.
pub(crate) fn name(id: u64) -> String {
    format!("pglock_{id:016x}")
}

/// How many statements [`prepare_once`] is.
pub(crate) const PREPARE_ONCE: usize = 2;

/// Prepares a statement unless the session has it, in a block: PREPARE of what is there is an error. The
/// block's text is the same for every statement, or `pg_stat_statements` would have each.
pub(crate) fn prepare_once(statement: &Statement, id: u64) -> String {
    format!(
        "SELECT pg_catalog.set_config('pglock.prepare', $sql${} {}$sql$, true); {PREPARE}",
        name(id),
        statement.prepare(id)
    )
}

const PREPARE: &str = "DO $pglock$ DECLARE asked text := pg_catalog.current_setting('pglock.prepare'); \
    word text := pg_catalog.split_part(asked, ' ', 1); \
    BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE name = word) \
    THEN EXECUTE pg_catalog.substr(asked, pg_catalog.length(word) + 2); END IF; END $pglock$; ";

/// A conjunction and its parameters. PostgreSQL evaluates it in order, and stops at the first condition
/// that is false ([Expression Evaluation Rules] promise no order between the parts of a WHERE clause;
/// inside `(…) IS NOT TRUE` they are one part, whose arguments the executor takes from left to right).
///
/// No condition may be NULL: AND would go on behind it.
///
/// [Expression Evaluation Rules]: https://www.postgresql.org/docs/current/sql-expressions.html#SYNTAX-EXPRESS-EVAL
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    pub(super) text: String,
    parameters: Vec<Parameter>,
}

impl Conditions {
    pub(super) fn new() -> Self {
        Self {
            text: String::with_capacity(768), // those of one key
            parameters: Vec::with_capacity(4),
        }
    }

    pub(super) fn and(&mut self, parts: &[&str]) {
        if !self.text.is_empty() {
            self.text.push_str(" AND ");
        }
        for part in parts {
            self.text.push_str(part);
        }
    }

    /// A parameter's place in the text.
    pub(super) fn parameter(&mut self, value: Parameter) -> String {
        self.parameters.push(value);
        format!("${}", self.parameters.len())
    }

    pub(super) fn text_parameter(&mut self, value: impl Into<String>) -> String {
        self.parameter(Parameter::Text(value.into()))
    }

    /// The arguments of a lock function.
    pub(super) fn key(&mut self, key: &Key) -> String {
        match key.as_pair() {
            Some((first, second)) => {
                let first = self.parameter(Parameter::Int(first));
                [&first, ", ", &*self.parameter(Parameter::Int(second))].concat()
            }
            None => self.parameter(Parameter::BigInt(key.as_i64().unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let mut conditions = Conditions::new();
        let key = conditions.key(&Key::from(i64::MIN));
        let text = conditions.text_parameter("it's $1");
        conditions.and(&["f(", &key, ") = ", &text]);
        conditions.and(&[IDLE]);
        let pair = conditions.key(&Key::from((1, -2)));
        conditions.and(&["g(", &pair, ")"]);
        Statement::new(conditions, "'busy'")
    }

    #[test]
    fn parameters_are_written_out() {
        assert_eq!(
            statement().text(),
            "SELECT 'busy' AS line WHERE (f(bigint '-9223372036854775808') = text E'it\\x27s \\x241' \
             AND pg_catalog.now() = pg_catalog.statement_timestamp() AND g(integer '1', integer '-2')) IS NOT TRUE"
        );
        assert_eq!(
            statement().execute(1),
            "EXECUTE pglock_0000000000000001('-9223372036854775808', E'it\\x27s \\x241', '1', '-2')"
        );
        assert!(statement().extended().contains("pg_cursors"));
        assert!(!statement().extended().contains("statement_timestamp"));
    }

    #[test]
    fn only_the_shape_makes_the_id() {
        let (one, other) = (statement(), statement().raising());
        assert_ne!(one.id(), other.id());
        assert!(
            other
                .prepare(1)
                .contains("pg_catalog.concat($5, 'busy')::int")
        );
        assert!(other.text().contains(&mark()));
    }
}
