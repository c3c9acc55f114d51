//! Two processes import the same files into a directory, one after the other; meanwhile the first is frozen, or killed,
//! or its session is ended.
//!
//! ```sh
//! scripts/with-postgres cargo run -p recipes --bin import
//! ```
//!
//! The files are not in the database, so no COMMIT fails when the lock is lost. The importer holds the lock
//! (`hold_while`), and asks before each file.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pglock::{Error, Lock};
use postgres::{Client, NoTls};
use recipes::{Schema, output, start, url};

const FILES: usize = 24;
const LEASE: Duration = Duration::from_secs(2);
/// A file takes much less than a tenth of a lease.
const UPLOAD: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    match std::env::args().nth(1) {
        None => [Fault::Frozen, Fault::Killed, Fault::Ended]
            .into_iter()
            .try_for_each(deploy),
        Some(directory) => import(Path::new(&directory)),
    }
}

/// Imports what is not there yet, and prints how many files.
fn import(directory: &Path) -> Result<()> {
    let url = url()?;
    let mut imported = 0;
    let done = Lock::new(move || Client::connect(&url, NoTls), "shop:import")
        .lease(LEASE)
        .hold_while(|held| {
            for number in 0..FILES {
                let file = directory.join(format!("{number:03}"));
                if file.exists() {
                    continue;
                }
                if held.is_lost() {
                    break; // hold_while says so
                }
                imported += usize::from(write(&file)?);
                sleep(UPLOAD);
            }
            anyhow::Ok(())
        });
    match done {
        Ok(()) => println!("{imported} done"),
        Err(error) if error.downcast_ref().is_some_and(Error::is_lock_lost) => {
            println!("{imported} lost");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Returns whether it was not there. An importer that was frozen between its question and this comes too late: the
/// receiver must be able to tell.
fn write(path: &Path) -> Result<bool> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => write!(file, "{}", std::process::id())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// What happens to the first importer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Frozen,
    Killed,
    Ended,
}

fn deploy(fault: Fault) -> Result<()> {
    let schema = Schema::new("import")?;
    let directory = Directory::new()?;
    let path = directory.0.to_str().context("a path in UTF-8")?;
    let mut first = start(&schema, &[path])?;
    while directory.files()? < FILES / 4 {
        sleep(UPLOAD);
    }
    match fault {
        Fault::Frozen => signal(&first, "STOP")?,
        Fault::Killed => first.kill()?,
        Fault::Ended => end_sessions()?,
    }
    let before = directory.files()?;
    let second = start(&schema, &[path])?;
    while directory.files()? < before + FILES / 4 {
        sleep(UPLOAD);
    }
    if fault == Fault::Frozen {
        signal(&first, "CONT")?; // it thinks that it has just asked
    }
    let first = match fault {
        Fault::Killed => format!("{}", first.wait()?),
        _ => output(first)?,
    };
    let second = output(second)?;
    println!("the first ({fault:?}): {first}; the second: {second}");
    ensure!(
        fault == Fault::Killed || first.ends_with("lost"),
        "the first was not told"
    );
    ensure!(second.ends_with("done"), "the second did not finish");
    ensure!(directory.files()? == FILES, "not all files are there");
    Ok(())
}

/// Ends the session of the importer, as an administrator would.
fn end_sessions() -> Result<()> {
    let mut client = Client::connect(&url()?, NoTls)?;
    for holder in pglock::inspect::holders(&mut client, "shop:import")? {
        pglock::inspect::terminate(&mut client, &holder)?;
    }
    Ok(())
}

fn signal(process: &Child, signal: &str) -> Result<()> {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status()?;
    ensure!(sent.success(), "cannot send the signal {signal}");
    Ok(())
}

/// Where the files go. It is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let name = format!("pglock-import-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn files(&self) -> Result<usize> {
        Ok(fs::read_dir(&self.0)?.count())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
