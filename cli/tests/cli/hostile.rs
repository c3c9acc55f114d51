//! Names that a terminal would take for commands, chosen by other users of the server.

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use pglock::inspect::escaped;
use postgres::config::Config;
use postgres::{Client, NoTls};
use serde_json::Value;

use crate::process::{assert_fails, output};
use crate::server::Server;

/// C0, DEL, C1, and what turns the direction of writing.
const NAME: &str = "a\u{1b}[2J\r\n\u{7}\u{7f}\u{9b}31m\u{85}\u{202e}\u{2066}\u{2028}z";

/// All that a command prints.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = output(arguments);
    let bytes = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(bytes).unwrap();
    for line in text.split('\n') {
        assert_eq!(escaped(line), line, "{arguments:?}");
    }
    text
}

fn connect(server: &Server, user: &str) -> Client {
    let mut config = Config::new();
    let config = config.host_path(server.dir()).user(user).dbname("postgres");
    config.connect(NoTls).unwrap()
}

#[test]
fn a_role_s_name_commands_no_terminal() {
    let server = Server::new("cli-hostile-role");
    server.start();
    let create = format!("CREATE ROLE \"{NAME}\" LOGIN");
    connect(&server, "postgres").batch_execute(&create).unwrap();
    let mut holder = connect(&server, NAME);
    let lock = "SELECT pg_advisory_lock(5)";
    holder.batch_execute(lock).unwrap();
    let url = server.url();
    for arguments in [
        &["ls"][..],
        &["ls", "--tree"],
        &["who", "--int", "5"],
        &["kill", "--int", "5"],
        &["run", "--int", "5", "--try", "--", "true"],
        &["run", "--int", "5", "--timeout", "1ms", "--", "true"],
    ] {
        let text = printed(&[&["--url", &url], arguments].concat());
        assert!(text.contains('5'), "{arguments:?}: {text}");
    }
    let table = printed(&["--url", &url, "who", "--int", "5"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains(&escaped(NAME)), "{table}");
    let json = printed(&["--url", &url, "ls", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let user = json[0]["user"].as_str().unwrap();
    assert_eq!(escaped(user), escaped(NAME));

    let of_user = |bytes: &str| {
        bytes
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    let url = url.replace("postgres@", &format!("{}@", of_user(NAME)));
    assert!(printed(&["--url", &url, "doctor"]).contains("fit for"));
    let json = printed(&["--url", &url, "doctor", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert!(report["findings"].to_string().contains("31m"), "{report}");
    // The server's own message.
    let url = url.replace("%33%31%6D", "%33%32%6D");
    assert!(printed(&["--url", &url, "ls"]).contains("does not exist"));
}

#[test]
fn a_prepared_transaction_s_name_can_be_typed() {
    let server = Server::new("cli-hostile-gid");
    server.configure("max_prepared_transactions = 3\n");
    server.start();
    let mut client = connect(&server, "postgres");
    let create = "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0";
    client.batch_execute(create).unwrap();
    let literal = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let (hostile, backslash) = (format!("'{NAME}\\"), r"a\b".to_owned());
    for (database, gid) in [
        ("postgres", literal(&hostile)),
        ("postgres", literal(&backslash)),
        ("bytes", r"E'caf\xe9 \x9b'".to_owned()),
    ] {
        let server = server.url();
        let url = format!("{}/{database}", server.strip_suffix("/postgres").unwrap());
        let mut client = Client::connect(&url, NoTls).unwrap();
        let prepare = format!("BEGIN; SELECT pg_advisory_xact_lock(6); PREPARE TRANSACTION {gid}");
        client.batch_execute(&prepare).unwrap();
        let kill = ["--url", &url, "kill", "--int", "6", "--yes"];
        let text = printed(&kill);
        let (_, advice) = text
            .split_once("to end: ")
            .unwrap_or_else(|| panic!("{text}"));
        let (rollback, _) = advice.split_once(" or COMMIT").unwrap();
        client.batch_execute(rollback).unwrap();
        assert_fails(&kill, 1, "nobody holds 6");
    }
}

/// A role's name has the bytes of the database of its creation, and so has a prepared transaction's.
#[test]
fn a_name_of_another_encoding_blinds_nothing() {
    let server = Server::new("cli-hostile-encoding");
    server.configure("max_prepared_transactions = 4\n");
    server.start();
    let mut admin = connect(&server, "postgres");
    let in_database = |name: &str| [server.url().trim_end_matches("postgres"), name].concat();
    for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
        let create = format!(
            "CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        admin.batch_execute(&create).unwrap();
    }
    let mut anything = Client::connect(&in_database("sql_ascii"), NoTls).unwrap();
    let create = r#"DO $$ BEGIN EXECUTE E'CREATE ROLE "caf\xe9" SUPERUSER LOGIN'; END $$"#;
    anything.batch_execute(create).unwrap();
    for (database, name) in [
        ("postgres", r"caf\xe9"),
        ("sql_ascii", r"caf\xe9"),
        ("latin1", "café"),
        ("euc_jp", r"caf\xe9"),
    ] {
        let url = in_database(database).replace("postgres@", "caf%E9@");
        let report = printed(&["--url", &url, "doctor"]);
        assert!(report.contains("fit for all forms"), "{database}: {report}");
        let mut holder = PgConnection::establish(&url).unwrap();
        holder
            .batch_execute("BEGIN; SELECT pg_advisory_xact_lock(6)")
            .unwrap();
        let who = printed(&["--url", &url, "who", "--int", "6"]);
        assert!(who.contains(name), "{database}: {who}");
        let prepare = format!("PREPARE TRANSACTION '{database}'");
        holder.batch_execute(&prepare).unwrap();
        let kill = printed(&["--url", &url, "kill", "--int", "6", "--yes"]);
        let (_, owner) = kill.split_once("in this database as ").unwrap();
        assert!(owner.contains(name), "{database}: {kill}");
    }
}

#[test]
fn an_argument_commands_no_terminal() {
    for arguments in [
        &["ls", NAME][..],
        &["who", "--int", NAME],
        &["who", "x", "--scheme", NAME],
    ] {
        assert!(printed(arguments).contains("31m"), "{arguments:?}");
    }
}
