//! `pglock ls`: names for numbers, and who waits for whom.

use std::io::Write;
use std::process::Stdio;

use pglock::Key;
use pglock::compat::Scheme;
use postgres::{Client, NoTls};
use serde_json::Value;

use crate::oracle::Oracle;
use crate::process::{assert_fails, pglock, stdout};
use crate::server::Server;
use crate::unique;

/// What a listing says about a key: name, scheme and tool.
fn meaning(json: &str, key: &Key) -> [Option<String>; 3] {
    let number = match (key.as_i64(), key.as_pair()) {
        (Some(number), _) => Value::from(number.to_string()),
        (_, Some((first, second))) => Value::from(vec![first, second]),
        (None, None) => unreachable!(),
    };
    let json: Value = serde_json::from_str(json).unwrap();
    let claims = json.as_array().unwrap();
    let claim = claims.iter().find(|claim| claim["key"] == number);
    let claim = claim.unwrap_or_else(|| panic!("{key} is not listed: {json}"));
    ["name", "scheme", "tool"].map(|field| claim[field].as_str().map(str::to_owned))
}

#[test]
fn candidates_are_shown_for_their_numbers_in_every_scheme() {
    let (mut holder, (name, own)) = (Oracle::new(), unique());
    let file = std::env::temp_dir().join(&name);
    std::fs::write(&file, format!("other\r\n\n{name}\r\n")).unwrap();
    let path = file.to_str().unwrap();
    let mut keys = vec![("pglock", own)];
    keys.extend(Scheme::ALL.map(|scheme| (scheme.name(), scheme.key(&name))));
    for (_, key) in &keys {
        holder.lock(key);
    }
    let (json, table) = (
        stdout(&["ls", "--json", "--names", path]),
        stdout(&["ls", "--names", path]),
    );
    let bare = stdout(&["ls", "--json"]);
    for (scheme, key) in &keys {
        let expected = [Some(name.clone()), Some((*scheme).to_owned()), None];
        assert_eq!(meaning(&json, key), expected, "{scheme}");
        assert_eq!(meaning(&bare, key), [None, None, None], "{scheme}");
    }
    assert!(table.contains(&format!("\"{name}\" ")), "{table}");
    assert!(table.contains(&format!("\"{name}\" by sqlx ")), "{table}");
    std::fs::remove_file(&file).unwrap();
    assert_fails(&["ls", "--names", path], 64, path);
}

#[test]
fn candidates_come_from_standard_input_and_in_namespaces() {
    let (mut holder, (name, _)) = (Oracle::new(), unique());
    let key = Key::namespaced("cli", name.clone());
    holder.lock(&key);
    let mut command = pglock(&["ls", "--json", "--names", "-", "--namespace", "cli"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut listing = command.spawn().unwrap();
    let mut stdin = listing.stdin.take().unwrap();
    stdin.write_all(name.as_bytes()).unwrap();
    drop(stdin);
    let output = listing.wait_with_output().unwrap();
    let json = String::from_utf8(output.stdout).unwrap();
    let expected = [Some(name), Some("pglock".to_owned()), None];
    assert_eq!(meaning(&json, &key), expected);
}

/// The numbers that the tools lock in a database called `app`.
const TOOLS: [(&str, i64); 6] = [
    ("Prisma Migrate", 72_707_369),
    ("goose", 5_887_940_537_704_921_958),
    ("node-pg-migrate", 7_241_865_325_823_964),
    ("sqlx migrate", 3_469_795_979_745_788_610),
    ("Rails migrations", 6_939_591_962_871_035_475),
    ("golang-migrate", 1_787_120_056),
];

#[test]
fn the_numbers_of_tools_are_known() {
    let server = Server::new("cli-tools");
    server.start();
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client.batch_execute("CREATE DATABASE app").unwrap();
    let url = format!("{}/app", server.url().strip_suffix("/postgres").unwrap());
    let mut client = Client::connect(&url, NoTls).unwrap();
    for (_, number) in TOOLS {
        let lock = format!("SELECT pg_advisory_lock({number})");
        client.batch_execute(&lock).unwrap();
    }
    let json = stdout(&["--url", &url, "ls", "--json"]);
    let table = stdout(&["--url", &url, "ls"]);
    for (tool, number) in TOOLS {
        let expected = [None, None, Some(tool.to_owned())];
        assert_eq!(meaning(&json, &Key::from(number)), expected, "{tool}");
        assert!(
            table.contains(&format!("\n{tool} ")) && !table.contains(&number.to_string()),
            "{table}"
        );
    }
}

/// A label is a comment, in which a slash or a star could begin another one.
#[test]
fn a_path_is_a_name_wherever_its_slashes_are() {
    let (mut holder, (name, _)) = (Oracle::new(), unique());
    for length in 40..130 {
        let path = format!("/*/{name}/{}/", "a".repeat(length - name.len() - 4));
        assert_fails(&["run", &path, "--", "true"], 0, "");
    }
    let path = format!("/var/{name}/*.sql");
    let key = Key::from(&path);
    holder.lock(&key);
    let run = ["run", &path, "--timeout", "1m", "--", "true"];
    let mut waiting = pglock(&run).spawn().unwrap();
    holder.wait_for_waiter(&key);
    let json = stdout(&["ls", "--json"]);
    assert_eq!(meaning(&json, &key)[0].as_deref(), Some(&*path));
    holder.unlock(&key);
    assert!(waiting.wait().unwrap().success());
}
