//! What the recipes share: each has a schema of its own on the server, and processes that start at the
//! same time.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use postgres::{Client, NoTls};

/// The server that `DATABASE_URL` names.
///
/// # Errors
///
/// If the variable is not set.
pub fn url() -> Result<String> {
    std::env::var("DATABASE_URL").ok().context(
        "DATABASE_URL does not name a PostgreSQL server. For a throwaway one:\n\n    \
         scripts/with-postgres cargo run -p recipes --bin …",
    )
}

/// An empty schema, which is dropped at the end.
pub struct Schema {
    /// A connection whose tables are in the schema.
    pub client: Client,
    /// Leads to the schema.
    pub url: String,
    name: String,
}

impl Schema {
    /// Creates the schema.
    ///
    /// # Errors
    ///
    /// If there is no server, or it is read-only.
    pub fn new(recipe: &str) -> Result<Self> {
        let url = url()?;
        let mut client = Client::connect(&url, NoTls).context("cannot connect")?;
        // While this connection lives, no other run has the same number, and so the same schema.
        let run: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let name = format!("pglock_{recipe}_{run}");
        client.batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {name} CASCADE; -- of a run that was killed
             CREATE SCHEMA {name};
             SET search_path TO {name}"
        ))?;
        let url = if url.contains("://") {
            let separator = if url.contains('?') { '&' } else { '?' };
            format!("{url}{separator}options=-csearch_path%3D{name}")
        } else {
            format!("{url} options='-c search_path={name}'")
        };
        Ok(Self { client, url, name })
    }

    /// The number that a query returns.
    ///
    /// # Errors
    ///
    /// Those of the query.
    pub fn number(&mut self, query: &str) -> Result<i64> {
        Ok(self.client.query_one(query, &[])?.try_get(0)?)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = format!("DROP SCHEMA {} CASCADE", self.name);
        if let Err(error) = self.client.batch_execute(&drop) {
            eprintln!("cannot clean up: {error}");
        }
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Starts this program once more, as one of its workers. The worker finds the schema in `DATABASE_URL`,
/// and prints its tally.
///
/// # Errors
///
/// If the system cannot start a process.
pub fn start(schema: &Schema, arguments: &[&str]) -> Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(arguments).env("DATABASE_URL", &schema.url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("cannot start a process")
}

/// Waits for the end of a process, and returns what it has printed.
///
/// # Errors
///
/// If it has failed.
pub fn output(process: Child) -> Result<String> {
    let output = process.wait_with_output()?;
    ensure!(
        output.status.success(),
        "a process failed: {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
