//! The drivers that elections run on, and what a test sees from outside.

use std::sync::Mutex;
use std::time::Duration;

use pglock::driver::BoxError;
use pglock::election::Election;
use pglock::{Key, LockBackend};

use crate::oracle::{Oracle, connect, unique_name, url, wait_until};
use crate::proxy::Proxy;

/// The shortest.
pub const LEASE: Duration = Duration::from_secs(2);

/// What a leader's session holds: the lock, its term's (in two modes), those of a member and of its silence.
pub const LEADERS: i64 = 5;

/// What an election needs from a driver.
pub trait Driver: 'static {
    type Backend: LockBackend + Send;

    /// Whether a connection goes back to a pool and lives on.
    const POOLED: bool = false;

    /// An election whose sessions have its name as application name.
    fn election(url: &str, name: &str) -> Election;

    fn try_connect(url: &str) -> Result<Self::Backend, BoxError>;

    fn connect(url: &str) -> Self::Backend {
        Self::try_connect(url).unwrap()
    }
}

/// The way to a server through a proxy, for every driver.
pub fn through(proxy: &Proxy) -> String {
    let config = proxy.config();
    format!(
        "postgres://{}@127.0.0.1:{}/{}?sslmode=disable",
        config.get_user().unwrap(),
        config.get_ports()[0],
        config.get_dbname().unwrap()
    )
}

/// A database for one test, dropped with this: its statistics do not count the sessions of other tests.
pub struct Database(String);

impl Database {
    pub fn new() -> Self {
        let name = unique_name("database");
        let create = format!("CREATE DATABASE {name}");
        connect().batch_execute(&create).unwrap();
        Self(name)
    }

    pub fn url(&self) -> String {
        let server = url();
        let (server, _) = server.rsplit_once('/').unwrap();
        format!("{server}/{}", self.0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.0));
    }
}

/// A URL with an application name.
pub fn named(url: &str, name: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    match url.contains("://") {
        true => format!("{url}{mark}application_name={name}"),
        false => format!("{url} application_name={name}"),
    }
}

#[cfg(feature = "postgres")]
pub struct Postgres;

#[cfg(feature = "postgres")]
impl Driver for Postgres {
    type Backend = postgres::Client;

    fn election(url: &str, name: &str) -> Election {
        let url = named(url, name);
        Election::new(
            move || postgres::Client::connect(&url, postgres::NoTls),
            name,
        )
    }

    fn try_connect(url: &str) -> Result<postgres::Client, BoxError> {
        Ok(postgres::Client::connect(url, postgres::NoTls)?)
    }
}

#[cfg(feature = "diesel")]
pub struct Diesel;

#[cfg(feature = "diesel")]
impl Driver for Diesel {
    type Backend = diesel::PgConnection;

    fn election(url: &str, name: &str) -> Election {
        let url = named(url, name);
        let establish = <diesel::PgConnection as diesel::Connection>::establish;
        Election::new(move || establish(&url), name)
    }

    fn try_connect(url: &str) -> Result<diesel::PgConnection, BoxError> {
        Ok(<diesel::PgConnection as diesel::Connection>::establish(
            url,
        )?)
    }
}

#[cfg(all(feature = "postgres", feature = "r2d2"))]
pub struct PostgresPool;

#[cfg(all(feature = "postgres", feature = "r2d2"))]
impl Driver for PostgresPool {
    type Backend = postgres::Client;

    const POOLED: bool = true;

    fn election(url: &str, name: &str) -> Election {
        let config = named(url, name).parse().unwrap();
        let manager = r2d2_postgres::PostgresConnectionManager::new(config, postgres::NoTls);
        let pool = r2d2::Pool::builder()
            .max_size(2)
            .min_idle(Some(0))
            .build(manager)
            .unwrap();
        Election::new(move || pool.get(), name)
    }

    fn try_connect(url: &str) -> Result<postgres::Client, BoxError> {
        Postgres::try_connect(url)
    }
}

#[cfg(all(feature = "diesel", feature = "r2d2"))]
pub struct DieselPool;

#[cfg(all(feature = "diesel", feature = "r2d2"))]
impl Driver for DieselPool {
    type Backend = diesel::PgConnection;

    const POOLED: bool = true;

    fn election(url: &str, name: &str) -> Election {
        let manager =
            diesel::r2d2::ConnectionManager::<diesel::PgConnection>::new(named(url, name));
        let pool = r2d2::Pool::builder()
            .max_size(2)
            .min_idle(Some(0))
            .build(manager)
            .unwrap();
        Election::new(move || pool.get(), name)
    }

    fn try_connect(url: &str) -> Result<diesel::PgConnection, BoxError> {
        Diesel::try_connect(url)
    }
}

/// For tests of what is the same on every driver.
#[cfg(feature = "postgres")]
pub type AnyDriver = Postgres;
#[cfg(not(feature = "postgres"))]
pub type AnyDriver = Diesel;

