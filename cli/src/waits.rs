//! The sessions of the tree: those that hold advisory locks or wait for them, and those that these wait
//! for in turn, even for a row.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::sql_types::{Array, Double, Integer, Nullable, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};
use pglock::inspect::Claim;

use crate::claims::{held_for, mode, short};
use crate::exit::{Failure, UNAVAILABLE};
use crate::groups::{self, Does, Group, What};
use crate::names::Names;
use crate::tree::{Node, draw};

/// How many of a session's keys are named.
const FEW: usize = 5;

/// What `pg_blocking_pids` calls a prepared transaction.
const PREPARED: i32 = 0;

#[derive(QueryableByName)]
struct Session {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Nullable<Text>)]
    application: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<Double>)]
    state_seconds: Option<f64>,
    /// The kind of lock that it waits for.
    #[diesel(sql_type = Nullable<Text>)]
    waits_for: Option<String>,
    #[diesel(sql_type = Array<Integer>)]
    blocked_by: Vec<i32>,
}

/// What a session holds or waits for.
struct Own<'g> {
    what: &'g What,
    session: &'g groups::Session<'g>,
}

/// Who holds what.
type Holders<'g> = HashSet<(i32, &'g What)>;

pub(crate) fn tree_of(
    connection: &mut PgConnection,
    groups: &[Group<'_>],
    names: &Names,
) -> Result<String, Failure> {
    let mut of = HashMap::<_, Vec<_>>::new();
    for group in groups {
        for session in &group.sessions {
            let own = Own {
                what: &group.what,
                session,
            };
            of.entry(process(session.claim)).or_default().push(own);
        }
    }
    let holders = of.iter().flat_map(|(pid, own)| {
        let held = own.iter().filter(|own| own.session.does.holds());
        held.map(|own| (*pid, own.what))
    });
    let holders = holders.collect();
    let sessions = sessions(connection, &of.keys().copied().collect::<Vec<_>>());
    let sessions = sessions.map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    let node = |session: &Session| {
        let own = of.get(&session.pid).map_or(&[][..], Vec::as_slice);
        (session.pid, node(session, own, &holders, names))
    };
    Ok(draw(&sessions.iter().map(node).collect::<BTreeMap<_, _>>()))
}

fn process(claim: &Claim) -> i32 {
    claim.pid.unwrap_or(PREPARED)
}

fn sessions(connection: &mut PgConnection, pids: &[i32]) -> QueryResult<Vec<Session>> {
    sql_query(
        "WITH RECURSIVE involved(pid) AS (\
         SELECT unnest($1) UNION \
         SELECT unnest(pg_blocking_pids(pid)) FROM involved) \
         SELECT pid, nullif(application_name, '') AS application, state, \
         extract(epoch FROM clock_timestamp() - state_change)::float8 AS state_seconds, \
         CASE WHEN wait_event_type = 'Lock' THEN wait_event END AS waits_for, \
         pg_blocking_pids(pid) AS blocked_by \
         FROM involved LEFT JOIN pg_stat_activity USING (pid)",
    )
    .bind::<Array<Integer>, _>(pids)
    .load(connection)
}

fn node(session: &Session, own: &[Own<'_>], holders: &Holders<'_>, names: &Names) -> Node {
    let (held, others): (Vec<&Own<'_>>, Vec<_>) =
        own.iter().partition(|own| own.session.does.holds());
    let waited = others.iter().find(|own| own.session.does == Does::Waits);
    let mut line = who(session, own.is_empty());
    if let Some(first) = held.first() {
        let shown = held.iter().take(FEW).map(|own| lock(own, names));
        line = format!("{line}, holds {}", shown.collect::<Vec<_>>().join(" and "));
        if held.len() > FEW {
            line = format!("{line} and {} more", held.len() - FEW);
        }
        line = format!("{line} for {}", held_for(first.session.claim));
    }
    let waiting = waited.and_then(|own| own.session.claim.waiting_for);
    let time = waiting.map(|time| format!(" {}", short(time)));
    let time = time.unwrap_or_default();
    match (waited, &session.waits_for) {
        (Some(own), _) => line = format!("{line}, waits{time} for {}", lock(own, names)),
        (None, Some(kind)) => line = format!("{line}, waits for another lock ({kind})"),
        (None, None) => {}
    }
    Node {
        line,
        below: blockers(session, waited.copied(), holders),
        waiting: waiting.unwrap_or_default().as_secs_f64(),
    }
}

/// Of the sessions that a session waits for, the holders of the lock, also where it stands in line behind
/// others, or is between two slices of its wait. If there are none, as for a shared lock behind an exclusive
/// wait, those that came before it.
fn blockers(session: &Session, waited: Option<&Own<'_>>, holders: &Holders<'_>) -> Vec<i32> {
    let Some(own) = waited else {
        return session.blocked_by.clone();
    };
    let of_lock = holders.iter().filter(|(_, held)| *held == own.what);
    let of_lock: Vec<_> = of_lock.map(|(pid, _)| *pid).collect();
    let blocks = |pid: &&i32| session.blocked_by.contains(pid);
    let blocking: Vec<_> = of_lock.iter().filter(blocks).copied().collect();
    if !blocking.is_empty() {
        return blocking;
    }
    match own.session.in_line(own.what) || session.blocked_by.is_empty() {
        true => of_lock,
        false => session.blocked_by.clone(),
    }
}

/// With what it does, if it holds nothing that says for how long.
fn who(session: &Session, with_state: bool) -> String {
    if session.pid == PREPARED {
        return "a prepared transaction".to_owned();
    }
    let mut line = format!("pid {}", session.pid);
    if let Some(application) = &session.application {
        line = format!("{line} {application:?}");
    }
    let seconds = session.state_seconds.unwrap_or_default().max(0.0);
    match (&session.state, Duration::try_from_secs_f64(seconds)) {
        (Some(state), Ok(time)) if with_state => format!("{line}, {state} {}", short(time)),
        _ => line,
    }
}

fn lock(own: &Own<'_>, names: &Names) -> String {
    let shown = own.what.shown(names);
    match (own.what, own.session.in_line(own.what)) {
        (What::Key(_), false) => format!("{shown} ({})", mode(own.session.claim)),
        _ => shown,
    }
}
