//! `pglock doctor`, where reads go elsewhere than locks.

use crate::oracle::{connect, unique_name, url};
use crate::pgpool::Pgpool;
use crate::report::Report;

#[test]
fn a_pool_that_reads_from_a_standby_is_found() {
    let Some(pgpool) = Pgpool::start("doctor-pgpool", "on") else {
        return;
    };
    let report = Report::of(&pgpool.url());
    report.assert_unfit(&["routing"]);
    assert_eq!(report.level("pooler"), "ok");
}

#[test]
fn a_pool_that_could_do_so_is_told() {
    let Some(pgpool) = Pgpool::start("doctor-pgpool-off", "off") else {
        return;
    };
    let report = Report::of(&pgpool.url());
    report.assert_unfit(&[]);
    let (level, sentence) = report.finding("routing");
    assert_eq!(level, "warning", "{sentence}");
    assert!(sentence.contains("pgpool-II"), "{sentence}");
}

/// A function before PostgreSQL's own answers as another server process does.
fn report_with(elsewhere: &str) -> Report {
    let (mut client, schema) = (connect(), unique_name("routing"));
    let create = format!(
        "CREATE SCHEMA {schema}; SET search_path = {schema}, pg_catalog; CREATE SEQUENCE {schema}.sessions; \
         CREATE FUNCTION {schema}.locks() RETURNS boolean LANGUAGE sql AS $$ \
         SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'advisory') $$; \
         CREATE FUNCTION {schema}.place() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN \
         RETURN currval('{schema}.sessions'); EXCEPTION WHEN object_not_in_prerequisite_state THEN \
         RETURN nextval('{schema}.sessions'); END $$; \
         CREATE FUNCTION {schema}.transaction() RETURNS bigint LANGUAGE sql AS $$ \
         SELECT coalesce(nullif(current_setting('routing.transaction', true), ''), \
         set_config('routing.transaction', nextval('{schema}.sessions')::text, true))::bigint $$; \
         CREATE FUNCTION {schema}.pg_backend_pid() RETURNS integer LANGUAGE sql AS $$ \
         SELECT pg_catalog.pg_backend_pid() + CASE WHEN {elsewhere} THEN 1000000 ELSE 0 END $$"
    );
    client.batch_execute(&create).unwrap();
    let report = Report::with(&url(), &format!("-c search_path={schema},pg_catalog"));
    let drop = format!("DROP SCHEMA {schema} CASCADE");
    client.batch_execute(&drop).unwrap();
    report
}

#[test]
fn reads_outside_transactions_that_go_elsewhere_are_found() {
    report_with("NOT locks()").assert_unfit(&["routing"]);
}

/// Balancing is drawn by lot, once for a session.
#[test]
fn it_is_found_although_few_sessions_read_elsewhere() {
    report_with("NOT locks() AND place() = 9").assert_unfit(&["routing"]);
    report_with("false").assert_unfit(&[]);
}

/// Two sessions in turn: the same one after each transaction of another client.
#[test]
fn a_pooler_that_deals_in_turn_is_found() {
    report_with("transaction() % 2 = 0").assert_unfit(&["pooler"]);
}
