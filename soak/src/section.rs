//! A critical section: its accounts, its lock, and what goes wrong in it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, SystemTime};

use pglock::driver::Session;
use pglock::{Error, Key, Lock, LockBackend, LockGuard, Mode, inspect, key};

use crate::bank::{ACCOUNTS, TOTAL, account_key};
use crate::random::Random;

#[derive(Debug)]
pub struct Section {
    run: i32,
    accounts: Vec<i32>,
    shared: bool,
    in_transaction: bool,
    /// The body does nothing, so that locks change hands as fast as they can.
    empty: bool,
    timeout: Option<Duration>,
    trouble: Trouble,
    twist: Twist,
    sleep_millis: u64,
    amount: i64,
}

/// What a body does with locks and transactions, when its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twist {
    No,
    /// Locks the same keys again, and many more.
    Nested,
    /// Leaves a transaction open, under a role that may not end the session.
    LeftOpen,
    /// Ends the transaction, and begins another in its place.
    Chained,
    /// Sends a raw BEGIN: a transaction of pglock's in it would end the caller's.
    RawBegin,
}

/// How a body ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    No,
    Error,
    Panic,
}

/// What became of a section.
#[derive(Debug)]
pub enum Fate {
    Ended(Result<(), Error>),
    /// It held nothing afterwards.
    TimedOut,
    Refused,
    Panicked,
    /// A promise was broken.
    Failed(String),
}

