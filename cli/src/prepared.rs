//! Locks of prepared transactions, which have no session to end.

use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Binary};
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use pglock::Key;
use pglock::inspect::escaped;

use crate::connection::{raw, utf8};
use crate::exit::{Failure, UNAVAILABLE};
use crate::output::say;

#[derive(QueryableByName)]
struct Prepared {
    #[diesel(sql_type = Binary)]
    gid: Vec<u8>,
    #[diesel(sql_type = Binary)]
    owner: Vec<u8>,
}

/// Prints how to end those that hold a key, and returns whether there are any.
pub(crate) fn explain(connection: &mut PgConnection, key: &Key) -> Result<bool, Failure> {
    let holders = holders(connection, key).map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    for Prepared { gid, owner } in &holders {
        let (gid, owner) = (literal(gid), escaped(owner));
        say(format_args!(
            "{key} is held by a prepared transaction, which has no session to end: \
             ROLLBACK PREPARED {gid} or COMMIT PREPARED {gid} ends it, \
             in this database as {owner} or a superuser"
        ));
    }
    Ok(!holders.is_empty())
}

/// To type into psql: any user chooses it.
fn literal(gid: &[u8]) -> String {
    let mut literal = String::new();
    for chunk in gid.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\'' => literal += "''",
                '\\' => literal += r"\\",
                _ if escaped(character.to_string()) != character.to_string() => {
                    literal += &format!("\\u{:04x}", u32::from(character));
                }
                _ => literal.push(character),
            }
        }
        for byte in chunk.invalid() {
            literal += &format!("\\x{byte:02x}");
        }
    }
    let prefix = if literal.contains('\\') { "E" } else { "" };
    format!("{prefix}'{literal}'")
}

/// Found by the lock that each has on its own transaction id. (The manual's `'-1/' || transaction`
/// is right only after a restart: <https://www.postgresql.org/docs/current/view-pg-locks.html>.)
fn holders(connection: &mut PgConnection, key: &Key) -> diesel::QueryResult<Vec<Prepared>> {
    let (classid, objid, objsubid) = key.pg_locks();
    sql_query(format!(
        "SELECT {} AS gid, {} AS owner \
         FROM pg_locks l JOIN pg_locks own USING (virtualtransaction) \
         JOIN pg_prepared_xacts p ON p.transaction = own.transactionid \
         WHERE own.locktype = 'transactionid' AND own.granted AND own.pid IS NULL \
         AND l.locktype = 'advisory' AND l.granted AND l.pid IS NULL \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.objsubid::bigint = $3 \
         ORDER BY p.prepared",
        raw("p.gid"),
        utf8("quote_ident(p.owner)")
    ))
    .bind::<BigInt, _>(i64::from(classid))
    .bind::<BigInt, _>(i64::from(objid))
    .bind::<BigInt, _>(i64::from(objsubid))
    .load(connection)
}
