//! `pglock kill`: ends the sessions that hold a lock.

use std::io::{self, BufRead, IsTerminal};

use pglock::Error;
use pglock::inspect::{self, Claim};

use crate::args::KillArgs;
use crate::connection::connect;
use crate::exit::{Failure, NOBODY, NOTHING_DONE, UNAVAILABLE, USAGE, chain};
use crate::groups::{What, groups};
use crate::output::{print, prompt, say};
use crate::prepared;
use crate::show::seen;
use crate::wanted::Wanted;

pub(crate) fn kill(url: &str, args: &KillArgs) -> Result<u8, Failure> {
    let wanted = args.key.wanted(args.slots);
    let mut connection = connect(url, "pglock kill")?;
    let holders = wanted.holders(&mut connection)?;
    if holders.is_empty() {
        let (claims, names) = seen(&mut connection, &wanted)?;
        let groups = groups(&claims, &names);
        let others = groups.iter().filter(|group| group.is_held());
        let others = others.filter(|group| wanted.is(&group.what));
        let hints = others.filter_map(|group| instead(&group.what));
        let message = format!("nobody holds {wanted}{}", hints.collect::<String>());
        return Err(Failure::new(NOBODY, message));
    }
    let mut code = 0;
    let (holders, prepared): (Vec<_>, Vec<_>) = holders.iter().partition(|h| h.pid.is_some());
    let mut keys: Vec<_> = prepared.iter().map(|claim| &claim.key).collect();
    keys.dedup();
    for key in keys {
        if prepared::explain(&mut connection, key)? {
            code = UNAVAILABLE;
        }
    }
    if holders.is_empty() {
        return match code {
            0 => Err(Failure::new(
                NOBODY,
                format_args!("nobody holds {wanted} any more"),
            )),
            code => Ok(code),
        };
    }
    let verb = if args.cancel { "cancel" } else { "end" };
    if !args.yes && !confirmed(&wanted, &holders, verb)? {
        return Err(Failure::new(NOTHING_DONE, format_args!("{verb}ed nothing")));
    }
    for holder in holders {
        let hit = if args.cancel {
            inspect::cancel(&mut connection, holder)
        } else {
            inspect::terminate(&mut connection, holder)
        };
        // The next one is ended even if the report on this one fails.
        if let Err(failure) = report(verb, holder, hit) {
            say(failure.message);
            code = failure.code;
        }
    }
    Ok(code)
}

/// What else has that name and is held, and how to end its holders.
fn instead(what: &What) -> Option<String> {
    match what {
        What::Key(_) | What::Range(_) => None,
        What::Semaphore(_) => Some("; for the semaphore of that name, say --slots N".into()),
        What::Election(key) => {
            let number = key.as_i64()?;
            Some(format!(
                "; for the leader of the election of that name, say --int {number}"
            ))
        }
    }
}

fn confirmed(wanted: &Wanted, holders: &[&Claim], verb: &str) -> Result<bool, Failure> {
    for holder in holders {
        prompt(format_args!("{wanted} is held by {holder}\n"));
    }
    if !io::stdin().is_terminal() {
        let message = format!("add --yes to {verb} them without a question");
        return Err(Failure::new(USAGE, message));
    }
    let them = if holders.len() == 1 { "it" } else { "them" };
    prompt(format_args!("{verb} {them}? [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn report(verb: &str, holder: &Claim, hit: Result<bool, Error>) -> Result<(), Failure> {
    match hit {
        Ok(true) => print(format_args!("{verb}ed {holder}")).map(drop),
        Ok(false) => print(format_args!("gone already: {holder}")).map(drop),
        Err(error) => Err(Failure::new(
            UNAVAILABLE,
            format_args!("cannot {verb} {holder}: {}", chain(&error)),
        )),
    }
}
