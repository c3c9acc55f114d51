//! `pglock ls` and `pglock who`: tables for people, JSON for programs.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use comfy_table::{Table, presets};
use pglock::inspect::{self, Claim};
use pglock::{Key, Mode};
use serde_json::{Value, json};

use crate::args::{LsArgs, WhoArgs};
use crate::connection::connect;
use crate::exit::{Failure, NOBODY};
use crate::output::print;

pub(crate) fn ls(url: &str, args: &LsArgs) -> Result<u8, Failure> {
    let mut connection = connect(url, "pglock ls")?.connection;
    loop {
        let claims = inspect::locks(&mut connection)?;
        let text = match (args.json, claims.is_empty()) {
            (true, _) => json_of(&claims).to_string(),
            (false, true) => "no advisory locks in this database".to_owned(),
            (false, false) => table_of(&claims).trim_fmt(),
        };
        let read = match args.watch.is_some() && !args.json && io::stdout().is_terminal() {
            true => print(format_args!("\x1b[H\x1b[2J{text}"))?, // home, and clear
            false => print(text)?,
        };
        match args.watch {
            Some(interval) if read => thread::sleep(interval),
            _ => return Ok(0),
        }
    }
}

pub(crate) fn who(url: &str, args: &WhoArgs) -> Result<u8, Failure> {
    let key = args.key.key();
    let mut connection = connect(url, "pglock who")?.connection;
    let mut claims = inspect::holders(&mut connection, &key)?;
    let held = !claims.is_empty();
    claims.extend(inspect::waiters(&mut connection, &key)?);
    if args.json {
        print(json_of(&claims))?;
    } else if !claims.is_empty() {
        print(table_of(&claims).trim_fmt())?;
    }
    match held {
        true => Ok(0),
        false if args.json => Ok(NOBODY),
        false => Err(Failure::new(NOBODY, format_args!("nobody holds {key}"))),
    }
}

/// Plain columns, which other tools can read too.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn table_of(claims: &[Claim]) -> Table {
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
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let waiting = claim.waiting_for.filter(|_| !claim.granted);
        let lock = match (claim.granted, waiting) {
            (true, _) => "held".to_owned(),
            (false, Some(time)) => format!("waits {}", short(time)),
            (false, None) => "waits".to_owned(),
        };
        let blockers: Vec<_> = claim.blocked_by.iter().map(ToString::to_string).collect();
        table.add_row([
            shown(&claim.key),
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

fn shown(key: &Key) -> String {
    let number = text(key);
    match key.name() {
        Some(_) => format!("{key} = {number}"),
        None => number,
    }
}

/// As the server knows it: a number, or an array of two.
pub(crate) fn number(key: &Key) -> Value {
    match (key.as_i64(), key.as_pair()) {
        (Some(number), _) => json!(number),
        (_, pair) => json!(pair),
    }
}

/// As people write it.
pub(crate) fn text(key: &Key) -> String {
    match (key.as_i64(), key.as_pair()) {
        (Some(number), _) => number.to_string(),
        (_, Some((first, second))) => format!("({first}, {second})"),
        (None, None) => String::new(),
    }
}

fn mode(claim: &Claim) -> &'static str {
    match claim.mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}

/// To the second, or to the millisecond below one.
fn short(time: Duration) -> String {
    let short = match time.as_secs() {
        0 => Duration::from_millis(u64::from(time.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(short).to_string()
}

fn json_of(claims: &[Claim]) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let object = |claim: &Claim| {
        json!({
            "key": number(&claim.key),
            "name": claim.key.name(),
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
