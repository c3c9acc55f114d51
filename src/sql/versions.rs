//! Rows with a version column. Names are quoted here, and values are parameters.

use xxhash_rust::xxh3::xxh3_64;

use super::quote_literal;
use super::targets::{identifier, table_name};
use crate::targets::TableName;

// PostgreSQL prepares these whatever type the version column has, and says which one: so a wrong one is
// found before anything runs. The new version takes the column's type, and the old one is compared as a
// text.

/// The order of its parameters: the changes, the new version, the key, the version.
#[cfg(feature = "postgres")]
pub(crate) fn update<'c>(
    table: &TableName,
    version: &str,
    key: &[&str],
    changes: impl Iterator<Item = &'c str>,
) -> String {
    let mut sql = format!("UPDATE {} SET ", table_name(table));
    let mut number = 1;
    for column in changes {
        sql += &format!("{} = ${number}, ", identifier(column));
        number += 1;
    }
    let column = identifier(version);
    let checked = checked(table, version, key, number);
    sql + &format!("{column} = coalesce(${number}, {column}){checked}")
}

/// The order of its parameters: the key, the version.
#[cfg(feature = "postgres")]
pub(crate) fn delete(table: &TableName, version: &str, key: &[&str]) -> String {
    let checked = checked(table, version, key, 0);
    format!("DELETE FROM {}{checked}", table_name(table))
}

/// Only one row, and only at its version: if the key matches others too, none is saved.
#[cfg(feature = "postgres")]
fn checked(table: &TableName, version: &str, key: &[&str], first: usize) -> String {
    let (found, version) = (found(key, first), identifier(version));
    format!(
        "{found} AND {version}::text = ${} AND {} RETURNING {version}",
        first + key.len() + 1,
        one_row(&format!("{}{found}", table_name(table)))
    )
}

/// Whether there is one row, given what follows a FROM. It looks no further than a second one.
#[cfg(feature = "postgres")]
fn one_row(from: &str) -> String {
    format!("(SELECT count(*) FROM (SELECT FROM {from} LIMIT 2) AS found) = 1")
}

/// A statement of its own: a save that waited for another writer still has the snapshot from before
/// the wait.
#[cfg(feature = "postgres")]
pub(crate) fn version(table: &TableName, version: &str, key: &[&str]) -> String {
    format!(
        "SELECT {} FROM {}{} LIMIT 2",
        identifier(version),
        table_name(table),
        found(key, 0)
    )
}

#[cfg(feature = "postgres")]
fn found(key: &[&str], first: usize) -> String {
    let conditions: Vec<_> = key
        .iter()
        .zip(first + 1..)
        .map(|(column, number)| format!("{} = ${number}", identifier(column)))
        .collect();
    format!(" WHERE {}", conditions.join(" AND "))
}

/// It can be run again, and leaves no moment without the trigger.
pub(crate) fn trigger(table: &TableName, column: &str) -> String {
    let name = identifier(&trigger_name(column));
    let column = identifier(column);
    let function = match &table.schema {
        Some(schema) => format!("{}.{name}", identifier(schema)),
        None => name.clone(),
    };
    let body = quote_literal(format!(
        "BEGIN NEW.{column} := coalesce(OLD.{column}, 0) + 1; RETURN NEW; END"
    ));
    let table = table_name(table);
    format!(
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {body};\n\
         CREATE OR REPLACE TRIGGER {name} BEFORE UPDATE ON {table} \
         FOR EACH ROW EXECUTE FUNCTION {function}();\n"
    )
}

/// PostgreSQL truncates names, so two long columns would share one trigger.
const LONGEST_NAME: usize = 63;

fn trigger_name(column: &str) -> String {
    let mut name = format!("pglock_bump_{column}");
    if name.len() > LONGEST_NAME {
        let hash = format!("_{:016x}", xxh3_64(column.as_bytes()));
        let mut end = LONGEST_NAME - hash.len();
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name += &hash;
    }
    name
}
