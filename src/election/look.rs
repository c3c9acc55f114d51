//! What a candidate can see of the last holder and of the server.

use std::time::Duration;

use super::keys::Keys;
use super::lease::Moment;
use super::predecessor::{Ends, Fate, Role, Sight};
use crate::driver::Session;
use crate::failure::Failure;
use crate::sql::election as sql;

/// What separates the fields of a line.
const FIELD: char = '\x1f';

/// Who holds the lock, if anybody does.
pub(super) fn at_holder<S: Session>(
    session: &mut S,
    keys: &Keys,
) -> Result<Option<Sight>, Failure> {
    let at = Moment::now();
    let lines = session.query(&sql::holder(&keys.lock, keys.class))?;
    Ok(lines.iter().find_map(|line| read_sight(line, at)))
}

/// What has become of the session that held it.
///
/// A session that is gone has been counted, but perhaps only after the same statement read the
/// counts: they are read once more.
pub(super) fn at_fate<S: Session>(session: &mut S, sight: &Sight) -> Result<Fate, Failure> {
    let question = sql::fate(sight.pid, sight.began.as_deref());
    let mut fate = ask_fate(session, &question)?;
    if let Fate::Gone(_) = fate {
        fate = ask_fate(session, &question)?;
    }
    Ok(fate)
}

fn ask_fate<S: Session>(session: &mut S, question: &str) -> Result<Fate, Failure> {
    let lines = session.query(question)?;
    Ok(lines
        .first()
        .and_then(|line| read_fate(line))
        .unwrap_or(Fate::Hidden))
}

/// How long ago the server was restarted. `None`: it never was, or does not say.
pub(super) fn at_server<S: Session>(session: &mut S) -> Result<Option<Duration>, Failure> {
    match session.query(sql::RESTARTED) {
        Ok(lines) => Ok(lines.first().and_then(|line| millis(line))),
        Err(Failure::Sql { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn read_sight(line: &str, at: Moment) -> Option<Sight> {
    let fields: Vec<_> = line.split(FIELD).collect();
    let &[pid, began, idle, lease, leads, ends] = fields.as_slice() else {
        return None;
    };
    let role = match (millis(lease), leads) {
        (None, _) => Role::Other,
        (Some(lease), "true") => Role::Leader { lease },
        (Some(lease), _) => Role::Candidate { lease },
    };
    Some(Sight {
        pid: pid.parse().ok()?,
        began: (!began.is_empty()).then(|| began.to_owned()),
        role,
        idle: millis(idle),
        ends: read_ends(ends)?,
        at,
    })
}

fn read_fate(line: &str) -> Option<Fate> {
    let (word, ends) = line.split_once(FIELD)?;
    Some(match word {
        "ending" => Fate::Ending,
        "goes on" => Fate::GoesOn,
        "cleared" => Fate::Cleared,
        "gone" => Fate::Gone(read_ends(ends)?),
        _ => Fate::Hidden,
    })
}

fn read_ends(text: &str) -> Option<Ends> {
    let fields: Vec<_> = text.split(' ').collect();
    let &[killed, fatal, abandoned, reset, in_time] = fields.as_slice() else {
        return None;
    };
    Some(Ends {
        killed: killed.parse().ok()?,
        fatal: fatal.parse().ok()?,
        abandoned: abandoned.parse().ok()?,
        reset: reset.to_owned(),
        in_time: in_time == "t",
    })
}

/// A clock that was set back makes an age negative.
fn millis(text: &str) -> Option<Duration> {
    let millis: i64 = text.parse().ok()?;
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(line: &str) -> Option<Sight> {
        read_sight(line, Moment::now())
    }

    #[test]
    fn a_line_is_read() {
        let seen = sight("4711\x1f1700000000.5\x1f250\x1f10000\x1ftrue\x1f1 2 3 - t").unwrap();
        let lease = Duration::from_secs(10);
        assert_eq!((seen.pid, seen.role), (4711, Role::Leader { lease }));
        assert_eq!(seen.began.as_deref(), Some("1700000000.5"));
        assert_eq!(seen.idle, Some(Duration::from_millis(250)));
        assert_eq!((seen.ends.killed, seen.ends.in_time), (1, true));
        let candidate = sight("1\x1f\x1f\x1f1000\x1ffalse\x1f1 2 3 7.5 f").unwrap();
        let lease = Duration::from_secs(1);
        assert_eq!(candidate.role, Role::Candidate { lease });
        assert_eq!((candidate.began, candidate.idle), (None, None));
        let other = sight("1\x1f\x1f\x1f\x1f\x1f1 2 3 - t").unwrap();
        assert_eq!(other.role, Role::Other);
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        assert_eq!(sight("1\x1f2"), None);
        assert_eq!(sight("1\x1f\x1f\x1f\x1f\x1f1 2"), None);
        assert_eq!(read_fate("goes on"), None);
        assert_eq!(read_fate("odd\x1f"), Some(Fate::Hidden));
        assert_eq!(read_fate("gone\x1f"), None);
    }
}
