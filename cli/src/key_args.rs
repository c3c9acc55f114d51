//! Which key, on the command line.

use clap::Args;
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
    #[arg(long, requires = "key", conflicts_with = "namespace")]
    scheme: Option<Scheme>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The name of the lock
    #[arg(value_parser = name)]
    key: Option<String>,

    /// A number (bigint) in place of a name
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    int: Option<i64>,

    /// A pair of numbers (two integers) in place of a name
    #[arg(long, value_name = "A,B", allow_hyphen_values = true, value_parser = pair)]
    pair: Option<(i32, i32)>,
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
