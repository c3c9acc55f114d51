//! A statement with parameters, in each of the forms in which it can be sent.
//!
//! Prepared, the server plans it once a session, whatever its length: then all its conditions cost next to
//! nothing. As text, the server parses and plans it each time, which takes longer than the lock.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};

use xxhash_rust::xxh3::xxh3_64;

use super::IDLE;
use crate::failure::{Refusal, mark};
use crate::key::Key;

/// One statement of pglock's, with parameters.
///
/// It does all its work in its WHERE clause, and returns a row only if it did not do it: a word that
/// says why, which [`Refusal`](crate::driver::Refusal) reads.
#[derive(Debug, Clone)]
pub struct Statement {
    shape: Arc<Shape>,
    parameters: Vec<Parameter>,
    never_refuses: bool,
}

/// What statements have in common that differ in nothing but the values of their parameters.
#[derive(Debug)]
struct Shape {
    conditions: String,
    why: String,
    types: Vec<&'static str>,
    id: u64,
    /// The same as the value of a parameter, which diesel takes by reference.
    #[cfg(feature = "diesel")]
    number: i64,
    simple: Cut,
    extended: OnceLock<Cut>,
    #[cfg(feature = "diesel")]
    own: OnceLock<Cut>,
    raising: OnceLock<Arc<Shape>>,
    brief: OnceLock<Arc<Shape>>,
}

/// A text, and the places of parameters in it: where each begins and ends, and which it is.
#[derive(Debug)]
struct Cut {
    text: String,
    places: Vec<(usize, usize, usize)>,
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
    /// A `bigint[]`.
    BigInts(Vec<Option<i64>>),
}

impl Parameter {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "integer",
            Self::BigInt(_) => "bigint",
            Self::Text(_) => "text",
            Self::BigInts(_) => "bigint[]",
        }
    }

    fn write_typed(&self, to: &mut String) {
        to.push_str(self.type_name());
        to.push(' ');
        self.write_literal(to);
    }

    /// Writes the value in quotes: a bare minimum of a type would be read as a larger one.
    fn write_literal(&self, to: &mut String) {
        let _ = match self {
            Self::Int(value) => write!(to, "'{value}'"),
            Self::BigInt(value) => write!(to, "'{value}'"),
            Self::BigInts(values) => {
                to.push_str("'{");
                for (i, value) in values.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    let _ = match value {
                        Some(value) => write!(to, "{comma}{value}"),
                        None => write!(to, "{comma}NULL"),
                    };
                }
                to.write_str("}'")
            }
            // Most are words and numbers, which need no escapes.
            Self::Text(value) if value.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                write!(to, "'{value}'")
            }
            Self::Text(value) => write!(to, "{}", super::quote_literal(value)),
        };
    }
}

/// What a statement says that was asked for by another's number.
#[cfg(feature = "diesel")]
pub(crate) const ANOTHER: &str = "another statement";

/// What an extended query protocol shows of a raw BEGIN: a transaction begins with the Bind of a prepared
/// statement, at which the unnamed portal is made, or it began before.
const IDLE_EXTENDED: &str = "EXISTS (SELECT FROM pg_catalog.pg_cursor() c WHERE c.name = '' AND c.creation_time = pg_catalog.now())";

impl Cut {
    fn new(text: String, parameters: usize) -> Self {
        let mut places = Vec::new();
        for (start, _) in text.match_indices('$') {
            let digits = text[start + 1..].bytes().take_while(u8::is_ascii_digit);
            let end = start + 1 + digits.count();
            if let Ok(number @ 1..) = text[start + 1..end].parse::<usize>()
                && number <= parameters
            {
                places.push((start, end, number - 1));
            }
        }
        Self { text, places }
    }

    /// The text in front of each parameter, and that parameter; last, the rest.
    fn parts(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        let starts = std::iter::once(0).chain(self.places.iter().map(|(_, end, _)| *end));
        let ends = self.places.iter().map(|(start, _, at)| (*start, Some(*at)));
        let ends = ends.chain(std::iter::once((self.text.len(), None)));
        starts
            .zip(ends)
            .map(|(start, (end, at))| (&self.text[start..end], at))
    }
}

