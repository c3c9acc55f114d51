//! Names that are keywords, and pglock by another name.

use pglock::{Error, key, locked};
use postgres::Client;

use crate::held;
use crate::oracle::{connect, unique_name};

struct Train {
    r#type: i32,
    stop: (i32, i32),
}

/// With `r#`, as in code, and without, as in `format!`.
#[locked(key = "{name}:{type}:{r#type}:{train.type}:{train.r#type}:{train.stop.1:02}")]
fn keywords(
    conn: &mut Client,
    name: &str,
    r#type: &str,
    train: &Train,
) -> Result<Vec<String>, Error> {
    Ok(held(key!("{name}:a:a:7:7:03")))
}

#[locked(key = "{name}", conn = r#mod)]
fn keyword_as_connection(r#mod: &mut Client, name: &str) -> Result<Vec<String>, Error> {
    r#mod.batch_execute("SELECT 1")?;
    Ok(held(name))
}

#[locked]
fn r#move(conn: &mut Client) -> Result<Vec<String>, Error> {
    Ok(held("macros::names::move"))
}

#[test]
fn keywords_are_names() {
    let (name, mut client) = (unique_name("name"), connect());
    let train = Train {
        r#type: 7,
        stop: (0, 3),
    };
    let modes = keywords(&mut client, &name, "a", &train).unwrap();
    assert_eq!(modes, ["ExclusiveLock"]);
    let modes = keyword_as_connection(&mut client, &name).unwrap();
    assert_eq!(modes, ["ExclusiveLock"]);
    assert_eq!(r#move(&mut client).unwrap(), ["ExclusiveLock"]);
}

mod company {
    pub mod prelude {
        pub use pglock as locks;
    }
}

#[locked(crate = company::prelude::locks, key = "{name}", timeout = "2s", transaction)]
fn reexported(conn: &mut Client, name: &str) -> Result<Vec<String>, Error> {
    Ok(held(name))
}

#[test]
fn pglock_may_have_another_name() {
    let name = unique_name("name");
    assert_eq!(
        reexported(&mut connect(), &name).unwrap(),
        ["ExclusiveLock"]
    );
}
