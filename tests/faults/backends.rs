//! The backends, each of them behind a proxy of its own.

use crate::oracle::{Oracle, unique_name};
use crate::proxy::Proxy;

pub struct Wire {
    pub proxy: Proxy,
    /// The name under which the server shows the sessions that come through the proxy.
    pub application: String,
    /// Of the driver: whether its BEGIN is a request, or part of another.
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
}

/// Ends all sessions of an application, and waits until they are gone.
pub fn terminate(application: &str) {
    let mut oracle = Oracle::new();
    for pid in oracle.sessions_of(application) {
        oracle.terminate(pid);
    }
}

pub fn cancel(application: &str) {
    let mut oracle = Oracle::new();
    for pid in oracle.sessions_of(application) {
        oracle.cancel(pid);
    }
}

/// A pool of one connection, so that a connection that is not clean is the next to be used.
#[cfg(feature = "r2d2")]
pub fn pool<M: r2d2::ManageConnection>(manager: M) -> r2d2::Pool<M> {
    r2d2::Pool::builder().max_size(1).build(manager).unwrap()
}

/// Makes a test of each backend: a function gets the wire, and what makes backends on it.
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
                let config = wire.config();
                let pool = crate::backends::pool(r2d2_postgres::PostgresConnectionManager::new(
                    config,
                    postgres::NoTls,
                ));
                super::$function(&wire, || pool.clone());
            }

            #[cfg(all(feature = "diesel", feature = "r2d2"))]
            #[test]
            fn diesel_pool() {
                use diesel::r2d2::ConnectionManager;

                let wire = Wire::new(false);
                let manager = ConnectionManager::<diesel::PgConnection>::new(wire.url());
                let pool = crate::backends::pool(manager);
                super::$function(&wire, || pool.clone());
            }
        }
    };
}
pub(crate) use on_every_backend;