impl Shape {
    /// `mark` is the place of the mark, where a refusal is an error, so that nothing that stands behind the
    /// statement is executed. The error's text carries the word, under any `lc_messages`: a number cannot be
    /// read from it. `concat` is not folded when the statement is planned.
    fn new(conditions: String, why: String, types: Vec<&'static str>, mark: Option<usize>) -> Self {
        let head = match mark {
            None => ["SELECT ", &why, " AS line"].concat(),
            Some(mark) => format!("SELECT pg_catalog.concat(${mark}, {why})::int"),
        };
        let sql = [&head, " WHERE (", &conditions, ") IS NOT TRUE"].concat();
        let id = xxh3_64([&sql, &*types.concat()].concat().as_bytes());
        Self {
            conditions,
            why,
            id,
            #[cfg(feature = "diesel")]
            number: id.cast_signed(),
            simple: Cut::new(sql, types.len()),
            types,
            extended: OnceLock::new(),
            #[cfg(feature = "diesel")]
            own: OnceLock::new(),
            raising: OnceLock::new(),
            brief: OnceLock::new(),
        }
    }

    fn brief(&self) -> Self {
        let why = format!("'{}'", Refusal::Unexplained);
        Self::new(self.conditions.clone(), why, self.types.clone(), None)
    }

    fn raising(&self) -> Self {
        let (conditions, why) = (self.conditions.clone(), self.why.clone());
        let types = [&*self.types, &["text"]].concat();
        let mark = types.len();
        Self::new(conditions, why, types, Some(mark))
    }

    /// The statement by its number, a last parameter: with another one, which is of another statement, it does
    /// nothing but say so.
    #[cfg(feature = "diesel")]
    fn own(&self) -> &Cut {
        self.own.get_or_init(|| {
            let (number, why) = (self.types.len() + 1, &self.why);
            let another = format!("${number} <> bigint '{}'", self.number);
            let text = format!(
                "SELECT CASE WHEN {another} THEN '{ANOTHER}' ELSE {why} END AS line \
                 WHERE {another} OR ({}) IS NOT TRUE",
                self.conditions
            );
            Cut::new(text.replace(IDLE, IDLE_EXTENDED), number)
        })
    }

    fn extended(&self) -> &Cut {
        self.extended.get_or_init(|| {
            let text = self.simple.text.replace(IDLE, IDLE_EXTENDED);
            Cut::new(text, self.types.len())
        })
    }
}

/// The shapes of the statements of each lock, by what they depend on: to write one takes longer than to send
/// it. They are few: see [`Statement::known`].
static SHAPES: LazyLock<RwLock<HashMap<Vec<u8>, Arc<Shape>>>> = LazyLock::new(RwLock::default);

impl Statement {
    pub(super) fn new(conditions: Conditions, why: impl Into<String>) -> Self {
        let parameters = conditions.parameters;
        let types = parameters.iter().map(Parameter::type_name).collect();
        Self {
            shape: Arc::new(Shape::new(conditions.text, why.into(), types, None)),
            parameters,
            never_refuses: false,
        }
    }

    /// The statement that `write` writes, whose text depends on `form` alone.
    pub(super) fn known(
        form: Vec<u8>,
        parameters: Vec<Parameter>,
        write: impl FnOnce() -> Self,
    ) -> Self {
        const MOST: usize = 1_000;
        let shapes = SHAPES.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(shape) = shapes.get(&form) {
            let shape = Arc::clone(shape);
            return Self {
                shape,
                parameters,
                never_refuses: false,
            };
        }
        let room = shapes.len() < MOST;
        drop(shapes);
        let statement = write();
        debug_assert_eq!(statement.parameters, parameters);
        if room {
            let mut shapes = SHAPES.write().unwrap_or_else(PoisonError::into_inner);
            shapes.insert(form, Arc::clone(&statement.shape));
        }
        statement
    }

    /// The same, which does not say why it is refused. The server prepares an expression for each use, also
    /// one that it then does not evaluate.
    pub(crate) fn brief(mut self) -> Self {
        let shape = self
            .shape
            .brief
            .get_or_init(|| Arc::new(self.shape.brief()));
        self.shape = Arc::clone(shape);
        self
    }

    /// The same, marked as one that is not refused unless something is wrong: then it may be an error in the
    /// server's log.
    pub(crate) fn never_refuses(mut self) -> Self {
        self.never_refuses = true;
        self
    }

