//! Claims by what they are for: elections, semaphores, ranges and lines of waiters have many keys each.
//!
//! How those keys come from a name or a number is a part of the library's contract (`tests/data/*-vectors.json`).

use std::collections::{BTreeMap, HashMap, HashSet};

use pglock::inspect::Claim;
use pglock::{Key, Mode, Slots};

use crate::names::{Meaning, Names, election, text};

/// What sessions hold and wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    Key(Key),
    /// By the key that its leader holds.
    Election(Key),
    Semaphore(String),
    /// As errors show it.
    Range(String),
}

/// What a claim on one of the keys means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Holder,
    Slot(u32),
    Waiter,
    /// Neither holds nor waits, as a fenced transaction.
    Helper,
}

/// Who holds one of them, and who waits for it.
pub(crate) struct Group<'c> {
    pub(crate) what: What,
    pub(crate) sessions: Vec<Session<'c>>,
    pub(crate) claims: Vec<&'c Claim>,
}

/// A session, with the claim that tells most.
pub(crate) struct Session<'c> {
    pub(crate) claim: &'c Claim,
    pub(crate) does: Does,
}

impl Session<'_> {
    /// Whether its claim is on a place in a line, not on the lock itself.
    pub(crate) fn in_line(&self, what: &What) -> bool {
        matches!(what, What::Key(key) if *key != self.claim.key)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Holds,
    HoldsSlot(u32),
    Waits,
    Helps,
}

impl Does {
    pub(crate) fn holds(self) -> bool {
        matches!(self, Self::Holds | Self::HoldsSlot(_))
    }
}

pub(crate) fn groups<'c>(claims: &'c [Claim], names: &Names) -> Vec<Group<'c>> {
    let roles = Roles::of(claims, names);
    let mut groups = BTreeMap::<What, Vec<(Role, &Claim)>>::new();
    for claim in claims {
        let (what, role) = roles.role(claim, names);
        groups.entry(what).or_default().push((role, claim));
    }
    let group = |(what, claims): (What, Vec<_>)| Group {
        sessions: sessions(&claims),
        claims: claims.into_iter().map(|(_, claim)| claim).collect(),
        what,
    };
    groups.into_iter().map(group).collect()
}

/// Holders first, and then those who wait, the longest wait first.
fn sessions<'c>(claims: &[(Role, &'c Claim)]) -> Vec<Session<'c>> {
    let mut sessions = Vec::<Session<'c>>::new();
    let mut places = HashMap::new();
    for (role, claim) in claims {
        let does = match (claim.granted, role) {
            (true, Role::Holder) => Does::Holds,
            (true, Role::Slot(slot)) => Does::HoldsSlot(*slot),
            (_, Role::Helper) => Does::Helps,
            _ => Does::Waits,
        };
        let session = Session { claim, does };
        // A session may hold several slots.
        let slot = match does {
            Does::HoldsSlot(slot) => Some(slot),
            _ => None,
        };
        match places.get(&(claim.pid, slot)) {
            Some(at) if tells(&session) > tells(&sessions[*at]) => sessions[*at] = session,
            Some(_) => {}
            None => {
                places.insert((claim.pid, slot), sessions.len());
                sessions.push(session);
            }
        }
    }
    sessions.sort_by_key(|session| {
        let waits = session.claim.waiting_for.unwrap_or_default();
        (!session.does.holds(), std::cmp::Reverse(waits))
    });
    sessions
}

fn tells(session: &Session<'_>) -> u8 {
    match session.does {
        Does::Holds | Does::HoldsSlot(_) => 3,
        Does::Waits if !session.claim.granted => 2,
        Does::Waits => 1,
        Does::Helps => 0,
    }
}

/// What keys stand for that were made from others.
struct Roles {
    keys: HashMap<Key, (What, Role)>,
    /// Pairs, by their first number: whose they are, and the sessions whose pairs count.
    pairs: HashMap<i32, (What, HashSet<Option<i32>>)>,
}

impl Roles {
    fn of(claims: &[Claim], names: &Names) -> Self {
        let mut roles = Self {
            keys: HashMap::new(),
            pairs: HashMap::new(),
        };
        let keys: HashSet<_> = claims.iter().map(|claim| &claim.key).collect();
        for key in keys.iter().copied().chain(names.keys()) {
            roles.add_election(key, claims, names);
        }
        for key in keys.iter().copied().chain(names.keys()) {
            if !roles.keys.contains_key(key) {
                roles.add_line(key, claims);
            }
        }
        roles
    }

