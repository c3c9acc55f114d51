use proptest::prelude::*;

use crate::connection::open;

/// What the command prints about a string that does not work.
fn message(url: &str) -> String {
    match open(url) {
        Err(failure) => failure.message,
        Ok(_) => panic!("there is no server"),
    }
}

#[test]
fn the_fault_is_named() {
    for (url, fault) in [
        (
            "postgresql+psycopg2://u:Secret@h/db",
            "postgresql+psycopg2://",
        ),
        ("postgresql+psycopg2://u:Secret@h/db", "leave out +psycopg2"),
        ("Postgres://u:Secret@h/db", "small letters"),
        ("mysql://u:Secret@h/db", "mysql://"),
        (
            "jdbc:postgresql://h/db?user=u&password=Secret",
            "leave out jdbc:",
        ),
        ("jdbc:mysql://u:Secret@h/db", "jdbc:"),
        ("'postgres://u:Secret@h/db'", "quotation mark"),
        (" postgres://u:Secret@h/db", "begins with a space"),
        ("postgres://u:Se%cret@h/db", "write % as %25"),
        ("postgres://u:Se%00cret@h/db", "write % as %25"),
        ("postgres://u:Se/cret@h/db", "/ as %2F"),
        ("postgres://u:Se@cret@h/db", "@ as %40"),
        ("postgres://u:Secret", "number of a port"),
        ("postgres://u:Secret@[::1/db", "no ']'"),
        ("postgres://u:Secret@[::1]x/db", "number of a port"),
        ("postgres://u:Secret@h/db?x", "without '='"),
        ("postgres://u:Secret@h/db?sslmode=a=b", "two '='"),
        (
            "postgres://u:Secret@h/db?schema=public",
            "parameter schema: it is Prisma's",
        ),
        (
            "postgres://u:Secret@h/db?sslmode=require&pgbouncer=true",
            "parameter pgbouncer",
        ),
        (
            "postgres://u:Secret@h/db?connction=1",
            "parameter connction",
        ),
        ("postgres://h/db?password=a&Secret=b", "parameter 2"),
        ("postgres://u:Secret@h/db?sslmode=Secret", "sslmode"),
        ("postgres://u:Secret@h/db?port=Secret", "integer"),
        ("host=h password=my Secret", "needs quotes"),
        ("host=h password=my Secret=x", "parameter 3"),
        ("host=h pasword=Secret", "parameter pasword"),
        ("host=h password='Secret", "not closed"),
        ("host=h hostaddr=Secret", "network address"),
        ("Secret", "it must be a URI"),
    ] {
        let message = message(url);
        assert!(message.contains(fault), "{url}: {message}");
        assert!(!message.contains("cret"), "{url}: {message}");
        assert!(!message.contains("Se"), "{url}: {message}");
    }
}

/// Parts that occur nowhere else, and between them what means something in a connection string.
fn password() -> impl Strategy<Value = (String, Vec<String>)> {
    let part = prop_oneof!["Zq[a-z]{3}", "7[0-9]{5}"];
    let between = prop_oneof![
        prop::sample::select(vec![
            "@", "/", "%", ":", "?", "&", "=", " ", "'", "\\", "[", "]", ",", "://", "%4", "#"
        ])
        .prop_map(str::to_owned),
        any::<char>()
            .prop_filter("no text of C has it", |c| *c != '\0')
            .prop_map(String::from),
    ];
    let rest = prop::collection::vec((between, part.clone()), 0..5);
    (part, rest).prop_map(|(first, rest)| {
        let mut parts = vec![first.clone()];
        let mut password = first;
        for (between, part) in rest {
            password += &between;
            password += &part;
            parts.push(part);
        }
        (password, parts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_part_of_a_password_is_shown((password, parts) in password(), form in 0..9) {
        let p = password;
        // No server is there, and nobody is asked for its address.
        let url = match form {
            0 => format!("postgres://u:{p}@%2Fnone/db"),
            1 => format!("postgresql+driver://u:{p}@%2Fnone/db"),
            2 => format!("postgres://u:{p}@[::1/db"),
            3 => format!("host=/none password={p}"),
            4 => format!("password={p} host=/none"),
            5 => format!("host = /none password = '{p}' user = u"),
            6 => format!("postgres:///db?host=/none&password={p}"),
            7 => format!("postgres:///db?password={p}&host=/none"),
            _ => format!("jdbc:postgresql://h/db?user=u&password={p}"),
        };
        let message = message(&url);
        for part in parts {
            prop_assert!(!message.contains(&part), "{}: {}", url, message);
        }
    }
}
