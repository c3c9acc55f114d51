//! How locks are shown: tables for people, JSON for programs.

use std::time::Duration;

use pglock::inspect::{Claim, escaped};
use pglock::{Key, Mode};
use serde::Serialize;

use crate::groups::{Does, Group, Session, What};
use crate::names::{Meaning, Names, text};
use crate::table::table;

/// A line for each lock: who holds it, and how many wait.
pub(crate) fn list_of(groups: &[Group<'_>], names: &Names) -> String {
    let rows = groups.iter().map(|group| {
        let (holders, others): (Vec<&Session<'_>>, Vec<_>) = group
            .sessions
            .iter()
            .partition(|session| session.does.holds());
        let first = holders.first().map(|session| session.claim);
        let mut held_by = first.map(who).unwrap_or_default();
        if holders.len() > 1 {
            held_by = format!("{held_by} +{}", holders.len() - 1);
        }
        vec![
            group.title(names),
            first
                .map(|claim| shared(claim).to_owned())
                .unwrap_or_default(),
            first.map(process).unwrap_or_default(),
            held_by,
            first.map(held_for).unwrap_or_default(),
            waiting(&others, &group.what),
        ]
    });
    let header = ["LOCK", "MODE", "PID", "HELD BY", "FOR", "WAITING"];
    table(&header, rows.collect(), &["LOCK", "HELD BY"])
}

/// A line for each session, below the name of the lock and its number.
pub(crate) fn sessions_of(group: &Group<'_>, names: &Names) -> String {
    let rows = group.sessions.iter().map(|session| {
        let claim = session.claim;
        let text = |text: &Option<String>| text.as_ref().map(escaped).unwrap_or_default();
        let blockers: Vec<_> = claim.blocked_by.iter().map(ToString::to_string).collect();
        let mode = match session.in_line(&group.what) {
            true => "",
            false => shared(claim),
        };
        let time = match session.does {
            Does::Waits => claim.waiting_for.map(short).unwrap_or_default(),
            _ => held_for(claim),
        };
        vec![
            process(claim),
            does(session, &group.what),
            mode.to_owned(),
            time,
            text(&claim.application),
            text(&claim.user),
            text(&claim.client),
            last_known(claim),
            blockers.join(" "),
        ]
    });
    let header = [
        "PID",
        "LOCK",
        "MODE",
        "FOR",
        "APPLICATION",
        "USER",
        "CLIENT",
        "LAST",
        "BEHIND",
    ];
    let table = table(&header, rows.collect(), &["APPLICATION", "USER", "CLIENT"]);
    let number = match &group.what {
        What::Key(key) | What::Election(key) if names.shown(key) != text(key) => {
            format!(" ({})", text(key).trim_matches(['(', ')']))
        }
        _ => String::new(),
    };
    format!("{}{number}\n{table}", group.title(names))
}

impl Group<'_> {
    pub(crate) fn is_held(&self) -> bool {
        self.sessions.iter().any(|session| session.does.holds())
    }

    /// Its name, with how many of a semaphore's slots are held.
    fn title(&self, names: &Names) -> String {
        let shown = self.what.shown(names);
        if !matches!(self.what, What::Semaphore(_)) {
            return shown;
        }
        let held = self.sessions.iter().filter(|session| session.does.holds());
        let meanings = self
            .claims
            .iter()
            .flat_map(|claim| names.meanings(&claim.key));
        let slots = meanings.filter_map(Meaning::slots).max();
        let of = slots
            .map(|slots| format!(" of {slots}"))
            .unwrap_or_default();
        format!("{shown}, {}{of}", held.count())
    }
}

/// How many wait, and for how long.
fn waiting(others: &[&Session<'_>], what: &What) -> String {
    let waiters = others.iter().filter(|session| session.does == Does::Waits);
    let longest = waiters
        .clone()
        .filter_map(|session| session.claim.waiting_for)
        .max();
    match (waiters.count(), what, longest) {
        (0, ..) => String::new(),
        (1, What::Election(_), _) => "1 candidate".to_owned(),
        (count, What::Election(_), _) => format!("{count} candidates"),
        (count, _, Some(longest)) => format!("{count} for {}", short(longest)),
        (count, ..) => count.to_string(),
    }
}

pub(crate) fn does(session: &Session<'_>, what: &What) -> String {
    match (session.does, what) {
        (Does::Holds, What::Election(_)) => "leads".to_owned(),
        (Does::Waits, What::Election(_)) => "stands".to_owned(),
        (Does::Helps, _) => "is fenced".to_owned(),
        (Does::HoldsSlot(slot), _) => format!("slot {slot}"),
        (Does::Holds, _) => "held".to_owned(),
        (Does::Waits, _) => "waits".to_owned(),
    }
}

fn process(claim: &Claim) -> String {
    let pid = claim.pid.map(|pid| pid.to_string());
    pid.unwrap_or_else(|| "prepared".to_owned())
}

fn who(claim: &Claim) -> String {
    let name = claim.application.as_ref().or(claim.user.as_ref());
    name.map(escaped).unwrap_or_default()
}

/// For how long a lock has been held, or at least for no longer than what.
pub(crate) fn held_for(claim: &Claim) -> String {
    match (claim.held_for, claim.connected_for) {
        (Some(time), _) => short(time),
        (None, Some(time)) => format!("under {}", short(time)),
        (None, None) => String::new(),
    }
}

/// What else is known of how long it has been held.
fn last_known(claim: &Claim) -> String {
    let state = claim.state.as_deref().unwrap_or_default();
    match (claim.state_for, claim.transaction_for) {
        _ if claim.held_for.is_some() || !claim.granted => String::new(),
        (_, Some(time)) if state.starts_with("idle in") => {
            format!("transaction {}", short(time))
        }
        (Some(time), _) if state == "idle" => format!("statement {} ago", short(time)),
        (Some(time), _) if state == "active" => format!("in a statement {}", short(time)),
        _ => String::new(),
    }
}

pub(crate) fn mode(claim: &Claim) -> &'static str {
    match claim.mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}

fn shared(claim: &Claim) -> &'static str {
    match claim.mode {
        Mode::Exclusive => "",
        Mode::Shared => "shared",
    }
}

