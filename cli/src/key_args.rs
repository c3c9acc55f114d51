//! Which key, on the command line.

use clap::Args;
use pglock::compat::Scheme;
use pglock::{Key, Slots};

use crate::wanted::Wanted;

/// A key in each of its forms.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    which: Which,

    /// The namespace that the name is in
    #[arg(long, value_name = "NS", requires = "key")]
    namespace: Option<String>,

    /// The library whose key of that name to use; `pglock key NAME` lists them
    #[arg(long, requires = "key", conflicts_with = "namespace")]
    scheme: Option<Scheme>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The name of the lock
    key: Option<String>,

    /// A number (bigint) in place of a name
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    int: Option<i64>,

    /// A pair of numbers (two integers) in place of a name
    #[arg(long, value_name = "A,B", allow_hyphen_values = true, value_parser = pair)]
    pair: Option<(i32, i32)>,
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
