//! Sessions that each hold one lock and then want another, in a given order.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use pglock::{Error, Key, Lock, LockBackend, Mode};
use postgres::Client;

use crate::harness::{Harness, on};
use crate::oracle::{Oracle, connect, unique_key, unique_name, wait_until};

/// A lock that a party holds or wants.
#[derive(Debug, Clone)]
pub struct Claim {
    pub key: Key,
    pub mode: Mode,
}

pub fn exclusive(key: &Key) -> Claim {
    Claim {
        key: key.clone(),
        mode: Mode::Exclusive,
    }
}

pub fn shared(key: &Key) -> Claim {
    Claim {
        key: key.clone(),
        mode: Mode::Shared,
    }
}

/// How a party takes what it wants; what it holds, it holds for the session, or in the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Section,
    Several,
    CallersTransaction,
    OwnTransaction,
    Message,
    /// A participant that does not use pglock.
    Plain,
}

pub const FORMS: [Form; 6] = [
    Form::Section,
    Form::Several,
    Form::CallersTransaction,
    Form::OwnTransaction,
    Form::Message,
    Form::Plain,
];

#[derive(Debug, Clone)]
pub struct Party {
    pub form: Form,
    pub holds: Option<Claim>,
    pub wants: Claim,
}

pub fn party(form: Form, holds: Option<Claim>, wants: Claim) -> Party {
    Party { form, holds, wants }
}

/// What became of a party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Well,
    Deadlock,
    Otherwise(String),
}

impl From<Result<(), Error>> for Ended {
    fn from(result: Result<(), Error>) -> Self {
        match result {
            Ok(()) => Self::Well,
            Err(Error::Deadlock { .. }) => Self::Deadlock,
            Err(error) => Self::Otherwise(format!("{error:?}")),
        }
    }
}

fn lock<B: LockBackend>(backend: B, claim: &Claim) -> Lock<B> {
    Lock::new(backend, claim.key.clone()).mode(claim.mode)
}

impl Party {
    fn on<B: LockBackend>(&self, backend: &mut B, between: impl FnOnce()) -> Result<(), Error> {
        match (&self.holds, self.form) {
            (Some(holds), Form::CallersTransaction) => {
                lock(backend, holds).run_in_transaction(|tx| {
                    between();
                    lock(tx, &self.wants).acquire().map(drop)
                })
            }
            (None, Form::CallersTransaction) => Lock::new(backend, unique_key())
                .run_in_transaction(|tx| {
                    between();
                    lock(tx, &self.wants).acquire().map(drop)
                }),
            (Some(holds), _) => lock(backend, holds).run(|session| {
                between();
                self.take(session)
            }),
            (None, _) => {
                between();
                self.take(backend)
            }
        }
    }

    fn take<B: LockBackend>(&self, backend: &mut B) -> Result<(), Error> {
        let wants = &self.wants;
        match self.form {
            Form::Section => lock(backend, wants).run(|_| Ok(())),
            Form::Several => Lock::new(backend, [wants.key.clone(), unique_key()])
                .mode(wants.mode)
                .run(|_| Ok(())),
            Form::OwnTransaction => lock(backend, wants).run_in_transaction(|_| Ok(())),
            Form::Message => lock(backend, wants).batch_execute("SELECT 1"),
            Form::CallersTransaction | Form::Plain => unreachable!("are taken elsewhere"),
        }
    }

    fn plainly(&self, client: &mut Client, between: impl FnOnce()) -> Ended {
        let call = |claim: &Claim| {
            let shared = match claim.mode {
                Mode::Exclusive => "",
                Mode::Shared => "_shared",
            };
            let number = claim.key.as_i64().unwrap();
            format!("SELECT pg_advisory_xact_lock{shared}({number})")
        };
        let mut transaction = client.transaction().unwrap();
        if let Some(holds) = &self.holds {
            transaction.batch_execute(&call(holds)).unwrap();
        }
        between();
        match transaction.batch_execute(&call(&self.wants)) {
            Ok(()) => Ended::Well,
            Err(error) if error.code().is_some_and(|code| code.code() == "40P01") => {
                Ended::Deadlock
            }
            Err(error) => Ended::Otherwise(error.to_string()),
        }
    }

    /// Sends once it holds what it holds, and goes on when it is told to.
    fn play<H: Harness + 'static>(
        &self,
        name: &str,
        holds: &Sender<()>,
        go: &Receiver<()>,
    ) -> Ended {
        let between = || {
            holds.send(()).unwrap();
            go.recv().unwrap();
        };
        let named = format!("SET application_name = '{name}'");
        if self.form == Form::Plain {
            let mut client = connect();
            client.batch_execute(&named).unwrap();
            return self.plainly(&mut client, between);
        }
        H::with(|backend| {
            on(backend, &named).unwrap();
            self.on(backend, between).into()
        })
    }
}

/// Lets each party have what it holds, and then want what it wants, in their order; the next begins when the
/// last one waits. Returns what became of them.
pub fn play<H: Harness + 'static>(parties: &[Party]) -> Vec<Ended> {
    let mut oracle = Oracle::new();
    thread::scope(|threads| {
        let mut playing = Vec::new();
        for party in parties {
            let (holds, has) = channel();
            let (go, goes) = channel();
            let name = unique_name("party");
            let application = name.clone();
            let ended = threads.spawn(move || party.play::<H>(&application, &holds, &goes));
            has.recv().unwrap();
            playing.push((name, go, ended));
        }
        for (name, go, ended) in &playing {
            go.send(()).unwrap();
            wait_until("a party that waits", || {
                (ended.is_finished() || waits(&mut oracle, name)).then_some(())
            });
        }
        let ends = playing.into_iter().map(|(name, _, ended)| {
            // A hang must not be one of the test's too.
            let start = std::time::Instant::now();
            while !ended.is_finished() {
                if start.elapsed() > crate::HANGS {
                    for pid in oracle.sessions_of(&name) {
                        oracle.terminate(pid);
                    }
                }
                thread::sleep(std::time::Duration::from_millis(5)); // between two looks
            }
            ended.join().unwrap()
        });
        ends.collect()
    })
}

/// Whether a session waits for a lock.
pub fn waits(oracle: &mut Oracle, application: &str) -> bool {
    let query = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
        WHERE a.application_name = $1 AND NOT l.granted)";
    let row = oracle.client.query_one(query, &[&application]);
    row.unwrap().get(0)
}

/// One is the victim, and the others get what they want.
pub fn assert_one_victim(parties: &[Party], ends: &[Ended]) {
    let victims = ends.iter().filter(|end| **end == Ended::Deadlock).count();
    let well = ends.iter().filter(|end| **end == Ended::Well).count();
    let as_it_must = victims == 1 && well == ends.len() - 1;
    assert!(as_it_must, "{ends:?} of {parties:#?}");
}

pub fn assert_all_well(parties: &[Party], ends: &[Ended]) {
    assert!(
        ends.iter().all(|end| *end == Ended::Well),
        "{ends:?} of {parties:#?}"
    );
}
