//! Who leads.

use std::time::Duration;
use std::{fmt, thread};

use super::candidate::SLICE;
use super::keys::Keys;
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
    let office = look(backend, &Keys::of(&name.into()))?;
    Ok(office.map(|(_, leader)| leader))
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
    /// The number of the term that was told last, if there was one.
    seen: Option<Option<i32>>,
}

impl<B: LockBackend> Observe<B> {
    fn change(&mut self) -> Result<Option<Claim>, Error> {
        loop {
            let office = look(&mut self.backend, &self.keys)?;
            let (number, leader) = office.unzip();
            if self.seen.replace(number) != Some(number) {
                return Ok(leader);
            }
            match number {
                Some(number) => self.wait_for_end(number)?,
                None => thread::sleep(PAUSE),
            }
        }
    }

    fn wait_for_end(&mut self, number: i32) -> Result<(), Error> {
        let term = self.keys.term(number);
        let wait = sql::wait_for_end(&term, Mode::Shared, SLICE);
        let is_free = sql::asks("pg_try_advisory_xact_lock_shared", &term);
        let wait = |session: &mut B::Session| session.message(&wait, &is_free);
        while inspect::ask(&mut self.backend, wait)?.last() != Some(&sql::YES.to_owned()) {}
        Ok(())
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

/// The number of the term that is on, and the session that leads.
fn look<B>(backend: &mut B, keys: &Keys) -> Result<Option<(i32, Claim)>, Error>
where
    B: LockBackend + ?Sized,
{
    let office = keys.marks.clone() + sql::IN_OFFICE;
    let office = inspect::ask(backend, |session| session.query(&office))?;
    let office = office.first().and_then(|line| line.split_once(' '));
    let Some((pid, number)) = office else {
        return Ok(None);
    };
    let (pid, number) = (pid.parse().ok(), number.parse().ok());
    let mut holders = inspect::holders(backend, &keys.lock)?.into_iter();
    // It may have gone meanwhile.
    Ok(number.zip(holders.find(|claim| claim.pid == pid)))
}
