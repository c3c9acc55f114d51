//! What triggers and policies do to a save.

use pglock::optimistic::{Error, trigger_sql};

use crate::cases::conflict;
use crate::driver::{Driver, House, INT};

pub fn the_trigger_raises_the_version_once_for_everybody<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    let trigger = trigger_sql((house.schema.as_str(), "seat"), "version");
    conn.run(&trigger).unwrap();
    conn.run(&trigger).unwrap();
    assert_eq!(conn.save(1, 1, "ada").unwrap(), 2, "once");
    conn.run("UPDATE seat SET visits = 1 WHERE id = 1").unwrap();
    conn.run("UPDATE seat SET visits = 2, version = 1 WHERE id = 1")
        .unwrap();
    assert_eq!(conflict(conn.save(1, 2, "bob")), (2, 4));
    assert_eq!(house.rows()[0], "(1,ada,2,4)");
    assert_eq!(conflict(conn.delete(1, 2)), (2, 4));
}

fn assert_suppressed(result: Result<(), Error>) {
    let error = result.unwrap_err();
    let suppressed = matches!(error, Error::Suppressed { version: 1, .. });
    assert!(suppressed, "{error:?}");
    assert!(!error.is_conflict());
    let text = error.to_string();
    assert!(
        text.contains("trigger") && text.contains("policy"),
        "{text}"
    );
}

pub fn a_save_that_a_trigger_suppresses_is_no_conflict<D: Driver>() {
    let house = House::new(INT);
    house.before_each_row("BEGIN RETURN NULL; END");
    let mut conn = D::open(&house);
    let before = house.rows();
    assert_suppressed(conn.save(1, 1, "ada").map(drop));
    assert_suppressed(conn.delete(1, 1));
    assert_eq!(house.rows(), before);
}

pub fn a_save_that_a_policy_suppresses_is_no_conflict<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    let before = house.rows();
    // A role that every server has, and to which policies apply.
    let (role, schema) = ("pg_monitor", &house.schema);
    let policy = format!(
        "ALTER TABLE seat ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY look ON seat FOR SELECT USING (true); \
         GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON seat TO {role}; SET ROLE {role}"
    );
    conn.run(&policy).unwrap();
    assert_suppressed(conn.save(1, 1, "ada").map(drop));
    assert_suppressed(conn.delete(1, 1));
    assert_eq!(house.rows(), before);
}
