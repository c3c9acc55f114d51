//! `pglock doctor`, on servers that have what it should find.

use std::net::TcpListener;

use postgres::{Client, NoTls};

use crate::bouncer::Bouncer;
use crate::oracle::{connect, unique_name, url};
use crate::process::{assert_fails, pglock, stdout};
use crate::report::Report;
use crate::server::Server;

fn server(name: &str, settings: &str) -> Server {
    let server = Server::new(name);
    server.configure(settings);
    server.start();
    server
}

#[test]
fn an_ordinary_connection_is_fit() {
    let server = server("doctor-fit", "");
    let report = Report::of(&server.url());
    report.assert_unfit(&[]);
    let fine = ["pooler", "exclusion", "routing", "version", "standby"];
    let more_fine = ["isolation", "language"];
    let more = ["lock_table", "sight", "reach", "vanished_client"];
    let off = ["lock_timeout", "statement_timeout", "idle_session_timeout"];
    let also_off = ["idle_in_transaction_session_timeout"];
    for name in [&fine[..], &more_fine, &more, &off, &also_off].concat() {
        assert_eq!(report.level(name), "ok", "{name}");
    }
    assert_eq!(report.level("failover"), "note");
    assert_eq!(report.level("vanished_waiter"), "warning");

    let text = stdout(&["--url", &server.url(), "doctor"]);
    let findings = report.json["findings"].as_array().unwrap();
    for finding in findings {
        let sentence = finding["sentence"].as_str().unwrap();
        assert!(text.contains(sentence), "{sentence}: {text}");
    }
    assert!(text.ends_with("is fit for all forms of locks.\n"), "{text}");
    assert_fails(&["--url", "dbname=nosuch", "doctor"], 69, "nosuch");
}

#[test]
fn a_pooler_in_transaction_mode_is_found() {
    for (sessions, round_robin) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)] {
        let name = format!("doctor-pool-{sessions}-{round_robin}");
        let settings = format!(
            "pool_mode = transaction\ndefault_pool_size = {sessions}\n\
             server_round_robin = {round_robin}\n"
        );
        let Some(bouncer) = Bouncer::start_with(&name, &settings) else {
            return;
        };
        let report = Report::of(&bouncer.url());
        report.assert_unfit(&["pooler"]);
        assert_eq!(bouncer.holder(), None);
    }
}

#[test]
fn a_pooler_in_statement_mode_is_found() {
    let Some(bouncer) = Bouncer::start_with("doctor-statement", "pool_mode = statement\n") else {
        return;
    };
    let report = Report::of(&bouncer.url());
    report.assert_unfit(&["pooler"]);
    let (_, sentence) = report.finding("pooler");
    assert!(sentence.contains("statement mode"), "{sentence}");
}

#[test]
fn a_pooler_in_session_mode_is_fit() {
    let Some(bouncer) = Bouncer::start_with("doctor-session", "pool_mode = session\n") else {
        return;
    };
    Report::of(&bouncer.url()).assert_unfit(&[]);
}

#[test]
fn a_standby_is_found() {
    let (primary, standby) = (Server::new("doctor-primary"), Server::new("doctor-standby"));
    standby.follow(&primary);
    primary.start();
    standby.start();
    Report::of(&standby.url()).assert_unfit(&["standby"]);
    Report::of(&primary.url()).assert_unfit(&[]);
}

/// A function before PostgreSQL's own answers as CockroachDB does.
#[test]
fn a_pretender_is_found() {
    let (mut client, schema) = (connect(), unique_name("pretender"));
    let pretend = format!(
        "CREATE SCHEMA {schema}; \
         CREATE FUNCTION {schema}.current_setting(text, boolean) RETURNS text \
         LANGUAGE sql AS $$ SELECT 'CockroachDB v23.2' $$"
    );
    client.batch_execute(&pretend).unwrap();
    let report = Report::with(&url(), &format!("-c search_path={schema},pg_catalog"));
    let drop = format!("DROP SCHEMA {schema} CASCADE");
    client.batch_execute(&drop).unwrap();
    report.assert_unfit(&["pretender"]);
    assert!(report.finding("pretender").1.contains("CockroachDB v23.2"));
}

#[test]
fn timeouts_are_found() {
    let mut timeouts = vec![
        "lock_timeout",
        "statement_timeout",
        "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    ];
    let query = "SELECT FROM pg_settings WHERE name = 'transaction_timeout'";
    if connect().query_opt(query, &[]).unwrap().is_some() {
        timeouts.push("transaction_timeout");
    }
    let settings: Vec<_> = timeouts
        .iter()
        .map(|name| format!("-c {name}=90s"))
        .collect();
    let report = Report::with(&url(), &settings.join(" "));
    report.assert_unfit(&[]);
    for name in timeouts {
        let (level, sentence) = report.finding(name);
        assert_eq!(level, "warning", "{name}");
        assert!(sentence.contains("1m 30s"), "{sentence}");
    }
}

#[test]
fn transactions_that_cannot_lock_are_found() {
    let url = url();
    for level in ["serializable", "repeatable read"] {
        let settings = format!(
            "-c default_transaction_isolation={}",
            level.replace(' ', "\\ ")
        );
        Report::with(&url, &settings).assert_unfit(&["isolation"]);
        // And so it is.
        let mut run = pglock(&[
            "--url",
            &url,
            "run",
            "x",
            "--scope",
            "transaction",
            "--",
            "true",
        ]);
        let refused = run.env("PGOPTIONS", &settings).output().unwrap();
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains("SERIALIZABLE"), "{stderr}");
    }
    let settings = "-c default_transaction_read_only=on";
    let report = Report::with(&url, settings);
    report.assert_unfit(&[]);
    assert_eq!(report.level("read_only"), "warning");
    let deferrable =
        "-c default_transaction_isolation=serializable -c default_transaction_deferrable=on";
    let report = Report::with(&url, &format!("{settings} {deferrable}"));
    report.assert_unfit(&["isolation"]);
    assert!(report.finding("read_only").1.contains("safe snapshot"));
}

