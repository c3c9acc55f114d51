//! The keys of other libraries: their published values, and the running libraries themselves.

#[path = "support/oracle.rs"]
mod oracle;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use oracle::{Oracle, connect, unique_name};
use pglock::compat::{Scheme, WithAdvisoryLock};
use pglock::{Error, Key, try_with_lock, with_lock};
use serde_json::Value;

/// The scheme's name in the data file, which names Python and Ruby modules.
fn in_file(name: &str) -> Scheme {
    match name {
        "django_pglocks" => Scheme::DjangoPglocks,
        "with_advisory_lock" => Scheme::WithAdvisoryLock,
        name => name.replace('_', "-").parse().unwrap(),
    }
}

/// These values are frozen: the other side computes them too.
#[test]
fn keys_are_those_that_the_libraries_print() {
    let file: Value = serde_json::from_str(include_str!("data/key-vectors.json")).unwrap();
    let mut checked = 0;
    for (name, values) in file["vectors"].as_object().unwrap() {
        for (scheme, number) in values.as_object().unwrap() {
            let key = in_file(scheme).key(name);
            assert_eq!(key.as_i64(), number.as_i64(), "{scheme} of {name:?}");
            assert_eq!(key.to_string(), Key::from(name).to_string());
            checked += 1;
        }
    }
    assert!(checked >= 25, "only {checked} vectors");
    let schemes = file["schemes"].as_object().unwrap();
    assert_eq!(schemes.len(), Scheme::ALL.len());
    assert!(
        schemes
            .keys()
            .all(|name| Scheme::ALL.contains(&in_file(name)))
    );
}

/// These are frozen, too.
#[test]
fn with_advisory_locks_keys_are_pairs() {
    let file: Value = serde_json::from_str(include_str!("data/key-vectors.json")).unwrap();
    let vectors = |kind: &str| {
        file["with_advisory_lock"][kind]
            .as_object()
            .unwrap()
            .clone()
    };
    let pair = |first: &Value, second: &Value| {
        let number = |value: &Value| value.as_i64().unwrap().try_into().unwrap();
        Some((number(first), number(second)))
    };
    let (zero, seven) = (Value::from(0), Value::from(7));
    let (plain, prefixed) = (WithAdvisoryLock::new(), WithAdvisoryLock::new().prefix("7"));
    for (name, first) in vectors("names") {
        assert_eq!(plain.name(&name).as_pair(), pair(&first, &zero), "{name:?}");
        assert_eq!(Scheme::WithAdvisoryLock.key(&name), plain.name(&name));
        assert_eq!(prefixed.name(&name).as_pair(), pair(&first, &seven));
        assert_eq!(
            prefixed.name(&name).to_string(),
            Key::from(name).to_string()
        );
    }
    for (number, first) in vectors("numbers") {
        let key = plain.number(number.parse().unwrap());
        assert_eq!(key.as_pair(), pair(&first, &zero), "{number}");
    }
    for (prefix, second) in vectors("prefixes") {
        let key = WithAdvisoryLock::new().prefix(&prefix).number(7);
        assert_eq!(key.as_pair(), pair(&seven, &second), "{prefix:?}");
    }
}

/// The test starts itself again, since a process cannot safely change its own environment.
#[test]
fn the_prefix_is_read_from_the_environment() {
    const PREFIX: &str = "WITH_ADVISORY_LOCK_PREFIX";
    const EXPECTED: &str = "PGLOCK_TEST_EXPECTED";
    if let Ok(expected) = std::env::var(EXPECTED) {
        let pair = WithAdvisoryLock::from_env().number(1).as_pair();
        assert_eq!(pair, Some((1, expected.parse().unwrap())));
        return;
    }
    for (prefix, expected) in [(Some("7x"), "7"), (None, "0")] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "the_prefix_is_read_from_the_environment"]);
        child.env_remove(PREFIX).env(EXPECTED, expected);
        child.envs(prefix.map(|prefix| (PREFIX, prefix)));
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{prefix:?}: {said}");
        assert!(said.contains("1 passed"), "{said}");
    }
}

/// A Python library that holds a lock, or tries to acquire it.
struct Python(Child);

impl Python {
    fn start(action: &str, scheme: Scheme, name: &str) -> Self {
        let python = std::env::var_os("PGLOCK_PYTHON")
            .expect("PGLOCK_PYTHON: run this test by scripts/test-python-compat");
        let child = Command::new(python)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/python_locks.py"
            ))
            .args([action, scheme.name(), name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn goes_on(&mut self) {
        writeln!(self.0.stdin.as_mut().unwrap()).unwrap();
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "starts Python's libraries: run scripts/test-python-compat"]
fn python_libraries_and_pglock_keep_each_other_out() {
    let libraries = [
        Scheme::DjangoConcurrencySafe,
        Scheme::PostgresqlLock,
        Scheme::DjangoPglocks,
        Scheme::DjangoPgware,
        Scheme::DjangoPglock,
    ];
    let (mut oracle, mut client) = (Oracle::new(), connect());
    for scheme in libraries {
        let name = unique_name("żółć 🔒");
        let key = scheme.key(&name);
        let try_it = || Python::start("try", scheme, &name).says();

        let mut holder = Python::start("hold", scheme, &name);
        assert_eq!(holder.says(), "held", "{scheme}");
        assert_eq!(oracle.held(&key), ["ExclusiveLock"], "{scheme}");
        let refused = try_with_lock(&mut client, &key, |_| Ok::<_, Error>(()));
        assert!(refused.unwrap().is_none(), "{scheme} holds {key}");
        thread::scope(|threads| {
            let waiter = threads.spawn(|| with_lock(&mut client, &key, |_| Ok::<_, Error>(())));
            oracle.wait_for_waiter(&key);
            holder.goes_on();
            assert_eq!(holder.says(), "released");
            waiter.join().unwrap().unwrap();
        });

        let tried = with_lock(&mut client, &key, |_| Ok::<_, Error>(try_it()));
        assert_eq!(tried.unwrap(), "busy", "{scheme}");
        assert_eq!(try_it(), "free", "{scheme}");
        println!("{scheme} and pglock keep each other out");
    }
}