    #[cfg(feature = "diesel")]
    pub(crate) fn is_never_refused(&self) -> bool {
        self.never_refuses
    }

    /// The same, which fails where it would return a row: for what stands in front of other statements.
    pub(crate) fn raising(mut self) -> Self {
        let shape = self
            .shape
            .raising
            .get_or_init(|| Arc::new(self.shape.raising()));
        self.shape = Arc::clone(shape);
        self.parameters.push(Parameter::Text(mark()));
        self
    }

    /// The statement for the extended query protocol, with `$1`, `$2` and so on.
    #[must_use]
    pub fn extended(&self) -> &str {
        &self.shape.extended().text
    }

    /// The same in parts, for a driver that names statements itself: the text in front of each place of a
    /// parameter, and which it is; last, the rest. Behind a pooler such a name can be another client's
    /// statement. So one parameter more is the statement's own [number](Self::number).
    #[cfg(feature = "diesel")]
    pub(crate) fn own_parts(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        self.shape.own().parts()
    }

    #[cfg(feature = "diesel")]
    pub(crate) fn number(&self) -> &i64 {
        &self.shape.number
    }

    /// Whether it asks for a raw BEGIN, which the text form sees in the simple query protocol alone.
    #[cfg(feature = "diesel")]
    pub(crate) fn needs_message(&self) -> bool {
        self.shape.simple.text.contains(IDLE)
    }

    /// The values of its parameters, in their order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The statement as text for the simple query protocol, its parameters written out: of an array, only the
    /// element that stands there.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.shape.simple.text.len() + 256);
        let mut array: Option<&[Option<i64>]> = None;
        for (part, at) in self.shape.simple.parts() {
            let mut part = part;
            if let Some(values) = array.take()
                && let Some((index, rest)) =
                    part.strip_prefix(")[").and_then(|at| at.split_once(']'))
            {
                let index = index.parse::<usize>().unwrap_or_default();
                match values.get(index.wrapping_sub(1)).copied().flatten() {
                    Some(value) => Parameter::BigInt(value).write_typed(&mut text),
                    None => text.push_str("NULL::bigint"),
                }
                part = rest;
            }
            match at.map(|at| &self.parameters[at]) {
                Some(Parameter::BigInts(values)) => {
                    text.push_str(part.strip_suffix('(').unwrap_or(part));
                    array = Some(values);
                }
                Some(parameter) => {
                    text.push_str(part);
                    parameter.write_typed(&mut text);
                }
                None => text.push_str(part),
            }
        }
        text
    }

    /// Tells apart statements that differ in more than the values of their parameters. Every version of
    /// pglock gives the same statement the same name, so that clients who share a session share it.
    pub(crate) fn id(&self) -> u64 {
        self.shape.id
    }

    pub(crate) fn prepare(&self, id: u64) -> String {
        let sql = &self.shape.simple.text;
        let types = match self.shape.types.as_slice() {
            [] => String::new(),
            types => format!("({})", types.join(", ")),
        };
        format!("PREPARE {}{types} AS {sql}", name(id))
    }

    pub(crate) fn execute(&self, id: u64) -> String {
        let mut text = String::with_capacity(192);
        let _ = write!(text, "EXECUTE pglock_{id:016x}");
        for (i, parameter) in self.parameters.iter().enumerate() {
            text.push_str(if i == 0 { "(" } else { ", " });
            parameter.write_literal(&mut text);
        }
        if !self.parameters.is_empty() {
            text.push(')');
        }
        text
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
        assert!(statement().extended().contains("pg_cursor()"));
        assert!(!statement().extended().contains("statement_timestamp"));
    }

    #[test]
    fn of_an_array_the_text_has_elements() {
        let mut conditions = Conditions::new();
        let array = conditions.parameter(Parameter::BigInts(vec![Some(7), None]));
        conditions.and(&["f((", &array, ")[1], (", &array, ")[2])"]);
        let statement = Statement::new(conditions, "'busy'");
        assert_eq!(
            statement.text(),
            "SELECT 'busy' AS line WHERE (f(bigint '7', NULL::bigint)) IS NOT TRUE"
        );
        assert_eq!(
            statement.execute(1),
            "EXECUTE pglock_0000000000000001('{7,NULL}')"
        );
        assert!(statement.extended().contains("f(($1)[1], ($1)[2])"));
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