/// The server reports these settings only on a TCP connection.
#[test]
fn the_time_that_a_vanished_client_keeps_its_locks_is_computed() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let server = server(
        "doctor-vanished",
        &format!("listen_addresses = '127.0.0.1'\nport = {port}\n"),
    );
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let keepalives =
        "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";
    for (settings, level, seconds) in [
        (keepalives.to_owned(), "ok", "25 s:"),
        (
            format!("{keepalives} -c tcp_user_timeout=12000"),
            "ok",
            "15 s:",
        ),
        (
            "-c tcp_keepalives_idle=600 -c tcp_keepalives_interval=30 -c tcp_keepalives_count=4"
                .to_owned(),
            "warning",
            "720 s (12m):",
        ),
    ] {
        let report = Report::with(&url, &settings);
        let (found, sentence) = report.finding("vanished_client");
        assert_eq!(found, level, "{sentence}");
        assert!(sentence.contains(&format!("for {seconds}")), "{sentence}");
        assert_eq!(report.level("vanished_waiter"), "warning");
    }
    let settings = format!("{keepalives} -c client_connection_check_interval=2s");
    let report = Report::with(&url, &settings);
    let (level, sentence) = report.finding("vanished_waiter");
    assert_eq!(level, "ok", "{sentence}");
    assert!(sentence.contains("after 27 s:"), "{sentence}");
    let socket = server.url_at(port);
    let report = Report::with(&socket, "-c client_connection_check_interval=2s");
    let (_, sentence) = report.finding("vanished_waiter");
    assert!(sentence.contains("after 2 s:"), "{sentence}");
}

#[test]
fn a_lock_table_that_fills_up_is_found() {
    let server = server(
        "doctor-full",
        "max_locks_per_transaction = 10\nmax_connections = 20\n",
    );
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let lock = "SELECT pg_advisory_lock(n) FROM generate_series(1, 140) n";
    client.batch_execute(lock).unwrap();
    let report = Report::of(&server.url());
    let (level, sentence) = report.finding("lock_table");
    assert_eq!(level, "ok", "{sentence}");
    assert!(sentence.contains("some 200 locks"), "{sentence}");
    client
        .batch_execute("SELECT pg_advisory_lock(n) FROM generate_series(141, 160) n")
        .unwrap();
    let report = Report::of(&server.url());
    let (level, sentence) = report.finding("lock_table");
    assert_eq!(level, "warning", "{sentence}");
    assert!(sentence.contains(" 160 are in it"), "{sentence}");
    report.assert_unfit(&[]);
}

#[test]
fn a_language_that_may_not_be_used_is_found() {
    let server = server("doctor-language", "");
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let revoke = "CREATE ROLE app LOGIN; REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC";
    client.batch_execute(revoke).unwrap();
    let url = server.url().replace("postgres@", "app@");
    Report::of(&url).assert_unfit(&["language"]);
    Report::of(&server.url()).assert_unfit(&[]);
    client.batch_execute("DROP EXTENSION plpgsql").unwrap();
    Report::of(&server.url()).assert_unfit(&["language"]);
    client.batch_execute("CREATE EXTENSION plpgsql").unwrap();
    let grant = "GRANT USAGE ON LANGUAGE plpgsql TO app";
    client.batch_execute(grant).unwrap();
    Report::of(&url).assert_unfit(&[]);
}

#[test]
fn the_rights_of_the_user_are_found() {
    let server = server("doctor-rights", "");
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client.batch_execute("CREATE ROLE app LOGIN").unwrap();
    let url = server.url().replace("postgres@", "app@");
    let report = Report::of(&url);
    report.assert_unfit(&[]);
    assert_eq!([report.level("sight"), report.level("reach")], ["note"; 2]);
    client
        .batch_execute("GRANT pg_read_all_stats, pg_signal_backend TO app")
        .unwrap();
    let report = Report::of(&url);
    assert_eq!([report.level("sight"), report.level("reach")], ["ok"; 2]);
    assert_eq!(report.level("lock_table"), "ok");
    client
        .batch_execute("REVOKE SELECT ON pg_locks FROM PUBLIC")
        .unwrap();
    assert_eq!(Report::of(&url).level("lock_table"), "warning");
}
