//! Every form of a lock, on every driver, as one call.

use std::time::Duration;

use pglock::{Error, Key, Lock, LockBackend, Semaphore, Slots, StopToken, with_transaction_lock};

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Section,
    Shared,
    Several,
    CallersTransaction,
    SeveralInCallersTransaction,
    OwnTransaction,
    KeptPlace,
    Message,
    Semaphore,
}

pub const FORMS: [Form; 9] = [
    Form::Section,
    Form::Shared,
    Form::Several,
    Form::CallersTransaction,
    Form::SeveralInCallersTransaction,
    Form::OwnTransaction,
    Form::KeptPlace,
    Form::Message,
    Form::Semaphore,
];

impl Form {
    pub const fn is_in_callers_transaction(self) -> bool {
        matches!(
            self,
            Self::CallersTransaction | Self::SeveralInCallersTransaction
        )
    }
}

/// One call: a form, a name, and what ends the wait.
#[derive(Debug, Clone)]
pub struct Call {
    pub form: Form,
    pub name: String,
    pub timeout: Option<Duration>,
    pub stop: Option<StopToken>,
}

impl Call {
    pub fn new(form: Form, name: impl Into<String>) -> Self {
        Self {
            form,
            name: name.into(),
            timeout: None,
            stop: None,
        }
    }

    /// What somebody else holds, so that the call must wait.
    pub fn contended(&self) -> Vec<Key> {
        match self.form {
            Form::Semaphore => Slots::new(&self.name, 2).keys().to_vec(),
            Form::Several | Form::SeveralInCallersTransaction => vec![self.keys()[1].clone()],
            _ => vec![Key::from(&*self.name)],
        }
    }

    fn keys(&self) -> [Key; 3] {
        ["", " 2", " 3"].map(|end| Key::from([&self.name, end].concat()))
    }

    fn bounded<B, T>(&self, mut lock: Lock<B, T>) -> Lock<B, T> {
        if let Some(timeout) = self.timeout {
            lock = lock.timeout(timeout);
        }
        if let Some(stop) = &self.stop {
            lock = lock.stop_on(stop);
        }
        lock
    }

    pub fn run<B: LockBackend>(&self, backend: &mut B) -> Result<(), Error> {
        let name = &*self.name;
        match self.form {
            Form::Section => self.bounded(Lock::new(backend, name)).run(|_| Ok(())),
            Form::Shared => self
                .bounded(Lock::new(backend, name))
                .shared()
                .run(|_| Ok(())),
            Form::Several => self
                .bounded(Lock::new(backend, self.keys()))
                .run(|_| Ok(())),
            Form::CallersTransaction => with_transaction_lock(backend, outer(), |tx| {
                self.bounded(Lock::new(tx, name)).acquire().map(drop)
            }),
            Form::SeveralInCallersTransaction => with_transaction_lock(backend, outer(), |tx| {
                self.bounded(Lock::new(tx, self.keys())).acquire().map(drop)
            }),
            Form::OwnTransaction => self
                .bounded(Lock::new(backend, name))
                .run_in_transaction(|_| Ok(())),
            Form::KeptPlace => self
                .bounded(Lock::new(backend, name))
                .keep_place(true)
                .run_in_transaction(|_| Ok(())),
            Form::Message => self
                .bounded(Lock::new(backend, name))
                .batch_execute("SELECT 1"),
            Form::Semaphore => {
                let mut semaphore = Semaphore::new(backend, name, 2);
                if let Some(timeout) = self.timeout {
                    semaphore = semaphore.timeout(timeout);
                }
                if let Some(stop) = &self.stop {
                    semaphore = semaphore.stop_on(stop);
                }
                semaphore.run(|_| Ok(()))
            }
        }
    }
}

/// The lock of a transaction in which another is taken.
fn outer() -> Key {
    Key::from(format!("{:?}", std::thread::current().id()))
}

/// Makes a call on a new connection of a driver, or on a pool.
pub type OnDriver = fn(&str, &Call) -> Result<(), Error>;

/// The drivers, by name.
pub const DRIVERS: &[(&str, OnDriver)] = &[
    #[cfg(feature = "postgres")]
    ("postgres", |url, call| {
        call.run(&mut postgres::Client::connect(url, postgres::NoTls).unwrap())
    }),
    #[cfg(feature = "diesel")]
    ("diesel", |url, call| {
        call.run(&mut <diesel::PgConnection as diesel::Connection>::establish(url).unwrap())
    }),
    #[cfg(all(feature = "r2d2", feature = "postgres"))]
    ("pool of postgres", |url, call| {
        call.run(&mut crate::postgres_pool(url))
    }),
    #[cfg(all(feature = "r2d2", feature = "diesel"))]
    ("pool of diesel", |url, call| {
        call.run(&mut crate::diesel_pool(url))
    }),
];
