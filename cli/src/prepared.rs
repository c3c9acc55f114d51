//! Locks of prepared transactions, which have no session to end.

use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use pglock::Key;

use crate::exit::{Failure, UNAVAILABLE};
use crate::output::say;

#[derive(QueryableByName)]
struct Prepared {
    /// A literal.
    #[diesel(sql_type = Text)]
    gid: String,
    #[diesel(sql_type = Text)]
    owner: String,
}

/// Prints how to end those that hold a key, and returns whether there are any.
pub(crate) fn explain(connection: &mut PgConnection, key: &Key) -> Result<bool, Failure> {
    let holders = holders(connection, key).map_err(|error| Failure::of(UNAVAILABLE, &error))?;
    for Prepared { gid, owner } in &holders {
        say(format_args!(
            "{key} is held by a prepared transaction, which has no session to end: \
             ROLLBACK PREPARED {gid} or COMMIT PREPARED {gid} ends it, \
             in this database as {owner} or a superuser"
        ));
    }
    Ok(!holders.is_empty())
}

/// Found by the lock that each has on its own transaction id. (The manual's `'-1/' || transaction`
/// is right only after a restart: <https://www.postgresql.org/docs/current/view-pg-locks.html>.)
fn holders(connection: &mut PgConnection, key: &Key) -> diesel::QueryResult<Vec<Prepared>> {
    let (classid, objid, objsubid) = key.pg_locks();
    sql_query(
        "SELECT quote_literal(p.gid) AS gid, quote_ident(p.owner::text) AS owner \
         FROM pg_locks l JOIN pg_locks own USING (virtualtransaction) \
         JOIN pg_prepared_xacts p ON p.transaction = own.transactionid \
         WHERE own.locktype = 'transactionid' AND own.granted AND own.pid IS NULL \
         AND l.locktype = 'advisory' AND l.granted AND l.pid IS NULL \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.objsubid::bigint = $3 \
         ORDER BY p.prepared",
    )
    .bind::<BigInt, _>(i64::from(classid))
    .bind::<BigInt, _>(i64::from(objid))
    .bind::<BigInt, _>(i64::from(objsubid))
    .load(connection)
}
