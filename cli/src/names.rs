//! What a number stands for: a name that the user suspects, in any scheme, or the lock of a tool.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use pglock::compat::Scheme;
use pglock::inspect::Claim;
use pglock::{Key, KeyRange, Lock, Slots};

use crate::exit::{Failure, USAGE};
use crate::tools;

/// Whose a key is.
#[derive(Debug, Clone)]
pub(crate) enum Meaning {
    /// A name in pglock's own scheme.
    Own(Key),
    /// A name in the scheme of another library.
    Other(String, Scheme),
    /// A slot of a semaphore; `None`: the queue for all of them.
    Slot(Slots, Option<u32>),
    /// The lock of the election of that name.
    Election(String),
    /// A node of a range, as errors show it.
    Range(String),
    Tool(&'static str),
}

impl Meaning {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Own(key) => key.name(),
            Self::Other(name, _) => Some(name),
            Self::Slot(slots, _) => slots.key().name(),
            Self::Election(name) => Some(name),
            Self::Range(_) | Self::Tool(_) => None,
        }
    }

    pub(crate) fn slot(&self) -> Option<u32> {
        match self {
            Self::Slot(_, slot) => *slot,
            _ => None,
        }
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> Option<u32> {
        match self {
            Self::Slot(slots, _) => Some(slots.count()).filter(|count| *count < Slots::MAX),
            _ => None,
        }
    }

    fn of_slots(slots: &Slots, key: &Key) -> Option<Self> {
        match slots.slot_of(key) {
            None if key != slots.queue() => None,
            slot => Some(Self::Slot(slots.clone(), slot)),
        }
    }

    pub(crate) fn scheme(&self) -> Option<&'static str> {
        match self {
            Self::Own(_) | Self::Slot(..) | Self::Election(_) | Self::Range(_) => Some("pglock"),
            Self::Other(_, scheme) => Some(scheme.name()),
            Self::Tool(_) => None,
        }
    }

    pub(crate) fn tool(&self) -> Option<&'static str> {
        match self {
            Self::Tool(tool) => Some(tool),
            _ => None,
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(key) => key.fmt(f),
            Self::Other(name, scheme) => write!(f, "{name:?} by {scheme}"),
            Self::Slot(slots, Some(slot)) => write!(f, "slot {slot} of {slots}"),
            Self::Slot(slots, None) => write!(f, "queue of {slots}"),
            Self::Election(name) => write!(f, "election {name:?}"),
            Self::Range(text) => f.write_str(text),
            Self::Tool(tool) => f.write_str(tool),
        }
    }
}

/// The meanings of the keys seen so far.
#[derive(Default)]
pub(crate) struct Names {
    candidates: Vec<String>,
    namespaces: Vec<String>,
    known: HashMap<Key, Vec<Meaning>>,
}

impl Names {
    /// For a database and the schema that tools would use in it.
    pub(crate) fn of(
        names: Option<&Path>,
        namespaces: &[String],
        database: &str,
        schema: &str,
    ) -> Result<Self, Failure> {
        let mut known = HashMap::<_, Vec<_>>::new();
        for (key, tool) in tools::keys(database, schema) {
            known.entry(key).or_default().push(Meaning::Tool(tool));
        }
        let text = match names {
            Some(path) => read(path).map_err(|error| {
                Failure::new(USAGE, format_args!("{}: {error}", path.display()))
            })?,
            None => String::new(),
        };
        let names = text.lines().filter(|line| !line.is_empty());
        Ok(Self {
            candidates: names.map(str::to_owned).collect(),
            namespaces: namespaces.to_vec(),
            known,
        })
    }

    /// Looks up new keys. This hashes the candidates again: to keep the hashes of a million names would
    /// take a gigabyte.
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
            for key in election(name) {
                is(Meaning::Election(name.clone()), &key);
            }
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

