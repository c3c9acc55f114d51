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

/// PostgreSQL truncates names to 63 bytes.
pub fn long_columns_have_triggers_of_their_own<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    for long in ["v".repeat(62), "🔒".repeat(15)] {
        let columns = [format!("{long}a"), format!("{long}b")];
        for column in &columns {
            conn.run(&format!("ALTER TABLE seat ADD \"{column}\" int DEFAULT 1"))
                .unwrap();
            let trigger = trigger_sql((house.schema.as_str(), "seat"), column);
            conn.run(&trigger).unwrap();
            conn.run(&trigger).unwrap();
        }
    }
    conn.run("UPDATE seat SET visits = 1 WHERE id = 1").unwrap();
    assert_eq!(house.rows()[0], "(1,,1,1,2,2,2,2)");
    let triggers = "DO $$ BEGIN ASSERT 4 = \
                    (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'seat'::regclass); END $$";
    conn.run(triggers).unwrap();
}

fn assert_suppressed(result: Result<(), Error>) {
    let error = result.unwrap_err();
    let suppressed = matches!(error, Error::Suppressed { version: 1, .. });
    assert!(suppressed, "{error:?}");
    assert!(!error.is_retryable());
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
    // A role that every server has, and that policies apply to.
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

pub fn a_save_whose_new_version_is_unusable_is_no_refusal<D: Driver>() {
    for (column, set, found) in [
        ("int DEFAULT 1", "NULL", None),
        ("bigint DEFAULT 1", "5000000000", Some(5_000_000_000)),
    ] {
        let house = House::new(column);
        house.before_each_row(&format!("BEGIN NEW.version := {set}; RETURN NEW; END"));
        let error = D::open(&house).save(1, 1, "ada").unwrap_err();
        assert!(
            matches!(error, Error::UnusableVersion { version, .. } if version == found),
            "{error:?}"
        );
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("was saved, but"), "{error}");
        let version = found.map(|version| version.to_string());
        let saved = format!("(1,ada,0,{})", version.unwrap_or_default());
        assert_eq!(house.rows()[0], saved);
    }
}
