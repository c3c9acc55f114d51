//! Who leads.

use std::time::Duration;
use std::{fmt, thread};

use super::keys::Keys;
use super::line::SLICE;
use crate::driver::{LockBackend, Session};
use crate::error::Error;
use crate::inspect::{self, Claim};
use crate::key::IntoKey;
use crate::sql::election as sql;
use crate::targets::Mode;

/// From one look to the next while nobody leads.
const PAUSE: Duration = Duration::from_millis(250);

/// The session of the leader in an election: its process, its application's name, its address. Two
/// round trips, or three with diesel.
///
/// The answer holds only for the moment, and is about the leader's lock: a leader that is cut off
/// is named until its session has ended.
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
pub fn leader<B: LockBackend + ?Sized>(
    backend: &mut B,
    name: impl IntoKey,
) -> Result<Option<Claim>, Error> {
    let keys = Keys::of(&name.into());
    match in_office(backend, &keys)? {
        Some(office) => named(backend, &keys, office),
        None => Ok(None),
    }
}

/// Watches an election, for those who do not stand in it: who leads, and then each change, as an iterator that
/// does not end. `None`: nobody leads.
///
/// The connection is the iterator's own, outside of any transaction. It waits for the end of the present term in the server, in messages of
/// 0.8 s that leave nothing in the log, and looks four times a second while nobody leads. A term that begins and
/// ends between two looks is not seen.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// # let url = std::env::var("DATABASE_URL")?;
/// # let conn = Client::connect(&url, NoTls)?;
/// use pglock::election;
///
/// for leader in election::observe(conn, "doc:observe") {
///     match leader? {
///         Some(leader) => println!("{leader} leads"),
///         None => println!("nobody leads"),
///     }
/// #   break;
/// }
/// # }
/// # Ok(())
/// # }
/// ```
///
/// An item is [`Error::Inspect`] where the server could not be asked; the next one is another attempt on the same
/// connection.
pub fn observe<B: LockBackend>(backend: B, name: impl IntoKey) -> Observe<B> {
    Observe {
        backend,
        keys: Keys::of(&name.into()),
        seen: None,
    }
}

/// Who leads, and each change: see [`observe`].
pub struct Observe<B> {
    backend: B,
    keys: Keys,
    /// What was said last.
    seen: Option<Option<Office>>,
}

/// A session that leads, and the number of its term.
type Office = (i32, i32);

impl<B: LockBackend> Observe<B> {
    fn change(&mut self) -> Result<Option<Claim>, Error> {
        loop {
            let office = in_office(&mut self.backend, &self.keys)?;
            if self.seen != Some(office) {
                let leader = match office {
                    Some(office) => named(&mut self.backend, &self.keys, office)?,
                    None => None,
                };
                // A leader that has gone meanwhile is no news.
                if office.is_none() || leader.is_some() {
                    self.seen = Some(office);
                    return Ok(leader);
                }
            }
            match office {
                Some((_, number)) => self.wait_for_end(number)?,
                None => thread::sleep(PAUSE),
            }
        }
    }

    /// Waits until the term is over.
    fn wait_for_end(&mut self, number: i32) -> Result<(), Error> {
        let term = self.keys.term(number);
        let mut session = self.backend.session().map_err(inspect::failed)?;
        loop {
            let waited = session.send(&sql::wait_for_end(&term, Mode::Shared, SLICE));
            let free = waited.and_then(|()| session.query(&sql::is_free(&term)));
            if free.map_err(inspect::refused)? == ["true"] {
                return Ok(());
            }
        }
    }
}

impl<B: LockBackend> Iterator for Observe<B> {
    type Item = Result<Option<Claim>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.change())
    }
}

impl<B> fmt::Debug for Observe<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe")
            .field("lock", &self.keys.lock)
            .finish_non_exhaustive()
    }
}

fn named<B: LockBackend + ?Sized>(
    backend: &mut B,
    keys: &Keys,
    (pid, _): Office,
) -> Result<Option<Claim>, Error> {
    let holders = inspect::holders(backend, &keys.lock)?;
    Ok(holders.into_iter().find(|claim| claim.pid == Some(pid)))
}

fn in_office<B: LockBackend + ?Sized>(
    backend: &mut B,
    keys: &Keys,
) -> Result<Option<Office>, Error> {
    let question = sql::in_office(&keys.lock, &keys.member, keys.class);
    let lines = inspect::query(backend, &question)?;
    let office = lines.first().and_then(|line| line.split_once(' '));
    Ok(office.and_then(|(pid, number)| Some((pid.parse().ok()?, number.parse().ok()?))))
}