    fn add_line(&mut self, key: &Key, claims: &[Claim]) {
        let number = match (key.as_i64(), key.as_pair()) {
            (Some(number), _) => number.to_string(),
            (_, Some((first, second))) => format!("{first},{second}"),
            (None, None) => return,
        };
        let derived = |role: &'static str| Key::namespaced(role, number.clone());
        let (member, what) = (derived("pglock.member"), What::Key(key.clone()));
        let members: HashSet<_> = holders(claims, &member).collect();
        if members.is_empty() {
            return;
        }
        let class = derived("pglock.place").as_i64().unwrap_or_default() as i32;
        self.pairs.insert(class, (what.clone(), members));
        for key in [member, derived("pglock.head")] {
            self.keys.insert(key, (what.clone(), Role::Waiter));
        }
    }

    fn add_election(&mut self, key: &Key, claims: &[Claim], names: &Names) {
        let named = names.election(key);
        if key.as_i64().is_none() {
            return;
        }
        let (classid, objid, objsubid) = key.pg_locks();
        let id = format!("{classid}:{objid}:{objsubid}");
        let derived = |role: &'static str| Key::namespaced(role, id.clone());
        let class = derived("pglock.term").pg_locks().0 as i32;
        let of_class = |claim: &&Claim| claim.key.as_pair().is_some_and(|pair| pair.0 == class);
        let marked: Vec<_> = claims.iter().filter(of_class).collect();
        let sessions: HashSet<_> = marked.iter().map(|claim| claim.pid).collect();
        let is_one = named.is_some() || holders(claims, key).any(|pid| sessions.contains(&pid));
        if !is_one || marked.is_empty() {
            return;
        }
        let what = What::Election(key.clone());
        let member = match named {
            Some(name) => Some(election(name)[1].clone()),
            None => shared_by_all(claims, &sessions),
        };
        let terms = marked.iter().filter_map(|claim| claim.key.as_pair());
        for (_, number) in terms.filter(|(_, number)| *number > 0) {
            for role in ["pglock.sign", "pglock.ear"] {
                let key = Key::namespaced(role, format!("{id}:{number}"));
                self.keys.insert(key, (what.clone(), Role::Helper));
            }
        }
        let of_waiters = member.into_iter().chain([derived("pglock.head")]);
        for key in of_waiters {
            self.keys.insert(key, (what.clone(), Role::Waiter));
        }
        let fence = derived("pglock.fence");
        self.keys.insert(fence, (what.clone(), Role::Helper));
        self.keys.insert(key.clone(), (what.clone(), Role::Holder));
        self.pairs.insert(class, (what, sessions));
    }

    fn role(&self, claim: &Claim, names: &Names) -> (What, Role) {
        for meaning in names.meanings(&claim.key) {
            match meaning {
                Meaning::Slot(slots, Some(slot)) => {
                    return (What::Semaphore(named(slots)), Role::Slot(*slot));
                }
                Meaning::Slot(slots, None) => {
                    return (What::Semaphore(named(slots)), Role::Waiter);
                }
                Meaning::Range(range) => return (What::Range(range.clone()), Role::Holder),
                _ => {}
            }
        }
        if let Some((what, role)) = self.keys.get(&claim.key) {
            return (what.clone(), *role);
        }
        let class = claim.key.as_pair().map(|pair| pair.0);
        match class.and_then(|class| self.pairs.get(&class)) {
            Some((what, sessions)) if sessions.contains(&claim.pid) => (what.clone(), Role::Waiter),
            _ => (What::Key(claim.key.clone()), Role::Holder),
        }
    }
}

fn holders<'c>(claims: &'c [Claim], key: &'c Key) -> impl Iterator<Item = Option<i32>> + 'c {
    let holders = claims
        .iter()
        .filter(move |claim| claim.granted && claim.key == *key);
    holders.map(|claim| claim.pid)
}

/// The number that all of these sessions share, and nobody else.
fn shared_by_all(claims: &[Claim], sessions: &HashSet<Option<i32>>) -> Option<Key> {
    let mut sharers = BTreeMap::<&Key, HashSet<_>>::new();
    for claim in claims {
        if claim.granted && claim.mode == Mode::Shared && claim.key.as_i64().is_some() {
            sharers.entry(&claim.key).or_default().insert(claim.pid);
        }
    }
    let mut all = sharers.into_iter().filter(|(_, pids)| pids == sessions);
    all.next().map(|(key, _)| key.clone())
}

impl What {
    /// By its name, or else by its number.
    pub(crate) fn shown(&self, names: &Names) -> String {
        match self {
            Self::Key(key) => names.shown(key),
            Self::Election(key) => match names.election(key) {
                Some(name) => format!("election {name:?}"),
                None => format!("election {}", text(key)),
            },
            Self::Semaphore(name) => format!("semaphore {name:?}"),
            Self::Range(range) => range.clone(),
        }
    }
}

/// What a semaphore is called.
fn named(slots: &Slots) -> String {
    slots.key().name().unwrap_or_default().to_owned()
}