    /// Adds the names that sessions show for their keys, if they match: a session with several keys
    /// shows one name.
    pub(crate) fn read_labels(&mut self, claims: &[Claim]) {
        for claim in claims {
            let Some(label) = claim.label.as_deref() else {
                continue;
            };
            if let Some(meaning) = labelled(label, &claim.key) {
                self.add(&claim.key, meaning);
            }
            for key in range(label) {
                self.add(&key, Meaning::Range(label.to_owned()));
            }
        }
    }

    /// The election of that name and its semaphore, however many slots that has.
    pub(crate) fn add_name(&mut self, name: &str, slots: Option<u32>, claims: &[Claim]) {
        for key in election(name) {
            self.add(&key, Meaning::Election(name.to_owned()));
        }
        let counts = self.known.values().flatten();
        let mut counts = counts.filter(|meaning| meaning.name() == Some(name));
        let shown = counts.find_map(Meaning::slots);
        let waited_for = || {
            let keys: HashSet<_> = claims.iter().map(|claim| &claim.key).collect();
            (1..=Slots::MAX).find(|slots| keys.contains(&queue(name, *slots)))
        };
        let count = slots.or(shown).or_else(waited_for).unwrap_or(Slots::MAX);
        self.add_slots(&Slots::new(name, count), claims);
    }

    /// The keys that have a meaning.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        let known = self.known.iter();
        known.filter_map(|(key, meanings)| (!meanings.is_empty()).then_some(key))
    }

    /// The name of an election, by its lock.
    pub(crate) fn election(&self, key: &Key) -> Option<&str> {
        let names = self
            .meanings(key)
            .iter()
            .filter_map(|meaning| match meaning {
                Meaning::Election(name) => Some(name),
                _ => None,
            });
        let mut names = names.filter(|name| election(name)[0] == *key);
        names.next().map(String::as_str)
    }

    /// What a key is called, or else its number.
    pub(crate) fn shown(&self, key: &Key) -> String {
        let mut names: Vec<_> = self.meanings(key).iter().map(ToString::to_string).collect();
        if key.name().is_some() && names.is_empty() {
            names.push(key.to_string());
        }
        match names.is_empty() {
            true => text(key),
            false => names.join(" = "),
        }
    }

    /// The slots of a semaphore.
    fn add_slots(&mut self, slots: &Slots, claims: &[Claim]) {
        for claim in claims {
            if let Some(meaning) = Meaning::of_slots(slots, &claim.key) {
                self.add(&claim.key, meaning);
            }
        }
    }

    fn add(&mut self, key: &Key, meaning: Meaning) {
        let meanings = self.known.entry(key.clone()).or_default();
        let text = meaning.to_string();
        if !meanings.iter().any(|known| known.to_string() == text) {
            meanings.push(meaning);
        }
    }

    pub(crate) fn meanings(&self, key: &Key) -> &[Meaning] {
        self.known.get(key).map_or(&[], Vec::as_slice)
    }
}

/// The election of a name: its lock, and what all its sessions hold.
pub(crate) fn election(name: &str) -> [Key; 2] {
    let of = |namespace: &'static str| Key::namespaced(namespace, name.to_owned());
    [of("pglock.election"), of("pglock.candidate")]
}

/// The queues for the slots of a semaphore, by their number.
pub(crate) fn queue(name: &str, slots: u32) -> Key {
    Key::namespaced("pglock.queue", format!("{slots}:{name}"))
}

/// A number, as a person would write it.
pub(crate) fn text(key: &Key) -> String {
    match (key.as_i64(), key.as_pair()) {
        (Some(number), _) => number.to_string(),
        (_, Some((first, second))) => format!("({first}, {second})"),
        (None, None) => String::new(),
    }
}

/// What a label says about a key: its name, or its semaphore. A label that was cut, or that belongs to
/// another key, says nothing.
fn labelled(label: &str, key: &Key) -> Option<Meaning> {
    if let Some(slots) = semaphore(label) {
        return Meaning::of_slots(&slots, key);
    }
    named(label).filter(|named| named == key).map(Meaning::Own)
}