/// The two largest units; below a second, milliseconds.
pub(crate) fn short(time: Duration) -> String {
    let coarse = match time.as_secs() {
        0 => return format!("{}ms", time.subsec_millis()),
        1..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    let coarse = Duration::from_secs(time.as_secs() / coarse * coarse);
    humantime::format_duration(coarse)
        .to_string()
        .replace("days", "d")
        .replace("day", "d")
}

/// As the server knows it: an array of two numbers, or one, as a string: jq, JavaScript and others round
/// numbers of 64 bits.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Number {
    Bigint(String),
    Pair(i32, i32),
}

pub(crate) fn number(key: &Key) -> Number {
    match key.as_pair() {
        Some((first, second)) => Number::Pair(first, second),
        None => Number::Bigint(text(key)),
    }
}

/// A claim for programs.
#[derive(Serialize)]
pub(crate) struct Row<'c> {
    key: Number,
    /// What the key is of: a lock, or one with several keys, as people see it.
    lock: String,
    name: Option<&'c str>,
    scheme: Option<&'static str>,
    tool: Option<&'static str>,
    slot: Option<u32>,
    slots: Option<u32>,
    mode: &'static str,
    granted: bool,
    pid: Option<i32>,
    application: Option<&'c str>,
    user: Option<&'c str>,
    client: Option<&'c str>,
    state: Option<&'c str>,
    state_seconds: Option<f64>,
    transaction_seconds: Option<f64>,
    connected_seconds: Option<f64>,
    held_seconds: Option<f64>,
    waiting_seconds: Option<f64>,
    blocked_by: &'c [i32],
}

pub(crate) fn rows_of<'c>(groups: &'c [Group<'c>], names: &'c Names) -> Vec<Row<'c>> {
    let of_group = |group: &'c Group<'c>| {
        let row = |claim: &&'c Claim| row(claim, group.what.shown(names), names);
        group.claims.iter().map(row).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_group).collect()
}

fn row<'c>(claim: &'c Claim, lock: String, names: &'c Names) -> Row<'c> {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let meaning = names.meanings(&claim.key).first();
    Row {
        key: number(&claim.key),
        lock,
        name: claim.key.name().or(meaning.and_then(Meaning::name)),
        scheme: meaning.and_then(Meaning::scheme),
        tool: meaning.and_then(Meaning::tool),
        slot: meaning.and_then(Meaning::slot),
        slots: meaning.and_then(Meaning::slots),
        mode: mode(claim),
        granted: claim.granted,
        pid: claim.pid,
        application: claim.application.as_deref(),
        user: claim.user.as_deref(),
        client: claim.client.as_deref(),
        state: claim.state.as_deref(),
        state_seconds: seconds(claim.state_for),
        transaction_seconds: seconds(claim.transaction_for),
        connected_seconds: seconds(claim.connected_for),
        held_seconds: seconds(claim.held_for),
        waiting_seconds: seconds(claim.waiting_for),
        blocked_by: &claim.blocked_by,
    }
}
