//! What a key is, however it was made.

use std::cmp::Ordering;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::*;
use crate::key;

/// Frozen. If one of these fails, the crate no longer takes the locks that its earlier versions
/// took.
#[test]
fn names_hash_to_the_published_values() {
    let vectors = [
        ("", 3_244_421_341_483_603_138),
        ("seat:12A", 4_328_960_076_536_664_018),
        ("withdraw:user:42", 7_152_069_305_793_108_309),
        ("żółć", -2_075_303_547_426_307_351),
        ("🔒", -6_779_258_498_317_854_471),
    ];
    for (name, number) in vectors {
        assert_eq!(Key::from(name).as_i64(), Some(number), "{name}");
    }
    assert_eq!(
        Key::from("a".repeat(10_000)).as_i64(),
        Some(-5_375_218_817_275_848_431)
    );
    assert_eq!(
        Key::namespaced("billing", "invoice:7").as_i64(),
        Some(4_713_738_466_874_322_346)
    );
}

/// Frozen. If this fails, two versions of the crate stand in two lines for one key.
#[test]
fn keys_give_the_published_lines() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/data/line-vectors.json")).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert!(vectors.len() > 7);
    for vector in vectors {
        let number = |value: &serde_json::Value| value.as_i64().unwrap();
        let half = |value| i32::try_from(number(value)).unwrap();
        let key = match vector["key"].as_array() {
            Some(pair) => Key::from((half(&pair[0]), half(&pair[1]))),
            None => Key::from(number(&vector["key"])),
        };
        assert_eq!(key.head(), number(&vector["head"]), "{key}");
        assert_eq!(key.member(), number(&vector["member"]), "{key}");
        assert_eq!(key.class(), half(&vector["class"]), "{key}");
    }
}

#[test]
fn namespaces_and_key_spaces_are_kept_apart() {
    let keys = [
        Key::from("7"),
        Key::from(7),
        Key::from((0, 7)),
        Key::namespaced("", "7"),
        Key::namespaced("a", "7"),
        Key::namespaced("", "a7"),
    ];
    for (i, one) in keys.iter().enumerate() {
        for other in &keys[i + 1..] {
            assert_ne!(one, other);
        }
    }
}

#[test]
fn pg_locks_shows_unsigned_halves() {
    assert_eq!(Key::from(-1).pg_locks(), (u32::MAX, u32::MAX, 1));
    assert_eq!(Key::from(i64::MIN).pg_locks(), (1 << 31, 0, 1));
    assert_eq!(Key::from((-1, i32::MIN)).pg_locks(), (u32::MAX, 1 << 31, 2));
    for number in [0, 1, -1, i64::MIN, i64::MAX, 1 << 32, -(1 << 32)] {
        let (classid, objid, objsubid) = Key::from(number).pg_locks();
        assert_eq!(Key::from_pg_locks(classid, objid, objsubid), number.into());
    }
    let pair = Key::from((i32::MIN, -1));
    let (classid, objid, objsubid) = pair.pg_locks();
    assert_eq!(Key::from_pg_locks(classid, objid, objsubid), pair);
}

#[test]
fn every_kind_of_text_is_the_same_name() {
    let name = String::from("seat:12A");
    let keys = [
        Key::from(&name),
        Key::from(name.clone()),
        Key::from(Cow::from(&name)),
        Key::from(Cow::from(name.clone())),
        Key::from(name.clone().into_boxed_str()),
        Key::from(&name.as_str()),
        Key::from(&Key::from(name.as_str())),
    ];
    for key in keys {
        assert_eq!(key, Key::from("seat:12A"));
        assert_eq!(key.name(), Some("seat:12A"));
    }
}

/// The names of types are left out here on purpose.
#[test]
fn literals_need_no_suffix() {
    fn key(key: impl IntoKey) -> Key {
        key.into()
    }
    assert_eq!(key(5), Key::from(5_i64));
    assert_eq!(key(-5), Key::from(-5_i64));
    assert_eq!(key((5, 6)), Key::from((5_i32, 6_i32)));
    assert_eq!(key("5"), Key::from(String::from("5")));
}

#[test]
fn equality_hash_and_order_are_those_of_the_lock() {
    let hash = |key: &Key| BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    let named = Key::from("seat:12A");
    let number = Key::from(named.as_i64().unwrap());
    assert_eq!(named, number);
    assert_eq!(hash(&named), hash(&number));
    assert_eq!(named.cmp(&number), Ordering::Equal);
    assert_ne!(named.name(), number.name());

    let mut keys: Vec<Key> = vec![(0, -1).into(), 7.into(), (-1, 9).into(), (-7).into()];
    keys.sort();
    let sorted: [Key; 4] = [(-7).into(), 7.into(), (-1, 9).into(), (0, -1).into()];
    assert_eq!(keys, sorted);
}

#[test]
fn only_digits_reach_the_sql() {
    assert_eq!(
        Key::from(i64::MIN).arguments(),
        "bigint '-9223372036854775808'"
    );
    assert_eq!(Key::from((-1, 2)).arguments(), "int '-1',int '2'");
    let hostile = Key::from("'); DROP TABLE seat; --\0%$1").arguments();
    let digits = hostile.strip_prefix("bigint ").unwrap();
    assert!(
        digits
            .bytes()
            .all(|b| b == b'\'' || b == b'-' || b.is_ascii_digit())
    );
}

#[test]
fn a_key_is_shown_as_it_was_written() {
    assert_eq!(Key::from("seat:12A").to_string(), "\"seat:12A\"");
    assert_eq!(Key::from("seat:12A").name(), Some("seat:12A"));
    assert_eq!(Key::from(12).name(), None);
    assert_eq!(Key::from("").to_string(), "\"\"");
    assert_eq!(Key::from("a\nb\0\"").to_string(), "\"a\\nb\\0\\\"\"");
    assert_eq!(
        Key::namespaced("mail", "7").to_string(),
        "\"7\" in \"mail\""
    );
    let election = |name: Key| name.part(super::ELECTIONS, "").to_string();
    assert_eq!(election(Key::from("scheduler")), "election \"scheduler\"");
    assert_eq!(election(Key::from((7, 42))), "election 7:42:2");
    assert_eq!(Key::from(-5).to_string(), "-5");
    assert_eq!(format!("{:?}", Key::from((1, -2))), "Key((1, -2))");
    assert_eq!(
        format!("{:>5}|{:<6}|", key!("{}", 'a'), Key::from(7)),
        "  \"a\"|7     |"
    );
}