/// The keys of a range, `20..27 of "room:7"`.
fn range(label: &str) -> Vec<Key> {
    let read = || {
        let (numbers, key) = label.split_once(" of ")?;
        let (start, end) = numbers.split_once("..")?;
        Some((named(key)?, start.parse().ok()?..end.parse().ok()?))
    };
    let Some((key, numbers)) = read() else {
        return Vec::new();
    };
    let range = KeyRange::new(&key, numbers);
    let exclusive = Lock::new((), &range);
    let shared = Lock::new((), &range).shared();
    let locks = [exclusive.lock_info(), shared.lock_info()];
    locks.iter().flat_map(|lock| lock.keys().to_vec()).collect()
}

/// `"name"`, or `"name" in "namespace"`.
fn named(label: &str) -> Option<Key> {
    const IN: &str = " in ";
    let namespaced = |(at, _)| {
        let (name, namespace) = (&label[..at], &label[at + IN.len()..]);
        Some(Key::namespaced(unquoted(namespace)?, unquoted(name)?))
    };
    let own = unquoted(label).map(Key::from);
    own.or_else(|| label.match_indices(IN).find_map(namespaced))
}

/// `semaphore "name" (3 slots)`, or `slot 2 of` it.
fn semaphore(label: &str) -> Option<Slots> {
    let (_, semaphore) = label.split_once("semaphore ")?;
    let (name, count) = semaphore.rsplit_once(" (")?;
    let (count, _) = count.split_once(" slot")?;
    Some(Slots::new(unquoted(name)?, count.parse().ok()?))
}

/// Removes Rust's quotes and escapes from a text.
fn unquoted(text: &str) -> Option<String> {
    let mut text = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut unquoted = String::new();
    while let Some((before, escape)) = text.split_once('\\') {
        if before.contains('"') {
            return None;
        }
        let mut after = escape.chars();
        let character = match after.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            'u' => {
                let (number, rest) = after.as_str().strip_prefix('{')?.split_once('}')?;
                after = rest.chars();
                u32::from_str_radix(number, 16)
                    .ok()
                    .and_then(char::from_u32)?
            }
            other => other,
        };
        unquoted += before;
        unquoted.push(character);
        text = after.as_str();
    }
    if text.contains('"') {
        return None;
    }
    unquoted += text;
    Some(unquoted)
}

fn read(path: &Path) -> io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_keys_show_are_read() {
        for name in ["deploy", "", "a \"b\" in \\c", "\n\r\t\0\u{7f}", "é /🔒 '"] {
            let keys = [
                Key::from(name),
                Key::namespaced("in \"x", name),
                Key::namespaced(name, "in \"x"),
            ];
            for key in keys {
                let label = key.to_string();
                let label = label.replace('é', "\\u{e9}").replace('/', "\\u{2f}");
                let read = named(&label).unwrap();
                assert_eq!((read.to_string(), &read), (key.to_string(), &key));
            }
        }
        for label in ["deploy", "\"deploy", "42", "\"x\\u{110000}\"", "\"a\" in "] {
            assert!(named(label).is_none(), "{label}");
        }
    }

    #[test]
    fn the_slots_that_semaphores_show_are_read() {
        for (name, count) in [("mail", 3), ("one", 1), ("a \"semaphore (2 slots)", 9)] {
            let slots = Slots::new(name, count);
            for label in [slots.to_string(), format!("slot 0 of {slots}")] {
                let slot = labelled(&label, &slots.keys()[0]).unwrap();
                assert_eq!(slot.to_string(), format!("slot 0 of {slots}"));
                let queue = labelled(&label, slots.queue()).unwrap();
                assert_eq!(queue.to_string(), format!("queue of {slots}"));
                assert!(labelled(&label, &Key::from(name)).is_none());
            }
        }
    }
}
