//! What a number stands for: a name that the user suspects, in every scheme, or the lock of a tool.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use pglock::Key;
use pglock::compat::Scheme;

use crate::args::LsArgs;
use crate::exit::{Failure, USAGE};
use crate::tools;

/// Whose a key is.
#[derive(Debug, Clone)]
pub(crate) enum Meaning {
    /// A name in pglock's own scheme.
    Own(Key),
    /// A name in the scheme of another library.
    Other(String, Scheme),
    Tool(&'static str),
}

impl Meaning {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Own(key) => key.name(),
            Self::Other(name, _) => Some(name),
            Self::Tool(_) => None,
        }
    }

    pub(crate) fn scheme(&self) -> Option<&'static str> {
        match self {
            Self::Own(_) => Some("pglock"),
            Self::Other(_, scheme) => Some(scheme.name()),
            Self::Tool(_) => None,
        }
    }

    pub(crate) fn tool(&self) -> Option<&'static str> {
        match self {
            Self::Tool(tool) => Some(tool),
            Self::Own(_) | Self::Other(..) => None,
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(key) => key.fmt(f),
            Self::Other(name, scheme) => write!(f, "{name:?} by {scheme}"),
            Self::Tool(tool) => f.write_str(tool),
        }
    }
}

/// The meanings of the keys that have been looked at.
#[derive(Default)]
pub(crate) struct Names {
    candidates: Vec<String>,
    namespaces: Vec<String>,
    known: HashMap<Key, Vec<Meaning>>,
}

impl Names {
    /// For a database, and the schema that tools would use in it.
    pub(crate) fn of(args: &LsArgs, database: &str, schema: &str) -> Result<Self, Failure> {
        let mut known = HashMap::<_, Vec<_>>::new();
        for (key, tool) in tools::keys(database, schema) {
            known.entry(key).or_default().push(Meaning::Tool(tool));
        }
        let text = match args.names.as_deref() {
            Some(path) => read(path).map_err(|error| {
                Failure::new(USAGE, format_args!("{}: {error}", path.display()))
            })?,
            None => String::new(),
        };
        let names = text.lines().filter(|line| !line.is_empty());
        Ok(Self {
            candidates: names.map(str::to_owned).collect(),
            namespaces: args.namespace.clone(),
            known,
        })
    }

    /// Looks up keys that are new. The candidates are hashed again for them: kept, a million names
    /// would take a gigabyte.
    pub(crate) fn look_up<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        let is_new = |key: &&Key| !self.known.contains_key(key);
        let mut new: HashMap<_, _> = keys
            .filter(is_new)
            .map(|key| (key.clone(), Vec::new()))
            .collect();
        if new.is_empty() {
            return;
        }
        for name in &self.candidates {
            let mut is = |meaning: Meaning, key: &Key| {
                if let Some(meanings) = new.get_mut(key) {
                    meanings.push(meaning);
                }
            };
            let own = Key::from(name);
            is(Meaning::Own(own.clone()), &own);
            for namespace in &self.namespaces {
                let own = Key::namespaced(namespace.clone(), name.clone());
                is(Meaning::Own(own.clone()), &own);
            }
            for scheme in Scheme::ALL {
                is(Meaning::Other(name.clone(), scheme), &scheme.key(name));
            }
        }
        self.known.extend(new);
    }

    pub(crate) fn meanings(&self, key: &Key) -> &[Meaning] {
        self.known.get(key).map_or(&[], Vec::as_slice)
    }
}

fn read(path: &Path) -> io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}
