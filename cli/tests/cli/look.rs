//! `pglock ls`, `who` and `key`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use diesel::Connection;
use diesel::pg::PgConnection;
use pglock::election::Election;
use pglock::{Key, StopToken};
use serde_json::{Value, json};

use crate::oracle::{Oracle, connect, unique_name, url, wait_until};
use crate::process::{Running, assert_fails, output, pglock, stdout};
use crate::unique;

#[test]
fn locks_are_shown_for_people_and_for_programs() {
    let ((name, key), mut oracle) = (unique(), Oracle::new());
    let running = Running::start(&name, &[], "");
    let pid = oracle.holder(&key);
    let number = key.as_i64().unwrap().to_string();

    // The keeper asks at once, and from then on says for how long it has held the lock.
    let table = wait_until("a question of the holder's", || {
        Some(stdout(&["who", &name])).filter(|table| !table.contains("under"))
    });
    let title = format!("\"{name}\" ({number})\nPID ");
    assert!(table.starts_with(&title), "{table}");
    assert!(table.contains(&format!("\n{pid} ")), "{table}");
    let table = stdout(&["ls"]);
    let line = table.lines().find(|line| line.contains(&name)).unwrap();
    assert!(line.contains(&pid.to_string()), "{line}");
    assert!(
        line.contains("pglock: sh") && !line.contains(&number),
        "{line}"
    );

    let json: Value = serde_json::from_str(&stdout(&["who", "--json", &name])).unwrap();
    assert_eq!(json[0]["pid"], pid);
    assert_eq!(json[0]["key"], number);
    assert_eq!(json[0]["name"], name);
    assert_eq!(json[0]["application"], "pglock: sh");
    assert_eq!(json[0]["granted"], true);
    assert!(json[0]["held_seconds"].is_number(), "{json}");
    let json: Value = serde_json::from_str(&stdout(&["ls", "--json"])).unwrap();
    let claims = json.as_array().unwrap();
    assert!(
        claims
            .iter()
            .any(|claim| claim["key"] == number && claim["name"] == name)
    );

    let mut watching = pglock(&["ls", "--watch=100ms", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for line in lines.take(3) {
        assert!(line.unwrap().contains(&number));
    }
    // When its reader is gone, it ends silently.
    assert_eq!(watching.wait().unwrap().code(), Some(0));

    drop(running);
    wait_until("the end of the lock", || {
        oracle.rows(&key).is_empty().then_some(())
    });
    assert_fails(&["who", &name], 1, "nobody holds");
    assert_fails(&["kill", &name, "--yes"], 1, "nobody holds");
    assert_eq!(output(&["who", "--json", &name]).stdout, b"[]\n");
}

/// Most programs read a number of JSON as a double.
#[test]
fn no_key_is_rounded() {
    let mut holder = connect();
    let (largest, smallest) = (i64::MAX - 1, i64::MIN + 1);
    let lock = format!(
        "SELECT pg_advisory_lock({largest}), pg_advisory_lock({smallest}), pg_advisory_lock(2147483647, -2147483648)"
    );
    holder.batch_execute(&lock).unwrap();
    let json: Value = serde_json::from_str(&stdout(&["ls", "--json"])).unwrap();
    let keys: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|claim| &claim["key"])
        .collect();
    let pair = json!([i32::MAX, i32::MIN]);
    for key in [
        json!(largest.to_string()),
        json!(smallest.to_string()),
        pair,
    ] {
        assert!(keys.contains(&&key), "{key}: {json}");
    }
}

#[test]
fn the_name_that_somebody_waits_for_is_shown_for_its_number() {
    let ((name, key), mut holder) = (unique(), Oracle::new());
    let namespaced = Key::namespaced("cli \"x\" in y", name.clone());
    for (key, options) in [
        (&key, &[][..]),
        (&namespaced, &["--namespace", "cli \"x\" in y"]),
    ] {
        holder.lock(key);
        let run = [&["run", &name], options, &["--", "true"]].concat();
        let mut waiting = pglock(&run).spawn().unwrap();
        holder.wait_for_waiter(key);
        let json: Value = serde_json::from_str(&stdout(&["ls", "--json"])).unwrap();
        let claims = json.as_array().unwrap().iter();
        let number = key.as_i64().unwrap().to_string();
        let names = claims.filter(|claim| claim["key"] == number);
        let names: Vec<_> = names.map(|claim| claim["name"].as_str()).collect();
        assert_eq!(names, [Some(&*name); 2]);
        holder.unlock(key);
        assert!(waiting.wait().unwrap().success());
    }
}

/// A session that holds two locks shows the name of one.
#[test]
fn a_name_is_shown_for_its_own_number_alone() {
    let ((name, key), (_, other), mut holder) = (unique(), unique(), Oracle::new());
    for key in [&other, &key] {
        holder.lock(key);
    }
    let labelled = format!("/*pglock key \"{name}\"*/ SELECT");
    holder.client.batch_execute(&labelled).unwrap();
    let json: Value = serde_json::from_str(&stdout(&["ls", "--json"])).unwrap();
    let name_of = |key: &Key| {
        let mut claims = json.as_array().unwrap().iter();
        let number = key.as_i64().unwrap().to_string();
        let claim = claims.find(|claim| claim["key"] == number);
        claim.unwrap()["name"].clone()
    };
    assert_eq!((name_of(&key), name_of(&other)), (name.into(), Value::Null));
}

#[test]
fn the_numbers_of_a_name_are_shown_in_every_scheme() {
    let table = stdout(&["key", "some lock"]);
    for number in [
        "-205618829",
        "-5588203449678238657",
        "pg_advisory_lock(1941864819, 0)",
    ] {
        assert!(table.contains(number), "{table}");
    }
    assert!(table.lines().all(|line| line.len() <= 80), "{table}");
    let json: Value = serde_json::from_str(&stdout(&["key", "--json", "seat:12A"])).unwrap();
    assert_eq!(json[0]["key"], "4328960076536664018");
    let json = stdout(&["key", "--json", "--namespace", "billing", "invoice:7"]);
    assert!(json.contains("4713738466874322346"), "{json}");
}

/// A line of waiters has places, a head and members, which are no locks of anybody's.
#[test]
fn all_that_belongs_to_a_lock_is_one_line() {
    let ((name, key), mut holder) = (unique(), Oracle::new());
    holder.lock(&key);
    let number = key.as_i64().unwrap().to_string();
    let [member, head, place] = ["pglock.member", "pglock.head", "pglock.place"]
        .map(|role| Key::namespaced(role, number.clone()));
    let mut waiting = [(); 2].map(|()| {
        pglock(&["run", "-q", "-w", "60", &name, "true"])
            .spawn()
            .unwrap()
    });
    wait_until("two in line", || {
        (holder.held(&member).len() == 2).then_some(())
    });
    let line = wait_until("the name of a waiter", || {
        let table = stdout(&["ls"]);
        let line = table.lines().find(|line| line.contains(&name));
        line.map(str::to_owned)
    });
    assert!(line.contains("  2 for ") || line.ends_with("  2"), "{line}");
    let numbers = [&member, &head].map(|key| key.as_i64().unwrap().to_string());
    let class = format!("({}, ", place.as_i64().unwrap() as i32);
    let table = stdout(&["ls"]);
    assert!(
        !numbers.iter().any(|number| table.contains(number)),
        "{table}"
    );
    assert!(!table.contains(&class), "{table}");
    let table = stdout(&["who", &name]);
    assert_eq!(table.matches(" waits ").count(), 2, "{table}");
    let tree = stdout(&["ls", "--tree"]);
    let waits = tree
        .lines()
        .filter(|line| line.contains(&name) && line.contains("waits"));
    let starts: Vec<_> = waits.filter_map(|line| line.chars().next()).collect();
    assert_eq!(starts, ['├', '└'], "{tree}");
    holder.unlock(&key);
    for waiting in &mut waiting {
        assert!(waiting.wait().unwrap().success());
    }
}

#[test]
fn an_election_and_a_semaphore_are_found_by_name() {
    let name = unique_name("cli");
    let (ends, end) = mpsc::channel::<()>();
    let (leads, leading) = mpsc::channel();
    let election = Election::new(|| PgConnection::establish(&url()), &name);
    let leader = {
        let election = election.clone();
        thread::spawn(move || {
            election.run(|_| {
                leads.send(()).unwrap();
                let _ = end.recv();
                Ok::<_, pglock::Error>(())
            })
        })
    };
    leading.recv().unwrap();
    let stop = StopToken::new();
    let candidate = {
        let election = election.stop_on(&stop);
        thread::spawn(move || election.run(|_| Ok::<_, pglock::Error>(())))
    };
    let table = wait_until("a candidate", || {
        Some(stdout(&["who", &name])).filter(|table| table.contains(" stands "))
    });
    assert!(
        table.starts_with(&format!("election \"{name}\" (")),
        "{table}"
    );
    assert_eq!(table.matches(" leads ").count(), 1, "{table}");
    assert_eq!(table.matches(" stands ").count(), 1, "{table}");

    // Nobody has told the name to `ls`.
    let lock = Key::namespaced("pglock.election", name.clone());
    let start = format!("election {} ", lock.as_i64().unwrap());
    let list = stdout(&["ls"]);
    let lines = list.lines().filter(|line| line.starts_with(&start));
    let lines: Vec<_> = lines.collect();
    assert!(
        lines.len() == 1 && lines[0].ends_with("1 candidate"),
        "{list}"
    );

    let run = [
        "run",
        &name,
        "--slots",
        "2",
        "sh",
        "-c",
        "echo started; read -r _",
    ];
    let slot = Running::of(&mut pglock(&run));
    let table = wait_until("a label", || {
        Some(stdout(&["who", &name])).filter(|table| table.contains("1 of 2"))
    });
    assert!(
        table.contains(&format!("\n\nsemaphore \"{name}\", 1 of 2\nPID ")),
        "{table}"
    );
    let leaders = format!(
        "of the election of that name, say --int {}",
        lock.as_i64().unwrap()
    );
    let hint = format!(
        "nobody holds \"{name}\"; for the leader {leaders}; for the semaphore of that name, say --slots N"
    );
    assert_fails(&["kill", &name, "--yes"], 1, &hint);
    drop(slot);
    stop.stop();
    let _ = candidate.join().unwrap();
    drop(ends);
    leader.join().unwrap().unwrap();
}
