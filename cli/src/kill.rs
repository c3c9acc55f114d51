//! `pglock kill`: ends who holds a lock.

use std::io::{self, BufRead, IsTerminal, Write};

use pglock::inspect;

use crate::args::KillArgs;
use crate::connection::connect;
use crate::exit::{Failure, NOBODY, UNAVAILABLE, USAGE};

pub(crate) fn kill(url: &str, args: &KillArgs) -> Result<u8, Failure> {
    let key = args.key.key();
    let mut connection = connect(url, "pglock kill")?.connection;
    let holders = inspect::holders(&mut connection, &key)?;
    if holders.is_empty() {
        return Err(Failure::new(NOBODY, format_args!("nobody holds {key}")));
    }
    let verb = if args.cancel { "cancel" } else { "end" };
    if !args.yes {
        for holder in &holders {
            eprintln!("{key} is held by {holder}");
        }
        if !io::stdin().is_terminal() {
            let message = format!("to {verb} them without being asked, add --yes");
            return Err(Failure::new(USAGE, message));
        }
        eprint!(
            "{verb} {}? [y/N] ",
            if holders.len() == 1 { "it" } else { "them" }
        );
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(0);
        }
    }
    let mut out = io::stdout().lock();
    let mut code = 0;
    for holder in &holders {
        let hit = if args.cancel {
            inspect::cancel(&mut connection, holder)
        } else {
            inspect::terminate(&mut connection, holder)
        };
        match hit {
            Ok(true) => writeln!(out, "{verb}ed {holder}")?,
            Ok(false) => writeln!(out, "gone already, or out of reach: {holder}")?,
            Err(error) => {
                let line = crate::exit::one_line(&error.to_string());
                eprintln!("pglock: cannot {verb} {holder}: {line}");
                code = UNAVAILABLE;
            }
        }
    }
    Ok(code)
}
