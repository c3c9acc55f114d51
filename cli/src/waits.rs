//! The sessions of the tree: those that hold advisory locks or wait for them, and those that these wait
//! for in turn, even for a row.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::sql_types::{Array, Double, Integer, Nullable, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};
use pglock::Key;
use pglock::inspect::Claim;

use crate::claims::{mode, short, shown};
use crate::exit::{Failure, UNAVAILABLE};
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

/// Who holds which key.
type Holders<'c> = HashSet<(i32, &'c Key)>;

pub(crate) fn tree_of(
    connection: &mut PgConnection,
    claims: &[Claim],
    names: &Names,
) -> Result<String, Failure> {
    let mut of = HashMap::<_, Vec<_>>::new();
    for claim in claims {
        of.entry(process(claim)).or_default().push(claim);
    }
    let granted = claims.iter().filter(|claim| claim.granted);
    let holders = granted.map(|claim| (process(claim), &claim.key)).collect();
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

fn node(session: &Session, own: &[&Claim], holders: &Holders<'_>, names: &Names) -> Node {
    let (held, waited): (Vec<&Claim>, Vec<_>) = own.iter().partition(|claim| claim.granted);
    let mut line = who(session);
    if !held.is_empty() {
        let keys = held.iter().take(FEW).map(|claim| key(claim, names));
        line = format!("{line}, holds {}", keys.collect::<Vec<_>>().join(" and "));
        if held.len() > FEW {
            line = format!("{line} and {} more", held.len() - FEW);
        }
    }
    let waiting = waited.first().and_then(|claim| claim.waiting_for);
    let time = waiting.map(|time| format!(" {}", short(time)));
    let time = time.unwrap_or_default();
    match (waited.first(), &session.waits_for) {
        (Some(claim), _) => line = format!("{line}, waits{time} for {}", key(claim, names)),
        (None, Some(kind)) => line = format!("{line}, waits for another lock ({kind})"),
        (None, None) => {}
    }
    Node {
        line,
        below: blockers(session, waited.first().copied(), holders),
        waiting: waiting.unwrap_or_default().as_secs_f64(),
    }
}

/// Of the sessions that a session waits for, the holders of the key. If there are none, as for a shared
/// lock behind an exclusive wait, those that came before it.
fn blockers(session: &Session, waited: Option<&Claim>, holders: &Holders<'_>) -> Vec<i32> {
    let holds = |pid: &&i32| waited.is_some_and(|claim| holders.contains(&(**pid, &claim.key)));
    let of_key: Vec<_> = session.blocked_by.iter().filter(holds).copied().collect();
    match of_key.is_empty() {
        true => session.blocked_by.clone(),
        false => of_key,
    }
}

fn who(session: &Session) -> String {
    if session.pid == PREPARED {
        return "a prepared transaction".to_owned();
    }
    let mut line = format!("pid {}", session.pid);
    if let Some(application) = &session.application {
        line = format!("{line} {application:?}");
    }
    let seconds = session.state_seconds.unwrap_or_default().max(0.0);
    match (&session.state, Duration::try_from_secs_f64(seconds)) {
        (Some(state), Ok(time)) => format!("{line}, {state} {}", short(time)),
        _ => line,
    }
}

fn key(claim: &Claim, names: &Names) -> String {
    format!("{} ({})", shown(&claim.key, names), mode(claim))
}
