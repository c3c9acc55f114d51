//! Rows and tables. Their names and values are the caller's texts, so each of them is quoted here.

use super::keys::{IN_RECOVERY, OPEN_TRANSACTION, STALE_SNAPSHOT};
use super::literal::{executed, literal_inside};
use super::time::WaitTime;
use super::{block, carried};
use crate::failure::mark;
use crate::targets::{Columns, FirstFree, LockInfo, Mode, Order, Row, Table, TableName, Target};

/// Locks a row or a table in a transaction; `None` for keys. A transaction that pglock opens gets its
/// name here.
///
/// `then_set` is an expression that is evaluated under the lock.
///
/// A block on every driver, since it can look at the number of rows. It catches errors only where it
/// must, for a driver without an SQLSTATE: a row that is locked in a handler's subtransaction and updated
/// after it costs a multixact.
pub(crate) fn acquire(
    lock: &LockInfo,
    time: WaitTime,
    then_set: Option<&str>,
    before_begin: bool,
    has_sqlstate: bool,
) -> Option<String> {
    // Above READ COMMITTED, a row that has changed is an error; a table would be read as it was.
    let (statement, then, stale) = match lock.target() {
        Target::Row(row) => (lock_row(row, lock.mode(), time), NO_ROW, ""),
        Target::Table(table) => (lock_table(table, lock, time), "", STALE_SNAPSHOT),
        Target::FirstFree(pick) => (first_free(pick), PICK, ""),
        Target::Keys(_) | Target::Range(_) | Target::Slots(_) => return None,
    };
    // The mark shows in an error's context, where the driver has that.
    let statement = executed(&format!("/*{}*/ {statement}", mark()));
    let execute = format!("EXECUTE {statement}{then}; ");
    let locked = match timeout(time) {
        None => execute,
        Some(millis) => format!(
            "PERFORM set_config('lock_timeout', '{millis}', true); {execute}\
             PERFORM set_config('lock_timeout', kept, true); "
        ),
    };
    let set = match then_set {
        Some(expression) => format!("PERFORM {expression}; "),
        None => String::new(),
    };
    let open = if before_begin { OPEN_TRANSACTION } else { "" };
    let mark = mark();
    let body = format!(
        "answer := CASE {IN_RECOVERY} {open} {stale} ELSE '' END; \
         IF answer = '' THEN {locked}{set}END IF; \
         IF answer <> '' THEN RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = '{mark}' || answer; END IF; "
    );
    let handler = match has_sqlstate {
        true => String::new(),
        false => carried(),
    };
    let declarations = "DECLARE answer text; kept text := current_setting('lock_timeout'); found bigint; picked text; ";
    Some(block(declarations, &body, &handler))
}

const NO_ROW: &str =
    "; GET DIAGNOSTICS found = ROW_COUNT; IF found = 0 THEN answer := 'no such row'; END IF";

/// A block returns no rows: the ids go into a setting of the transaction. Finding none is no error: a
/// worker without work would fill the server's log with it.
const PICK: &str =
    " INTO picked; PERFORM set_config('pglock.picked', coalesce(picked, '{}'), true)";

/// How many rows were found, and then their ids in their order: a driver may drop one that is no UTF-8.
pub(crate) const PICKED: &str = "WITH picked AS (SELECT line, place FROM \
    unnest(current_setting('pglock.picked')::text[]) WITH ORDINALITY AS picked (line, place) \
    WHERE line IS NOT NULL) \
    SELECT line FROM (TABLE picked UNION ALL SELECT count(*)::text, 0 FROM picked) AS lines ORDER BY place";

fn first_free(pick: &FirstFree) -> String {
    // The id becomes a text outside: inside, a text of that name would be what the rows are sorted by.
    let id = identifier(&pick.id);
    let mut sql = format!(
        "SELECT array_agg({id}::text)::text FROM (SELECT {id} FROM {}",
        table_name(&pick.table)
    );
    let mut wanted: Vec<_> = pick.columns.iter().map(condition).collect();
    // A comment at the end of one must not swallow the parenthesis.
    wanted.extend(pick.filters.iter().map(|filter| format!("({filter}\n)")));
    if !wanted.is_empty() {
        sql += &format!(" WHERE {}", wanted.join(" AND "));
    }
    if !pick.order.is_empty() {
        let order: Vec<_> = pick.order.iter().map(order).collect();
        sql += &format!(" ORDER BY {}", order.join(", "));
    }
    let strength = if pick.for_update {
        "UPDATE"
    } else {
        "NO KEY UPDATE"
    };
    sql + &format!(" LIMIT {} FOR {strength} SKIP LOCKED) AS free", pick.limit)
}

fn order(order: &Order) -> String {
    let direction = if order.descending { " DESC" } else { "" };
    identifier(&order.column) + direction
}

/// The lock on the table, which comes before the lock on the row, has no NOWAIT: an attempt that does
/// not wait gets the shortest timeout instead.
fn timeout(time: WaitTime) -> Option<i32> {
    match time {
        WaitTime::No => Some(1),
        time => time.limit(),
    }
}

fn no_wait(time: WaitTime) -> &'static str {
    match time {
        WaitTime::No => " NOWAIT",
        _ => "",
    }
}

fn lock_row(row: &Row, mode: Mode, time: WaitTime) -> String {
    let strength = match mode {
        Mode::Shared => "SHARE",
        Mode::Exclusive if row.no_key_update => "NO KEY UPDATE",
        Mode::Exclusive => "UPDATE",
    };
    format!(
        "SELECT FROM {} WHERE {} FOR {strength}{}",
        table_name(&row.table),
        conditions(&row.columns),
        no_wait(time)
    )
}

fn lock_table(table: &Table, lock: &LockInfo, time: WaitTime) -> String {
    format!(
        "LOCK TABLE {} IN {} MODE{}",
        table_name(&table.name),
        lock.table_mode(table),
        no_wait(time)
    )
}

/// Literals without a type: the server reads each as its column's.
fn conditions(columns: &Columns) -> String {
    let conditions: Vec<_> = columns.iter().map(condition).collect();
    conditions.join(" AND ")
}

fn condition((column, value): &(String, String)) -> String {
    format!("{} = {}", identifier(column), literal_inside(value))
}

pub(super) fn table_name(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", identifier(schema), identifier(&name.table)),
        None => identifier(&name.table),
    }
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts() {
        assert_eq!(identifier(r#"a".b\"#), r#""a"".b\""#);
        assert_eq!(
            literal_inside("it's $tag$ \\é"),
            r"E'it\x27s \x24tag\x24 \x5cé'"
        );
    }

    #[test]
    fn no_dollar_of_the_callers_is_left_in_a_block() {
        let row = Row::new(("$pglock$", "$$"), "$1", "$pglock$; DROP TABLE seat");
        let lock = LockInfo::new(row.into(), Mode::Exclusive);
        let sql = acquire(&lock, WaitTime::InPlace(None), None, false, false).unwrap();
        assert_eq!(sql.matches('$').count(), 4, "{sql}");
    }
}
