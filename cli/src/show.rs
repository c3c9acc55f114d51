//! `pglock ls` and `pglock who`.

use std::io::{self, IsTerminal};
use std::thread;

use diesel::pg::PgConnection;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use pglock::inspect;

use crate::args::{LsArgs, WhoArgs};
use crate::claims::{json_of, table_of};
use crate::connection::connect;
use crate::exit::{Failure, NOBODY, UNAVAILABLE};
use crate::names::Names;
use crate::output::print;
use crate::waits::tree_of;
use crate::wanted::Wanted;

pub(crate) fn ls(url: &str, args: &LsArgs) -> Result<u8, Failure> {
    let mut connection = connect(url, "pglock ls")?;
    let Place { database, schema } = place(&mut connection)?;
    let mut names = Names::of(args, &database, &schema)?;
    loop {
        let claims = inspect::locks(&mut connection)?;
        names.look_up(claims.iter().map(|claim| &claim.key));
        names.read_labels(&claims);
        let text = if args.json {
            json_of(&claims, &names).to_string()
        } else if claims.is_empty() {
            "no advisory locks in this database".to_owned()
        } else if args.tree {
            tree_of(&mut connection, &claims, &names)?
        } else {
            table_of(&claims, &names).trim_fmt()
        };
        let read = match args.watch.is_some() && !args.json && io::stdout().is_terminal() {
            true => print(format_args!("\x1b[H\x1b[2J{text}"))?, // home, and clear
            false => print(text)?,
        };
        match args.watch {
            Some(interval) if read => thread::sleep(interval),
            _ => return Ok(0),
        }
    }
}

/// What tools make their keys from.
#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = Text)]
    schema: String,
}

fn place(connection: &mut PgConnection) -> Result<Place, Failure> {
    let query = "SELECT current_database()::text AS database, \
                 coalesce(current_schema()::text, 'public') AS schema";
    let place = sql_query(query).get_result(connection);
    place.map_err(|error| Failure::of(UNAVAILABLE, &error))
}

pub(crate) fn who(url: &str, args: &WhoArgs) -> Result<u8, Failure> {
    let (wanted, mut names) = (args.key.wanted(args.slots), Names::default());
    let mut connection = connect(url, "pglock who")?;
    let claims = wanted.claims(&mut connection)?;
    if let Wanted::Slots(slots) = &wanted {
        names.add_slots(slots, &claims);
    }
    let held = claims.iter().any(|claim| wanted.is_held_by(claim));
    if args.json {
        print(json_of(&claims, &names))?;
    } else if !claims.is_empty() {
        print(table_of(&claims, &names).trim_fmt())?;
    }
    match held {
        true => Ok(0),
        false if args.json => Ok(NOBODY),
        false => Err(Failure::new(NOBODY, format_args!("nobody holds {wanted}"))),
    }
}
