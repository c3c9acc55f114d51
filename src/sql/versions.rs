//! Rows with a version column. Names are quoted here, and values are parameters.

use xxhash_rust::xxh3::xxh3_64;

use super::literal;
use super::targets::{identifier, table_name};
use crate::targets::TableName;

/// The order of its parameters: the changes, the key, the version.
#[cfg(feature = "postgres")]
pub(crate) fn update<'c>(
    table: &TableName,
    version: &str,
    key: &[&str],
    changes: impl Iterator<Item = &'c str>,
) -> String {
    let mut sql = format!("UPDATE {} SET ", table_name(table));
    let mut number = 0;
    for column in changes {
        number += 1;
        sql += &format!("{} = ${number}, ", identifier(column));
    }
    let version = identifier(version);
    sql + &format!(
        "{version} = {version} + 1{}",
        checked(&version, key, number)
    )
}

/// The order of its parameters: the key, the version.
#[cfg(feature = "postgres")]
pub(crate) fn delete(table: &TableName, version: &str, key: &[&str]) -> String {
    let checked = checked(&identifier(version), key, 0);
    format!("DELETE FROM {}{checked}", table_name(table))
}

#[cfg(feature = "postgres")]
fn checked(version: &str, key: &[&str], first: usize) -> String {
    format!(
        "{} AND {version} = ${} RETURNING {version}",
        found(key, first),
        first + key.len() + 1
    )
}

/// A statement of its own: a save that waited for another writer still has the snapshot from before
/// the wait.
#[cfg(feature = "postgres")]
pub(crate) fn version(table: &TableName, version: &str, key: &[&str]) -> String {
    format!(
        "SELECT {} FROM {}{}",
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
    let body = literal(format!(
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
