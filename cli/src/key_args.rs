//! Which key, on the command line.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Args, Command, Error};
use pglock::compat::Scheme;
use pglock::{Key, Slots};

use crate::conninfo::is_uri;
use crate::wanted::Wanted;

/// A key in each of its forms.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    which: Which,

    /// The namespace that the name is in
    #[arg(long, value_name = "NS", requires = "key", value_parser = name)]
    namespace: Option<String>,

    /// The library whose key of that name to use; `pglock key NAME` lists them
    #[arg(long, requires = "key", conflicts_with = "namespace", value_parser = SchemeParser)]
    scheme: Option<Scheme>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The name of the lock
    #[arg(value_parser = name)]
    key: Option<String>,

    /// A number (bigint) in place of a name
    #[arg(
        long,
        value_name = "NUMBER",
        allow_hyphen_values = true,
        conflicts_with = "pair"
    )]
    int: Option<i64>,

    /// A pair of numbers (two integers) in place of a name
    #[arg(long, value_name = "A,B", allow_hyphen_values = true, value_parser = pair)]
    pair: Option<(i32, i32)>,
}

/// Tells all of them in help and completions, and the library's error for any other.
#[derive(Clone)]
struct SchemeParser;

impl TypedValueParser for SchemeParser {
    type Value = Scheme;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Scheme, Error> {
        let parse = |name: &str| name.parse::<Scheme>();
        parse.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let possible = Scheme::ALL.into_iter().map(|scheme| {
            let value = PossibleValue::new(scheme.name());
            match scheme {
                Scheme::DjangoPglocks => value.help("django-pglocks up to 1.0.4"),
                Scheme::DjangoPgware => value.help("django-pgware, and django-pglocks from 2 on"),
                _ => value,
            }
        });
        Some(Box::new(possible))
    }
}

/// A script whose variable is not set would share one lock with all such scripts.
pub(crate) fn name(text: &str) -> Result<String, String> {
    match is_uri(text) {
        _ if text.is_empty() => Err("the name is empty; is a variable not set?".to_owned()),
        true => Err("this is a connection string, not a name; put --url before it".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn pair(text: &str) -> Result<(i32, i32), String> {
    let numbers = text
        .split_once(',')
        .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    numbers.ok_or_else(|| "two 32-bit numbers with a comma between them, such as 1,-2".to_owned())
}

impl KeyArgs {
    pub(crate) fn is_number(&self) -> bool {
        self.which.int.is_some() || self.which.pair.is_some()
    }

    /// The word in the name's place, which is none beside a number.
    pub(crate) fn take_name_if_number(&mut self) -> Option<String> {
        match self.is_number() {
            true => self.which.key.take(),
            false => None,
        }
    }

    pub(crate) fn wanted(&self, slots: Option<u32>) -> Wanted {
        match (&self.which.key, slots) {
            (Some(name), Some(slots)) => Wanted::Slots(Slots::new(name, slots)),
            _ => Wanted::Key(self.key()),
        }
    }

    pub(crate) fn key(&self) -> Key {
        let Which { key, int, pair } = &self.which;
        let name = key.as_deref().unwrap_or_default();
        match (int, pair, self.scheme, &self.namespace) {
            (Some(number), ..) => Key::from(*number),
            (_, Some(pair), ..) => Key::from(*pair),
            (_, _, Some(scheme), _) => scheme.key(name),
            (.., Some(namespace)) => Key::namespaced(namespace.clone(), name.to_owned()),
            _ => Key::from(name),
        }
    }
}