impl Section {
    pub fn choose(random: &mut Random, run: i32) -> Self {
        let shared = random.one_in(8);
        let accounts = match random.below(4) {
            _ if shared => (1..=ACCOUNTS).collect(),
            _ if is_rush() => vec![1],
            0 | 1 => vec![an_account(random)],
            2 => vec![an_account(random), an_account(random)],
            _ => vec![an_account(random), an_account(random), an_account(random)],
        };
        let trouble = match random.below(20) {
            0 => Trouble::Panic,
            1 => Trouble::Error,
            _ => Trouble::No,
        };
        let timeout = match random.below(4) {
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(1 + random.below(10))),
            2 => Some(Duration::from_secs(5)),
            _ => None,
        };
        Self {
            run,
            accounts,
            shared,
            in_transaction: random.one_in(2),
            empty: random.one_in(4),
            timeout,
            trouble,
            twist: match random.below(24) {
                0 | 1 => Twist::Nested,
                2 => Twist::LeftOpen,
                3 => Twist::Chained,
                4 => Twist::RawBegin,
                _ => Twist::No,
            },
            sleep_millis: random.below(4),
            amount: random.below(100) as i64,
        }
    }

    /// The same section in a form for a pooler in transaction mode.
    pub fn in_transaction(self) -> Self {
        Self {
            in_transaction: true,
            ..self
        }
    }

    /// The same section on one account, in the form that hands over.
    pub fn at(self, account: i32) -> Self {
        Self {
            accounts: vec![account],
            shared: false,
            in_transaction: false,
            ..self
        }
    }

    pub fn run<B: LockBackend>(&self, backend: &mut B) -> Fate {
        let caught = catch_unwind(AssertUnwindSafe(|| self.run_once(backend)));
        match caught {
            Ok(Err(Error::Timeout { .. })) => Fate::TimedOut,
            Ok(Err(Error::Body(error))) if error.is::<Refused>() => Fate::Refused,
            Ok(Err(Error::Body(error))) if error.is::<Broken>() => Fate::Failed(error.to_string()),
            Ok(ended) => Fate::Ended(ended),
            Err(panic) if panic.is::<Trouble>() => Fate::Panicked,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn run_once<B: LockBackend>(&self, backend: &mut B) -> Result<(), Error> {
        let keys: Vec<Key> = self
            .accounts
            .iter()
            .map(|account| account_key(self.run, *account))
            .collect();
        let mut lock = Lock::new(&mut *backend, keys);
        if self.shared {
            lock = lock.shared();
        }
        if let Some(timeout) = self.timeout {
            lock = lock.timeout(timeout);
        }
        let outcome = if self.in_transaction {
            lock.run_in_transaction(|tx| self.body(tx))
        } else if self.amount % 2 == 0 {
            lock.run(|conn| self.body(conn))
        } else {
            lock.acquire().and_then(|mut guard| {
                self.body(&mut *guard)?;
                LockGuard::release(guard)
            })
        };
        drop(lock);
        if matches!(outcome, Err(Error::Timeout { .. })) {
            // A pool hands out the connection that came back last. None of them may hold a lock.
            let mut session = backend.session().map_err(Error::body)?;
            holds_nothing(&mut *session)?;
        }
        outcome
    }

    /// Logs its entry, reads, moves money, logs its exit: all on the session that holds the lock.
    fn body<S: Session>(&self, conn: &mut S) -> Result<(), Error> {
        if self.empty {
            return Ok(());
        }
        let accounts = self.accounts.iter().map(ToString::to_string);
        let accounts = accounts.collect::<Vec<_>>().join(",");
        let section = one(
            conn,
            &format!(
                "WITH section AS MATERIALIZED (SELECT nextval('section') AS id), entry AS (
                     INSERT INTO log (section, account, exclusive)
                     SELECT DISTINCT section.id, a, {} FROM section, unnest(ARRAY[{accounts}]) AS a)
                 SELECT id::text AS line FROM section",
                !self.shared
            ),
        )?;
        if self.shared {
            self.audit(conn)?;
        } else {
            self.transfer(conn)?;
        }
        let left = "UPDATE log SET left_ = clock_timestamp() WHERE section =";
        send(conn, &format!("{left} {section}"))?;
        self.twist(conn)
    }

    fn twist<S: Session>(&self, conn: &mut S) -> Result<(), Error> {
        match (self.twist, self.in_transaction) {
            (Twist::Nested, _) => self.nest(conn),
            (Twist::LeftOpen, false) => send(conn, "BEGIN; SET LOCAL ROLE pg_read_all_stats"),
            (Twist::Chained, true) => send(conn, "COMMIT AND CHAIN"),
            (Twist::RawBegin, false) => {
                send(conn, "BEGIN; SELECT 1")?;
                let key = key!("soak:{}:raw:{}", self.run, self.accounts[0]);
                let nested = Lock::new(&mut *conn, key).run_in_transaction(|_| Ok::<_, Error>(()));
                send(conn, "ROLLBACK")?;
                match nested {
                    Ok(()) => Err(Error::body(Broken("a raw transaction was committed"))),
                    Err(Error::InTransaction { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whatever becomes of the inner section, the outer one keeps its keys.
    fn nest<S: Session>(&self, conn: &mut S) -> Result<(), Error> {
        let own = self.accounts.iter();
        let own: Vec<Key> = own.map(|account| account_key(self.run, *account)).collect();
        let more = (0..200).map(|n| key!("soak:{}:nested:{}:{n}", self.run, self.accounts[0]));
        let mode = if self.shared {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        let mut inner = Lock::new(
            &mut *conn,
            own.iter().cloned().chain(more).collect::<Vec<_>>(),
        )
        .mode(mode);
        let ended = inner.run(|_| Ok::<_, Error>(()));
        drop(inner);
        for key in &own {
            let holders = inspect::holders(conn, key)?;
            if !holders.iter().any(|holder| holder.own) {
                return Err(Error::body(Broken(
                    "a nested section took the outer lock with it",
                )));
            }
        }
        ended
    }

    /// Reads one account at a time, so that it notices a writer beside it.
    fn audit<S: Session>(&self, conn: &mut S) -> Result<(), Error> {
        let mut sum = 0;
        for account in &self.accounts {
            sum += balance(conn, "giro + savings", *account)?;
        }
        if sum == TOTAL {
            self.make_trouble()
        } else {
            Err(Error::body(Broken("an audit saw a transfer in progress")))
        }
    }

    /// Reads, waits, writes: without the lock, a transfer in between would be lost.
    fn transfer<S: Session>(&self, conn: &mut S) -> Result<(), Error> {
        let (from, to) = (self.accounts[0], self.accounts[self.accounts.len() - 1]);
        let giro = balance(conn, "giro", from)?;
        let (column, target) = if from == to {
            ("savings", balance(conn, "savings", to)?)
        } else {
            ("giro", balance(conn, "giro", to)?)
        };
        if self.sleep_millis > 0 {
            send(conn, &format!("SELECT pg_sleep(0.00{})", self.sleep_millis))?;
        }
        let minus = format!("giro = {}", giro - self.amount);
        let plus = format!("{column} = {}", target + self.amount);
        if from == to {
            self.make_trouble()?;
            return send(
                conn,
                &format!("UPDATE account SET {minus}, {plus} WHERE id = {from}"),
            );
        }
        // Outside a transaction the message is a transaction itself, so nothing is done by half.
        let minus = format!("UPDATE account SET {minus} WHERE id = {from}");
        let plus = format!("UPDATE account SET {plus} WHERE id = {to}");
        if self.in_transaction {
            send(conn, &minus)?;
            self.make_trouble()?;
            send(conn, &plus)
        } else {
            self.make_trouble()?;
            send(conn, &format!("{minus}; {plus}"))
        }
    }

    fn make_trouble(&self) -> Result<(), Error> {
        match self.trouble {
            Trouble::No => Ok(()),
            Trouble::Error => Err(Error::body(Refused)),
            Trouble::Panic => resume_unwind(Box::new(Trouble::Panic)),
        }
    }
}

/// For three seconds of ten everybody wants the same account, so that the queue for it is long.
fn is_rush() -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.is_ok_and(|now| now.as_secs() % 10 < 3)
}

pub fn an_account(random: &mut Random) -> i32 {
    1 + random.below(ACCOUNTS as u64) as i32
}

/// The error of a body that goes wrong.
#[derive(Debug, thiserror::Error)]
#[error("the body says no")]
struct Refused;

/// What a body must never see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// Checks this after a timeout. A session that was lost meanwhile holds nothing either.
pub fn holds_nothing<S: Session>(session: &mut S) -> Result<(), Error> {
    let held = "SELECT count(*)::text AS line FROM pg_locks \
                WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()";
    if one(session, held)? == "0" {
        Ok(())
    } else {
        Err(Error::body(Broken("a lock is held after a timeout")))
    }
}

fn balance<S: Session>(conn: &mut S, what: &str, account: i32) -> Result<i64, Error> {
    let query = format!("SELECT ({what})::text AS line FROM account WHERE id = {account}");
    one(conn, &query)?.parse().map_err(Error::body)
}

pub fn one<S: Session>(conn: &mut S, query: &str) -> Result<String, Error> {
    let lines = conn.query(query)?;
    lines
        .into_iter()
        .next()
        .ok_or_else(|| Error::body("no row"))
}

pub fn send<S: Session>(conn: &mut S, text: &str) -> Result<(), Error> {
    Ok(conn.send(text)?)
}
