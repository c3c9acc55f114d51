//! Servers that answer anything: no panic, no hang, and no `Ok` that the server did not give.
//!
//! The server, in this folder, speaks PostgreSQL's protocol 3 correctly until the connection is made, and
//! then follows a script. At its end it closes the connection, so that nothing waits for ever. The number
//! of scripts can be set:
//!
//! ```text
//! PGLOCK_SCRIPTS=10000 cargo test --all-features --test hostile
//! ```

mod reply;
mod scripts;
mod server;
mod verbs;

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use reply::Reply;
use server::Server;
use verbs::{Calls, Verb};

/// How many scripts run against each driver.
fn scripts() -> u32 {
    std::env::var("PGLOCK_SCRIPTS").map_or(500, |number| number.parse().unwrap())
}

/// diesel's typed queries take for granted that a reply to an Execute holds a result, and forget what comes
/// behind it. A server of PostgreSQL's sends just one.
fn diesels_own(panic: &(dyn Any + Send)) -> Result<(), String> {
    match panic.downcast_ref::<String>() {
        Some(text) if text == "Is never none" => Ok(()),
        text => Err(format!("a panic: {text:?}")),
    }
}

/// Longer than any call can take. Only a call that hangs waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

type Case = (Verb, Vec<Reply>);

/// Makes the calls in a thread of its own, since a call that hangs cannot be ended.
struct Client {
    cases: SyncSender<Case>,
    outcomes: Receiver<Result<(), String>>,
}

impl Client {
    fn start<C: Calls + 'static>() -> Self {
        let (cases, next) = sync_channel::<Case>(0);
        let (done, outcomes) = sync_channel(1);
        thread::spawn(move || {
            let server = Server::start();
            for (verb, script) in next {
                let log = server.follow(&script);
                let mut connection = C::connect(server.port());
                log.begin();
                let run = AssertUnwindSafe(|| verb.call(&mut connection, &log));
                let outcome = catch_unwind(run).unwrap_or_else(|panic| match C::LIBPQ {
                    true => diesels_own(&*panic),
                    false => Err("a panic".to_owned()),
                });
                if done.send(outcome).is_err() {
                    return;
                }
            }
        });
        Self { cases, outcomes }
    }

    fn meet(&self, case: Case) -> Result<(), String> {
        self.cases.send(case).map_err(|_| "the client is gone")?;
        match self.outcomes.recv_timeout(PATIENCE) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err("it hangs".to_owned()),
            Err(RecvTimeoutError::Disconnected) => Err("the client has died".to_owned()),
        }
    }
}

fn meets_anything<C: Calls + 'static>() {
    let config = ProptestConfig {
        cases: scripts(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let client = RefCell::new(Client::start::<C>());
    let case = (verbs::any::<C>(), reply::script::<C>());
    let outcome = TestRunner::new(config).run(&case, |case| {
        let outcome = client.borrow().meet(case);
        outcome.map_err(|why| {
            client.replace(Client::start::<C>());
            TestCaseError::fail(why)
        })
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\n{case:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn any_script_is_outlived_with_postgres() {
    meets_anything::<postgres::Client>();
}

#[test]
fn any_script_is_outlived_with_diesel() {
    meets_anything::<diesel::PgConnection>();
}
