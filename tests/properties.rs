//! Properties of keys of any content, on a server.

#![cfg(feature = "postgres")]

#[path = "support/oracle.rs"]
mod oracle;

use std::cell::RefCell;

use oracle::{Oracle, connect, unique_name};
use pglock::{Error, Key, key, with_lock};
use proptest::prelude::*;

/// Any text, with characters that have a meaning in SQL.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "['\"\\\\%$;\0\u{1F512}a-c -]{0,40}",
        ".{0,2000}"
    ]
}

thread_local! {
    static SESSIONS: RefCell<(Oracle, postgres::Client)> = RefCell::new((Oracle::new(), connect()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However it is built, a name is one lock: the one that `pg_locks` shows under the key's number.
    #[test]
    fn a_name_of_any_content_is_one_lock(content in text(), namespace in text()) {
        let own = unique_name("property");
        let name = format!("{own}{content}");
        let keys = [
            Key::from(name.as_str()),
            Key::from(name.clone()),
            Key::from(&name),
            key!("{own}{}", content),
        ];
        let namespaced = Key::namespaced(namespace, name);
        prop_assert_ne!(&namespaced, &keys[0]);
        SESSIONS.with_borrow_mut(|(oracle, client)| {
            with_lock(client, &keys[0], |client| {
                for key in &keys {
                    oracle.holder(key);
                    with_lock(client, key, |_| Ok::<_, Error>(()))?;
                }
                oracle.assert_free(&namespaced);
                with_lock(client, &namespaced, |_| {
                    oracle.holder(&namespaced);
                    Ok::<_, Error>(())
                })
            })
            .unwrap();
            oracle.assert_free(&keys[0]);
        });
    }
}
