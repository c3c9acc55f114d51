//! `pglock key`: a name in every scheme.

use pglock::Key;
use pglock::compat::Scheme;
use serde_json::{Value, json};

use crate::args::KeyNameArgs;
use crate::claims::{number, table, text};
use crate::exit::Failure;
use crate::output::{print, print_json};

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
        let object = |(scheme, key): &(&str, Key)| json!({"scheme": scheme, "key": number(key), "sql": sql(key)});
        let array: Vec<_> = keys.iter().map(object).collect();
        print_json(&Value::from(array))?;
    } else {
        let mut table = table(&["SCHEME", "KEY", "SQL"]);
        for (scheme, key) in &keys {
            table.add_row([(*scheme).to_owned(), text(key), sql(key)]);
        }
        print(table.trim_fmt())?;
    }
    Ok(0)
}

fn sql(key: &Key) -> String {
    match (key.as_i64(), key.as_pair()) {
        (_, Some((first, second))) => format!("SELECT pg_advisory_lock({first}, {second});"),
        (number, None) => format!("SELECT pg_advisory_lock('{}');", number.unwrap_or_default()),
    }
}
