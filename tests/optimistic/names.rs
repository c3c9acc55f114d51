//! What the types of a `table!` rule out, but names as text do not.

use pglock::optimistic::{Error, postgres::VersionedTable, trigger_sql};

use crate::driver::House;
use crate::oracle::connect;

#[test]
fn names_are_quoted() {
    let house = House::new("int");
    let mut client = connect();
    for name in [
        "it's \"quoted\"",
        "a.b",
        "Upper Case",
        "$pglock$ $1",
        "\\';--",
        "🔒",
    ] {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let table = (house.schema.as_str(), name);
        client
            .batch_execute(&format!(
                "CREATE TABLE {0}.{quoted} ({quoted} int DEFAULT 1, \"id {1} text, \"to {1} text); \
                 INSERT INTO {0}.{quoted} VALUES (1, 'key')",
                house.schema,
                &quoted[1..]
            ))
            .unwrap();
        client.batch_execute(&trigger_sql(table, name)).unwrap();
        let versioned = VersionedTable::new(table, name);
        let (id, to) = (format!("id {name}"), format!("to {name}"));
        let key = [(id.as_str(), &"key" as _)];
        let saved = versioned
            .update(&mut client, &key, 1, &[(&to, &name)])
            .unwrap();
        assert_eq!(saved, 2);
        versioned.delete(&mut client, &key, saved).unwrap();
    }
}

#[test]
fn what_a_save_cannot_be_made_of_is_refused() {
    let house = House::new("numeric DEFAULT 1");
    let mut client = connect();
    let before = house.rows();
    let seats = VersionedTable::new((house.schema.as_str(), "seat"), "version");
    let numeric = seats.update(&mut client, &[("id", &1)], 1, &[("buyer", &"ada")]);
    let Err(Error::VersionType { found, .. }) = numeric else {
        panic!("{numeric:?}")
    };
    assert_eq!(found, "numeric");

    // Before anything runs, so that a transaction goes on.
    let text = House::new("text DEFAULT '1'");
    let mut transaction = client.transaction().unwrap();
    let seats_of_text = VersionedTable::new((text.schema.as_str(), "seat"), "version");
    let saved = seats_of_text.update(&mut transaction, &[("id", &1)], 1, &[("buyer", &"ada")]);
    assert!(matches!(saved, Err(Error::VersionType { .. })), "{saved:?}");
    transaction.batch_execute("SELECT 1").unwrap();
    drop(transaction);

    let everything = seats.delete(&mut client, &[], 1);
    assert!(
        matches!(everything, Err(Error::NoKey { .. })),
        "{everything:?}"
    );
    let nul = seats.delete(&mut client, &[("\0", &1)], 1);
    assert!(matches!(nul, Err(Error::NulByte { .. })), "{nul:?}");
    let missing =
        VersionedTable::new("no such table", "version").delete(&mut client, &[("id", &1)], 1);
    assert!(matches!(missing, Err(Error::Database(_))), "{missing:?}");
    assert_eq!(house.rows(), before);
}
