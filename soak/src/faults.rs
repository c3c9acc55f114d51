//! Faults that hit sessions from outside.

use anyhow::Result;
use postgres::{Client, NoTls};

use crate::bank::application;
use crate::proxy;
use crate::random::Random;
use crate::tally::Tally;

pub struct Faults {
    client: Client,
    application: String,
}

impl Faults {
    pub fn new(run: i32) -> Result<Self> {
        Ok(Self {
            client: proxy::server().connect(NoTls)?,
            application: application(run),
        })
    }

    /// Terminates or cancels one of the run's sessions.
    pub fn inject(&mut self, random: &mut Random, tally: &mut Tally) -> Result<()> {
        let query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid";
        let mut sessions = self.client.query(query, &[&self.application])?;
        let (function, name) = if random.one_in(3) {
            ("pg_terminate_backend", "faults: terminated sessions")
        } else {
            ("pg_cancel_backend", "faults: cancels sent")
        };
        if !sessions.is_empty() {
            let pid: i32 = random.pick(&mut sessions).get(0);
            let call = format!("SELECT {function}($1)");
            // Some come in a row: the next one hits the reaction to the last.
            let times = if random.one_in(4) { 5 } else { 1 };
            for _ in 0..times {
                if self.client.query_one(&call, &[&pid])?.get(0) {
                    tally.count(name);
                }
            }
        }
        Ok(())
    }
}
