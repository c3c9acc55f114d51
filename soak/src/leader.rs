//! Candidates in an election. In its term a leader logs, in fenced transactions.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pglock::election::{Election, Term};
use pglock::{Error, StopToken};
use postgres::{Client, NoTls};

use crate::random::Random;
use crate::tally::{Tally, by_a_fault};

/// The election of a run.
pub fn election(run: i32) -> String {
    format!("soak:{run}")
}

/// A thread that is a candidate again and again, until it is stopped. `config` leads through a proxy,
/// both for the term and for its transactions.
pub fn start(
    config: postgres::Config,
    run: i32,
    mut random: Random,
    stop: &StopToken,
    tally: &Arc<Mutex<Tally>>,
) -> JoinHandle<()> {
    let (stop, tally) = (stop.clone(), Arc::clone(tally));
    thread::spawn(move || {
        let connect = {
            let config = config.clone();
            move || config.connect(NoTls)
        };
        let election = Election::new(connect, election(run))
            .lease(Duration::from_secs(2))
            .stop_on(&stop);
        while !stop.is_stopped() {
            let outcome = match election.campaign() {
                Ok(term) => serve(term, &config, &mut random),
                Err(error) => Err(error),
            };
            let mut tally = tally.lock().unwrap();
            tally.count("sections: terms");
            tally.outcome(
                &outcome,
                ["a term was resigned", "a term was over, or not begun"],
                ends_a_term,
            );
        }
    })
}

/// Or the term's end, which its transactions are told.
fn ends_a_term(error: &Error) -> bool {
    by_a_fault(error)
        || matches!(
            error,
            Error::TermOver { .. } | Error::Body(_) | Error::NotCommitted { .. }
        )
}

/// Logs until it has enough, or until the term is over.
fn serve(term: Term, config: &postgres::Config, random: &mut Random) -> Result<(), Error> {
    let mut connection: Option<Client> = None;
    let entry = format!(
        "INSERT INTO term (token) VALUES ({})",
        term.token().as_u64()
    );
    while !random.one_in(40) && !term.wait(Duration::from_millis(random.below(20))) {
        let Some(client) = &mut connection else {
            connection = config.connect(NoTls).ok();
            continue;
        };
        let logged = term.fenced(client, |tx| tx.batch_execute(&entry).map_err(Error::from));
        if logged.is_err() {
            connection = None;
        }
    }
    term.resign()
}
