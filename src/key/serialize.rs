//! Keys in JSON, TOML and the like: as their user writes them.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Id, Key, Name};

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a key is a name, a number of 64 bits, a pair of 32 bits, or a map of namespace and name"
)]
enum Written<'k> {
    Number(i64),
    Pair(i32, i32),
    Name(Cow<'k, str>),
    Namespaced {
        namespace: Cow<'k, str>,
        name: Cow<'k, str>,
    },
}

/// A name as a text, a number as a number, a pair as an array of two, and a name in a namespace as a map of both. A
/// key that only is shown under a name, such as those of [`compat`](crate::compat), is the number that it locks.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match (&self.name, self.id) {
            (Some(name), _) if name.key() == *self => match &name.namespace {
                Some(namespace) => Written::Namespaced {
                    namespace: namespace.as_ref().into(),
                    name: name.name.as_ref().into(),
                },
                None => Written::Name(name.name.as_ref().into()),
            },
            (_, Id::Bigint(number)) => Written::Number(number),
            (_, Id::Pair(first, second)) => Written::Pair(first, second),
        };
        written.serialize(serializer)
    }
}

/// As it is serialized: for keys in a file of settings.
impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.into(),
            Written::Pair(first, second) => (first, second).into(),
            Written::Name(name) => name.into(),
            Written::Namespaced { namespace, name } => {
                Self::namespaced(namespace.into_owned(), name.into_owned())
            }
        })
    }
}

impl Name {
    /// The key that is made from it.
    fn key(&self) -> Key {
        match &self.namespace {
            Some(namespace) => Key::namespaced(namespace.clone(), self.name.clone()),
            None => Key::named(self.name.clone()),
        }
    }
}
