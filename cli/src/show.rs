//! `pglock ls` and `pglock who`.

use std::io::{self, IsTerminal};
use std::thread;

use diesel::pg::PgConnection;
use diesel::sql_types::Binary;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use pglock::inspect::{self, Claim};

use crate::args::{LsArgs, WhoArgs};
use crate::claims::{list_of, rows_of, sessions_of};
use crate::connection::{connect, utf8};
use crate::exit::{Failure, NOBODY, UNAVAILABLE};
use crate::groups::{Group, groups};
use crate::names::Names;
use crate::output::{print, print_alone, print_json};
use crate::table::cut;
use crate::waits::tree_of;
use crate::wanted::Wanted;

pub(crate) fn ls(url: &str, args: &LsArgs) -> Result<u8, Failure> {
    let mut connection = connect(url, "pglock ls")?;
    let Place { database, schema } = place(&mut connection)?;
    let place = [database, schema].map(|name| String::from_utf8_lossy(&name).into_owned());
    let mut names = Names::of(args.names.as_deref(), &args.namespace, &place[0], &place[1])?;
    loop {
        let claims = inspect::locks(&mut connection)?;
        names.look_up(claims.iter().map(|claim| &claim.key));
        names.read_labels(&claims);
        let groups = groups(&claims, &names);
        let read = match args.watch.is_some() && io::stdout().is_terminal() {
            _ if args.json => print_json(&rows_of(&groups, &names))?,
            true => print_alone(text_of(&mut connection, args, &groups, &names)?)?,
            false => print(text_of(&mut connection, args, &groups, &names)?)?,
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
    groups: &[Group<'_>],
    names: &Names,
) -> Result<String, Failure> {
    Ok(if groups.is_empty() {
        "no advisory locks in this database".to_owned()
    } else if args.tree {
        cut(&tree_of(connection, groups, names)?)
    } else {
        list_of(groups, names)
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
    let wanted = args.key.wanted(args.slots);
    let mut connection = connect(url, "pglock who")?;
    let (claims, names) = seen(&mut connection, &wanted)?;
    let mut groups = groups(&claims, &names);
    groups.retain(|group| wanted.is(&group.what));
    let held = groups.iter().any(Group::is_held);
    if args.json {
        print_json(&rows_of(&groups, &names))?;
    } else if !groups.is_empty() {
        let texts = groups.iter().map(|group| sessions_of(group, &names));
        print(texts.collect::<Vec<_>>().join("\n\n"))?;
    }
    match held {
        true => Ok(0),
        false if args.json => Ok(NOBODY),
        false => Err(Failure::new(NOBODY, format_args!("nobody holds {wanted}"))),
    }
}

/// All claims, and what their keys stand for as far as it matters for a lock.
pub(crate) fn seen(
    connection: &mut PgConnection,
    wanted: &Wanted,
) -> Result<(Vec<Claim>, Names), Failure> {
    let claims = inspect::locks(connection)?.into_iter();
    let claims: Vec<_> = claims.map(|claim| wanted.naming(claim)).collect();
    let mut names = Names::default();
    names.read_labels(&claims);
    if let Some(name) = wanted.bare_name() {
        names.add_name(name, wanted.slots(), &claims);
    }
    Ok((claims, names))
}