/// Makes a test for each driver, where a pool makes no difference.
macro_rules! on_both_drivers {
    ($($function:ident),+ $(,)?) => {$(
        mod $function {
            #[cfg(feature = "postgres")]
            #[test]
            fn client() {
                super::$function::<crate::harness::Postgres>();
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn connection() {
                super::$function::<crate::harness::Diesel>();
            }
        }
    )+};
}
pub(crate) use on_both_drivers;

/// Makes a test for each driver, and for a pool of each.
macro_rules! on_every_driver {
    ($($function:ident),+ $(,)?) => {$(
        mod $function {
            #[allow(unused_imports)]
            use crate::harness::*;

            #[cfg(feature = "postgres")]
            #[test]
            fn client() {
                super::$function::<Postgres>();
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn connection() {
                super::$function::<Diesel>();
            }

            #[cfg(all(feature = "postgres", feature = "r2d2"))]
            #[test]
            fn postgres_pool() {
                super::$function::<PostgresPool>();
            }

            #[cfg(all(feature = "diesel", feature = "r2d2"))]
            #[test]
            fn diesel_pool() {
                super::$function::<DieselPool>();
            }
        }
    )+};
}
pub(crate) use on_every_driver;

/// An election for one test, and a second connection that looks at it.
pub struct Case {
    pub name: String,
    pub lock: Key,
    pub oracle: Mutex<Oracle>,
}

impl Case {
    pub fn new() -> Self {
        let name = unique_name("election");
        Self {
            lock: Key::namespaced("pglock.election", name.clone()),
            name,
            oracle: Mutex::new(Oracle::new()),
        }
    }

    /// With the shortest lease: whoever finds nobody waits for half of it.
    pub fn election<D: Driver>(&self) -> Election {
        D::election(&url(), &self.name).lease(LEASE)
    }

    pub fn oracle(&self) -> std::sync::MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap()
    }

    /// The server process that holds the lock.
    pub fn leader(&self) -> i32 {
        let mut oracle = self.oracle();
        let holders = oracle
            .rows(&self.lock)
            .into_iter()
            .filter(|row| row.granted);
        let pids: Vec<_> = holders.map(|row| row.pid).collect();
        assert_eq!(pids.len(), 1, "{pids:?}");
        pids[0]
    }

    /// All advisory locks of this election's sessions.
    pub fn locks(&self) -> i64 {
        let query = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'advisory' AND application_name = $1";
        let row = self.oracle().client.query_one(query, &[&self.name]);
        row.unwrap().get(0)
    }

    /// The election has left no lock, and, as soon as the server has read the last message, no session
    /// except a pool's.
    #[track_caller]
    pub fn assert_nothing_left<D: Driver>(&self) {
        assert_eq!(self.locks(), 0);
        let mut oracle = self.oracle();
        oracle.assert_free(&self.lock);
        if !D::POOLED {
            wait_until("the end of the sessions", || {
                oracle.sessions_of(&self.name).is_empty().then_some(())
            });
        }
    }

    pub fn wait_for_candidate(&self) -> i32 {
        self.oracle().wait_for_waiter(&self.lock)
    }

    /// A lock of the election that is derived from its own.
    pub fn derived(&self, namespace: &'static str, suffix: &str) -> Key {
        Key::namespaced(namespace, format!("{}{suffix}", id(&self.lock)))
    }

    /// Waits until a candidate has the lock, and a number for its term, and does not go on.
    pub fn wait_for_silence(&self) {
        let query = "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'advisory' AND objsubid = 2 AND objid < 2147483648 AND mode = 'ShareLock' \
             AND application_name = $1 AND state = 'idle' AND query LIKE '%concat_ws%'";
        let mut oracle = self.oracle();
        wait_until("a candidate in its silence", || {
            oracle.client.query_opt(query, &[&self.name]).unwrap()
        });
        std::thread::sleep(Duration::from_millis(50)); // enough for an election
    }
}

fn id(lock: &Key) -> String {
    let (classid, objid, objsubid) = lock.pg_locks();
    format!("{classid}:{objid}:{objsubid}")
}

/// The class of the pairs of an election.
fn class(name: &str) -> i32 {
    let lock = Key::namespaced("pglock.election", name.to_owned());
    Key::namespaced("pglock.term", id(&lock)).pg_locks().0 as i32
}

/// Two names with the same class: it has 32 bits, so there are two among some 80,000.
pub fn colliding(prefix: &str) -> [String; 2] {
    let mut seen = std::collections::HashMap::new();
    (0..)
        .find_map(|number| {
            let name = format!("{prefix}:{number}");
            let other = seen.insert(class(&name), name.clone())?;
            Some([other, name])
        })
        .unwrap()
}

/// A leader that is made of locks alone, in a term that is on.
pub struct Leader {
    session: Oracle,
    lock: Key,
    term: Key,
    sign: Key,
}

impl Leader {
    pub fn of(case: &Case, lease: Duration) -> Self {
        const NUMBER: i32 = 4_711;
        let mut session = Oracle::new();
        let (class, silence) = (class(&case.name), (lease / 2).as_millis() as i32);
        let term = Key::from((class, NUMBER));
        session.lock_shared(&Key::namespaced("pglock.candidate", case.name.clone()));
        session.lock_shared(&Key::from((class, -silence)));
        session.lock(&case.lock);
        session.lock(&term);
        Self {
            session,
            lock: case.lock.clone(),
            term,
            sign: case.derived("pglock.sign", &format!(":{NUMBER}")),
        }
    }

    pub fn resign(&mut self, signs: bool) {
        if signs {
            self.session.lock(&self.sign);
        }
        self.session.unlock(&self.term);
        self.session.unlock(&self.lock);
    }
}

/// The same URL for another user.
pub fn as_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{user}@{rest}")
}
