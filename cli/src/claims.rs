//! How locks are shown: tables for people, JSON for programs.

use std::time::Duration;

use comfy_table::{Table, presets};
use pglock::inspect::{Claim, escaped};
use pglock::{Key, Mode};
use serde_json::{Value, json};

use crate::names::{Meaning, Names};

/// Plain columns, which other tools can read too.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub(crate) fn table_of(claims: &[Claim], names: &Names) -> Table {
    let mut table = table(&[
        "KEY",
        "MODE",
        "LOCK",
        "PID",
        "APPLICATION",
        "USER",
        "CLIENT",
        "STATE",
        "FOR",
        "BLOCKED BY",
    ]);
    for claim in claims {
        let or_dash = |text: &Option<String>| text.as_ref().map_or("-".to_owned(), escaped);
        let waiting = claim.waiting_for.filter(|_| !claim.granted);
        let lock = match (claim.granted, waiting) {
            (true, _) => "held".to_owned(),
            (false, Some(time)) => format!("waits {}", short(time)),
            (false, None) => "waits".to_owned(),
        };
        let blockers: Vec<_> = claim.blocked_by.iter().map(ToString::to_string).collect();
        table.add_row([
            shown(&claim.key, names),
            mode(claim).to_owned(),
            lock,
            claim
                .pid
                .map_or_else(|| "prepared".to_owned(), |pid| pid.to_string()),
            or_dash(&claim.application),
            or_dash(&claim.user),
            or_dash(&claim.client),
            or_dash(&claim.state),
            claim.state_for.map_or_else(|| "-".to_owned(), short),
            blockers.join(" "),
        ]);
    }
    table
}

pub(crate) fn shown(key: &Key, names: &Names) -> String {
    let mut parts: Vec<_> = names
        .meanings(key)
        .iter()
        .map(ToString::to_string)
        .collect();
    if key.name().is_some() {
        parts.insert(0, key.to_string());
    }
    parts.push(text(key));
    parts.join(" = ")
}

/// As the server knows it: an array of two numbers, or one, as a string: jq, JavaScript and others round
/// numbers of 64 bits.
pub(crate) fn number(key: &Key) -> Value {
    match (key.as_i64(), key.as_pair()) {
        (Some(number), _) => json!(number.to_string()),
        (_, pair) => json!(pair),
    }
}

/// As a person would write it.
pub(crate) fn text(key: &Key) -> String {
    match (key.as_i64(), key.as_pair()) {
        (Some(number), _) => number.to_string(),
        (_, Some((first, second))) => format!("({first}, {second})"),
        (None, None) => String::new(),
    }
}

pub(crate) fn mode(claim: &Claim) -> &'static str {
    match claim.mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}

/// To the second; below one, to the millisecond.
pub(crate) fn short(time: Duration) -> String {
    let short = match time.as_secs() {
        0 => Duration::from_millis(u64::from(time.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(short).to_string()
}

pub(crate) fn json_of(claims: &[Claim], names: &Names) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let object = |claim: &Claim| {
        let meaning = names.meanings(&claim.key).first();
        json!({
            "key": number(&claim.key),
            "name": claim.key.name().or(meaning.and_then(Meaning::name)),
            "scheme": meaning.and_then(Meaning::scheme),
            "tool": meaning.and_then(Meaning::tool),
            "slot": meaning.and_then(Meaning::slot),
            "slots": meaning.and_then(Meaning::slots),
            "mode": mode(claim),
            "granted": claim.granted,
            "pid": claim.pid,
            "application": claim.application,
            "user": claim.user,
            "client": claim.client,
            "state": claim.state,
            "state_seconds": seconds(claim.state_for),
            "transaction_seconds": seconds(claim.transaction_for),
            "connected_seconds": seconds(claim.connected_for),
            "waiting_seconds": seconds(claim.waiting_for),
            "blocked_by": claim.blocked_by,
        })
    };
    claims.iter().map(object).collect()
}
