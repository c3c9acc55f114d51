//! `pglock ls` and `pglock who`.

use std::io::{self, IsTerminal};
use std::thread;

use diesel::pg::PgConnection;
use diesel::sql_types::Binary;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use pglock::inspect::{self, Claim};

use crate::args::{LsArgs, WhoArgs};
use crate::claims::{json_of, table_of};
use crate::connection::{connect, utf8};
use crate::exit::{Failure, NOBODY, UNAVAILABLE};
use crate::names::Names;
use crate::output::{print, print_alone, print_json};
use crate::waits::tree_of;
use crate::wanted::Wanted;

pub(crate) fn ls(url: &str, args: &LsArgs) -> Result<u8, Failure> {
    let mut connection = connect(url, "pglock ls")?;
    let Place { database, schema } = place(&mut connection)?;
    let place = [database, schema].map(|name| String::from_utf8_lossy(&name).into_owned());
    let mut names = Names::of(args, &place[0], &place[1])?;
    loop {
        let claims = inspect::locks(&mut connection)?;
        names.look_up(claims.iter().map(|claim| &claim.key));
        names.read_labels(&claims);
        let read = match args.watch.is_some() && io::stdout().is_terminal() {
            _ if args.json => print_json(&json_of(&claims, &names))?,
            true => print_alone(text_of(&mut connection, args, &claims, &names)?)?,
            false => print(text_of(&mut connection, args, &claims, &names)?)?,
        };
        match args.watch {
            Some(interval) if read => thread::sleep(interval),
            _ => return Ok(0),
        }
    }
}

fn text_of(
    connection: &mut PgConnection,
    args: &LsArgs,
    claims: &[Claim],
    names: &Names,
) -> Result<String, Failure> {
    Ok(if claims.is_empty() {
        "no advisory locks in this database".to_owned()
    } else if args.tree {
        tree_of(connection, claims, names)?
    } else {
        table_of(claims, names).trim_fmt()
    })
}

/// What tools make their keys from. A name that is no text is the name of no lock of theirs.
#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = Binary)]
    database: Vec<u8>,
    #[diesel(sql_type = Binary)]
    schema: Vec<u8>,
}

fn place(connection: &mut PgConnection) -> Result<Place, Failure> {
    let (database, schema) = (
        utf8("current_database()"),
        utf8("coalesce(current_schema(), 'public')"),
    );
    let query = format!("SELECT {database} AS database, {schema} AS schema");
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
        print_json(&json_of(&claims, &names))?;
    } else if !claims.is_empty() {
        print(table_of(&claims, &names).trim_fmt())?;
    }
    match held {
        true => Ok(0),
        false if args.json => Ok(NOBODY),
        false => Err(Failure::new(NOBODY, format_args!("nobody holds {wanted}"))),
    }
}
