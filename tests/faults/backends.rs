//! The backends, each of them behind a proxy of its own.

use std::sync::mpsc::channel;
use std::thread;

#[cfg(feature = "r2d2")]
use r2d2::Pool;

use crate::oracle::{Oracle, unique_name};
use crate::proxy::{Proxy, Then};

pub struct Wire {
    pub proxy: Proxy,
    /// The name under which the server shows the sessions that come through the proxy.
    pub application: String,
    /// Whether the driver's BEGIN is a request of its own, or part of another.
    pub begin_is_a_request: bool,
}

impl Wire {
    pub fn new(begin_is_a_request: bool) -> Self {
        Self {
            proxy: Proxy::start(),
            application: unique_name("app"),
            begin_is_a_request,
        }
    }

    #[cfg(feature = "postgres")]
    pub fn config(&self) -> postgres::Config {
        let mut config = self.proxy.config();
        config.application_name(&self.application);
        config
    }

    #[cfg(feature = "diesel")]
    pub fn url(&self) -> String {
        format!("{} application_name={}", self.proxy.url(), self.application)
    }

    #[cfg(all(feature = "postgres", feature = "r2d2"))]
    pub fn postgres_pool(&self) -> Pool<PostgresManager> {
        pool(PostgresManager::new(self.config(), postgres::NoTls))
    }

    #[cfg(all(feature = "diesel", feature = "r2d2"))]
    pub fn diesel_pool(&self) -> Pool<DieselManager> {
        pool(DieselManager::new(self.url()))
    }
}

#[cfg(all(feature = "postgres", feature = "r2d2"))]
pub type PostgresManager = r2d2_postgres::PostgresConnectionManager<postgres::NoTls>;
#[cfg(all(feature = "diesel", feature = "r2d2"))]
pub type DieselManager = diesel::r2d2::ConnectionManager<diesel::PgConnection>;

/// Ends all sessions of an application, and waits until they are gone.
pub fn terminate(application: &str) {
    let mut oracle = Oracle::new();
    for pid in oracle.sessions_of(application) {
        oracle.terminate(pid);
    }
}

/// When `work` calls its argument, begins to cancel whatever the sessions of the application do. One
/// cancel alone would come before its request, and the server ignores a cancel of an idle session; but
/// there are fewer in a row than a release can take.
pub fn cancel_again_and_again<R>(
    wire: &Wire,
    work: impl FnOnce(Box<dyn FnOnce() -> Then + Send>) -> R,
) -> R {
    let (begin, begun) = channel();
    let mut oracle = Oracle::new();
    let application = wire.application.clone();
    let meet = move || {
        let _ = begin.send(Oracle::new().sessions_of(&application));
        Then::GoOn
    };
    thread::scope(|threads| {
        threads.spawn(move || {
            let sessions = begun.recv().unwrap_or_default();
            for _ in 0..6 {
                for pid in &sessions {
                    oracle.cancel(*pid);
                }
            }
        });
        work(Box::new(meet))
    })
}

/// A pool of one connection, so that an unclean connection is the next one used.
#[cfg(feature = "r2d2")]
fn pool<M: r2d2::ManageConnection>(manager: M) -> Pool<M> {
    Pool::builder().max_size(1).build(manager).unwrap()
}

/// A queued pool that hands its connection over, however long the sections take.
#[cfg(feature = "r2d2")]
pub fn handing_over<M: r2d2::ManageConnection>(pool: Pool<M>) -> pglock::QueuedPool<M> {
    pglock::QueuedPool::new(pool).max_hold(crate::oracle::PATIENCE)
}

/// Makes a test for each backend: the function gets the wire, and a maker of backends on it.
macro_rules! on_every_backend {
    ($function:ident) => {
        mod $function {
            use crate::backends::Wire;

            #[cfg(feature = "postgres")]
            #[test]
            fn client() {
                let wire = Wire::new(true);
                super::$function(&wire, || wire.config().connect(postgres::NoTls).unwrap());
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn connection() {
                use diesel::Connection;

                let wire = Wire::new(false);
                super::$function(&wire, || {
                    diesel::PgConnection::establish(&wire.url()).unwrap()
                });
            }

            #[cfg(all(feature = "postgres", feature = "r2d2"))]
            #[test]
            fn postgres_pool() {
                let wire = Wire::new(true);
                let pool = wire.postgres_pool();
                super::$function(&wire, || pool.clone());
            }

            #[cfg(all(feature = "diesel", feature = "r2d2"))]
            #[test]
            fn diesel_pool() {
                let wire = Wire::new(false);
                let pool = wire.diesel_pool();
                super::$function(&wire, || pool.clone());
            }

            #[cfg(all(feature = "postgres", feature = "r2d2"))]
            #[test]
            fn queued_postgres_pool() {
                let wire = Wire::new(true);
                let pool = pglock::QueuedPool::new(wire.postgres_pool());
                super::$function(&wire, || pool.clone());
            }

            #[cfg(all(feature = "diesel", feature = "r2d2"))]
            #[test]
            fn queued_diesel_pool() {
                let wire = Wire::new(false);
                let pool = pglock::QueuedPool::new(wire.diesel_pool());
                super::$function(&wire, || pool.clone());
            }
        }
    };
}
pub(crate) use on_every_backend;

/// Makes a test for each queued pool: the function gets the wire and the pool.
#[cfg(feature = "r2d2")]
macro_rules! on_every_queued_pool {
    ($function:ident) => {
        mod $function {
            use crate::backends::{Wire, handing_over};

            #[cfg(feature = "postgres")]
            #[test]
            fn postgres() {
                let wire = Wire::new(true);
                super::$function(&wire, &handing_over(wire.postgres_pool()));
            }

            #[cfg(feature = "diesel")]
            #[test]
            fn diesel() {
                let wire = Wire::new(false);
                super::$function(&wire, &handing_over(wire.diesel_pool()));
            }
        }
    };
}
#[cfg(feature = "r2d2")]
pub(crate) use on_every_queued_pool;
