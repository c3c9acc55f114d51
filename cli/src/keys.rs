//! `pglock key`: a name in every scheme.

use pglock::Key;
use pglock::compat::Scheme;
use serde::Serialize;

use crate::args::KeyNameArgs;
use crate::claims::{Number, number};
use crate::exit::Failure;
use crate::output::{print, print_json};
use crate::table::table;

#[derive(Serialize)]
struct Row {
    scheme: &'static str,
    key: Number,
    sql: String,
}

pub(crate) fn show(args: &KeyNameArgs) -> Result<u8, Failure> {
    let own = match &args.namespace {
        Some(namespace) => Key::namespaced(namespace.clone(), args.name.clone()),
        None => Key::from(&args.name),
    };
    let mut keys = vec![("pglock", own)];
    if args.namespace.is_none() {
        let others = Scheme::ALL.map(|scheme| (scheme.name(), scheme.key(&args.name)));
        keys.extend(others);
    }
    if args.json {
        let row = |(scheme, key): &(&'static str, Key)| Row {
            scheme,
            key: number(key),
            sql: sql(key),
        };
        print_json(&keys.iter().map(row).collect::<Vec<_>>())?;
    } else {
        let row = |(scheme, key): &(&str, Key)| vec![(*scheme).to_owned(), sql(key)];
        let rows = keys.iter().map(row).collect();
        print(table(&["SCHEME", "SQL"], rows, &[]))?;
    }
    Ok(0)
}

fn sql(key: &Key) -> String {
    match (key.as_i64(), key.as_pair()) {
        (_, Some((first, second))) => format!("SELECT pg_advisory_lock({first}, {second});"),
        (number, None) => format!("SELECT pg_advisory_lock('{}');", number.unwrap_or_default()),
    }
}
