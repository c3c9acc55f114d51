//! Who leads.

use super::keys::Keys;
use crate::driver::{LockBackend, Session};
use crate::error::Error;
use crate::failure::Failure;
use crate::inspect::{self, Claim};
use crate::sql::election as sql;

/// The session of the leader in an election: its process, its application's name, its address. Two
/// round trips, or three with diesel.
///
/// The answer holds only for the moment, and is about the leader's lock: a leader that is cut off
/// is named until its lease is over.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let mut conn = Client::connect(&url, NoTls)?;
/// use pglock::election::{self, Election};
///
/// let nobody = election::leader(&mut conn, "doc:leader")?;
/// assert!(nobody.is_none());
/// let term = Election::new(move || Client::connect(&url, NoTls), "doc:leader").campaign()?;
/// let leader = election::leader(&mut conn, "doc:leader")?.expect("a leader");
/// println!("pid {:?} leads", leader.pid);
/// # drop(term);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Inspect`]: no connection, or no right to read `pg_locks`.
pub fn leader<B>(backend: &mut B, name: impl AsRef<str>) -> Result<Option<Claim>, Error>
where
    B: LockBackend + ?Sized,
{
    let keys = Keys::of(name.as_ref());
    let in_office = in_office(backend, &keys)?;
    let holders = inspect::holders(backend, &keys.lock)?;
    let leads = |claim: &Claim| claim.pid.is_some_and(|pid| in_office.contains(&pid));
    Ok(holders.into_iter().find(leads))
}

fn in_office<B>(backend: &mut B, keys: &Keys) -> Result<Vec<i32>, Error>
where
    B: LockBackend + ?Sized,
{
    let failed = |source| Error::Inspect { source };
    let mut session = backend.session().map_err(failed)?;
    let pids = session.query(&sql::in_office(keys.class));
    let pids = pids.map_err(|failure| match failure {
        Failure::Refused(answer) => failed(answer.to_string().into()),
        Failure::Sql { source, .. } | Failure::Lost(source) => failed(source),
    })?;
    Ok(pids.iter().filter_map(|pid| pid.parse().ok()).collect())
}
