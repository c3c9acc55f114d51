//! What is specific to diesel: its filters, and what a save costs.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use pglock::optimistic::{Error, diesel::AtVersion};

use crate::driver::{Driver, House, INT, seat};
use crate::proxy::Proxy;

#[test]
fn an_or_in_a_filter_does_not_skip_the_version() {
    let house = House::new(INT);
    let mut conn = PgConnection::open(&house);
    conn.save(1, 1, "ada").unwrap();
    let before = house.rows();
    let either = || seat::table.filter(sql::<Bool>("id = 1 OR visits = 7"));

    let update = either().at_version(seat::version, 1);
    let update = update.update(&mut conn, seat::buyer.eq("bob")).map(drop);
    let delete = either().at_version(seat::version, 1).delete(&mut conn);
    for result in [update, delete] {
        let stale = matches!(
            result,
            Err(Error::Conflict {
                expected: 1,
                actual: 2,
                ..
            })
        );
        assert!(stale, "{result:?}");
        assert_eq!(house.rows(), before);
    }

    let row = either().at_version(seat::version, 2);
    assert_eq!(row.update(&mut conn, seat::buyer.eq("bob")).unwrap(), 3);
    let row = either().at_version(seat::version, 3);
    row.delete(&mut conn).unwrap();
    assert_eq!(house.rows().len(), 2);
}

#[test]
fn a_filter_can_hold_values_and_queries() {
    let house = House::new(INT);
    let mut conn = PgConnection::open(&house);
    let other = diesel::alias!(seat as other);
    let last = other.select(diesel::dsl::max(other.field(seat::id)));
    let row = seat::table
        .filter(seat::id.nullable().eq_any(last))
        .filter(seat::visits.eq(0).or(seat::buyer.eq("ada")));
    let saved = row.at_version(seat::version, 1);
    assert_eq!(saved.update(&mut conn, seat::buyer.eq("bob")).unwrap(), 2);
    assert_eq!(house.rows()[2], "(3,bob,0,2)");
}

#[test]
fn a_save_without_a_filter_is_refused() {
    let house = House::new(INT);
    let mut conn = PgConnection::open(&house);
    let before = house.rows();
    let update = seat::table.at_version(seat::version, 1);
    let update = update.update(&mut conn, seat::buyer.eq("ada")).map(drop);
    let delete = seat::table.at_version(seat::version, 1).delete(&mut conn);
    for result in [update, delete] {
        assert!(matches!(result, Err(Error::NoKey { .. })), "{result:?}");
        assert_eq!(house.rows(), before);
    }
}

#[test]
fn a_save_takes_one_round_trip_and_a_conflict_two() {
    let (house, proxy) = (House::new(INT), Proxy::start());
    let mut conn = PgConnection::establish(&proxy.url()).unwrap();
    conn.run(&house.enter()).unwrap();
    let save = |conn: &mut PgConnection| conn.save(1, 1, "ada").map(drop);
    assert_eq!(proxy.count(|| save(&mut conn).unwrap()), 1);
    assert_eq!(proxy.count(|| drop(save(&mut conn).unwrap_err())), 2);
    assert_eq!(proxy.count(|| drop(conn.delete(1, 1).unwrap_err())), 2);
    assert_eq!(proxy.count(|| conn.delete(1, 2).unwrap()), 1);
}
