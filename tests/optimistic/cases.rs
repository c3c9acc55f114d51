//! What a save does, and what it never does.

use std::thread;

use pglock::optimistic::Error;
use pglock::{RetryPolicy, retry};

use crate::driver::{Driver, House, INT};
use crate::oracle::{Oracle, wait_until};

const FREE: [&str; 3] = ["(1,,0,1)", "(2,,0,1)", "(3,,0,1)"];

/// The version that was read, and the one that the row has.
pub fn conflict(result: Result<impl std::fmt::Debug, Error>) -> (i64, i64) {
    let error = result.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let Error::Conflict {
        expected, actual, ..
    } = error
    else {
        panic!("{error:?}")
    };
    (expected, actual)
}

pub fn a_save_raises_the_version_and_changes_no_other_column<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    assert_eq!(conn.save(1, 1, "ada").unwrap(), 2);
    assert_eq!(conn.save_visits(1, 2, 7).unwrap(), 3);
    assert_eq!(house.rows(), ["(1,ada,7,3)", FREE[1], FREE[2]]);

    let house = House::new("bigint NOT NULL DEFAULT 5000000000");
    let mut conn = D::open(&house);
    assert_eq!(
        conn.save_wide(1, 5_000_000_000, "ada").unwrap(),
        5_000_000_001
    );
    assert_eq!(conflict(conn.save_wide(1, 1, "bob")), (1, 5_000_000_001));
}

pub fn a_stale_save_changes_nothing_and_conflicts_again<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    conn.save(1, 1, "ada").unwrap();
    for _ in 0..2 {
        assert_eq!(conflict(conn.save(1, 1, "bob")), (1, 2));
        assert_eq!(house.rows(), ["(1,ada,0,2)", FREE[1], FREE[2]]);
    }
    let text = conn.save(1, 1, "bob").unwrap_err().to_string();
    assert!(
        text.contains("\"seat\" was read at version 1, and is at version 2 now"),
        "{text}"
    );
}

/// Somebody else has saved and not committed: the save waits, and then sees what was committed.
pub fn a_save_that_waited_for_another_conflicts<D: Driver>() {
    let house = House::new(INT);
    let (mut conn, mut other) = (D::open(&house), Oracle::new());
    let save = format!(
        "UPDATE {}.seat SET buyer = 'ada', version = 2 WHERE id = 1",
        house.schema
    );
    other
        .client
        .batch_execute(&format!("BEGIN; {save}"))
        .unwrap();
    thread::scope(|threads| {
        threads.spawn(move || {
            let waiter = "SELECT FROM pg_locks \
                          WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))";
            wait_until("a waiter", || other.client.query_opt(waiter, &[]).unwrap());
            other.client.batch_execute("COMMIT").unwrap();
        });
        assert_eq!(conflict(conn.save(1, 1, "bob")), (1, 2));
    });
    assert_eq!(house.rows()[0], "(1,ada,0,2)");
}

pub fn a_missing_row_is_an_error_and_never_inserted<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    let results = [conn.save(4, 1, "ada").map(drop), conn.delete(4, 1)];
    for result in results {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::NotFound { expected: 1, .. }),
            "{error:?}"
        );
        assert!(!error.is_retryable());
    }
    assert_eq!(house.rows(), FREE);
}

/// Whatever their versions are: a save that took some of them would have lost the others.
pub fn a_save_that_matches_several_rows_changes_none<D: Driver>() {
    for versions in ["1", "id"] {
        let house = House::new(INT);
        let mut conn = D::open(&house);
        conn.run(&format!("UPDATE seat SET version = {versions}, visits = 7"))
            .unwrap();
        let before = house.rows();
        for result in [
            conn.save_all_visited(7, 1, "ada").map(drop),
            conn.save_all_visited(7, 9, "ada").map(drop),
            conn.delete_all_visited(7, 1),
        ] {
            let several = matches!(result, Err(Error::SeveralRows { .. }));
            assert!(several, "{versions}: {result:?}");
            assert!(!result.unwrap_err().is_retryable());
        }
        assert_eq!(house.rows(), before);
        conn.run("UPDATE seat SET visits = 8 WHERE id > 1").unwrap();
        assert_eq!(conn.save_all_visited(7, 1, "ada").unwrap(), 2);
        conn.delete_all_visited(7, 2).unwrap();
        assert_eq!(house.rows().len(), 2);
    }
}

pub fn a_delete_is_checked<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    let saved = conn.save(1, 1, "ada").unwrap();
    assert_eq!(conflict(conn.delete(1, 1)), (1, 2));
    assert_eq!(house.rows().len(), 3);
    conn.delete(1, saved).unwrap();
    assert_eq!(house.rows(), [FREE[1], FREE[2]]);
    let gone = conn.delete(1, saved);
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

pub fn no_increment_is_lost<D: Driver>() {
    const THREADS: i32 = 25;
    const EACH: i32 = 5;
    let house = House::new(INT);
    let increment = || {
        let mut conn = D::open(&house);
        for _ in 0..EACH {
            let mut save = || {
                let (visits, version) = conn.read(1);
                conn.save_visits(1, version, visits + 1)
            };
            // A retry gives up in the end; the test does not, however slow the machine.
            while let Err(error) = retry(&RetryPolicy::new(), &mut save) {
                assert!(error.is_retryable(), "{error:?}");
            }
        }
    };
    thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(increment);
        }
    });
    assert_eq!(
        D::open(&house).read(1),
        (THREADS * EACH, THREADS * EACH + 1)
    );
}

pub fn a_null_version_is_refused<D: Driver>() {
    let house = House::new("int");
    let mut conn = D::open(&house);
    let before = house.rows();
    let results = [conn.save(1, 1, "ada").map(drop), conn.delete(1, 1)];
    for result in results {
        assert!(
            matches!(result, Err(Error::NullVersion { .. })),
            "{result:?}"
        );
    }
    assert_eq!(house.rows(), before);
}

pub fn a_column_of_another_type_is_refused<D: Driver>() {
    for (version, name) in [
        ("text DEFAULT '1'", "text"),
        ("varchar(9) DEFAULT '1'", "varchar"),
        ("boolean DEFAULT true", "bool"),
        ("uuid", "uuid"),
        ("date DEFAULT now()", "date"),
        ("json DEFAULT '1'", "json"),
        ("text[] DEFAULT '{1}'", "_text"),
    ] {
        let house = House::new(version);
        let mut conn = D::open(&house);
        let before = house.rows();
        let results = [conn.save(1, 1, "ada").map(drop), conn.delete(1, 1)];
        for result in results {
            let Err(Error::VersionType { found, .. }) = result else {
                panic!("{version}: {result:?}")
            };
            assert_eq!(found, name);
        }
        assert_eq!(house.rows(), before);
    }
}

pub fn a_version_that_can_go_no_higher_is_refused<D: Driver>() {
    let house = House::new("int NOT NULL DEFAULT 2147483647");
    let mut conn = D::open(&house);
    let before = house.rows();
    let error = conn.save(1, i32::MAX, "ada").unwrap_err();
    assert!(matches!(error, Error::LastVersion { .. }), "{error:?}");
    assert_eq!(house.rows(), before);
}

/// Whatever type it was read as.
pub fn the_last_version_is_that_of_the_column<D: Driver>() {
    let last = i64::from(i32::MAX);
    let house = House::new("int NOT NULL DEFAULT 2147483647");
    let mut conn = D::open(&house);
    let before = house.rows();
    let domain = "CREATE DOMAIN number AS int; ALTER TABLE seat ALTER version TYPE number";
    for alter in ["SELECT 1", domain] {
        conn.run(alter).unwrap();
        let error = conn.save_wide(1, last, "ada").unwrap_err();
        assert!(
            matches!(error, Error::LastVersion { version, .. } if version == last),
            "{error:?}"
        );
        assert_eq!(house.rows(), before);
    }
    conn.delete(1, i32::MAX).unwrap();

    let house = House::new("bigint NOT NULL DEFAULT 2147483647");
    let mut conn = D::open(&house);
    assert_eq!(conn.save_wide(1, last, "ada").unwrap(), last + 1);
    assert_eq!(conflict(conn.save_wide(1, last, "bob")), (last, last + 1));
}

pub fn an_empty_list_of_changes_is_refused<D: Driver>() {
    let house = House::new(INT);
    let result = D::open(&house).save_nothing(1, 1);
    assert!(matches!(result, Err(Error::NoChanges { .. })), "{result:?}");
    assert_eq!(house.rows(), FREE);
}

pub fn a_serialization_failure_is_a_conflict<D: Driver>() {
    let house = House::new(INT);
    let (mut conn, mut other) = (D::open(&house), D::open(&house));
    conn.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM seat")
        .unwrap();
    other.save(1, 1, "ada").unwrap();
    let error = conn.save(1, 1, "bob").unwrap_err();
    assert!(matches!(error, Error::Serialization(_)), "{error:?}");
    assert!(error.is_retryable());
    conn.run("ROLLBACK").unwrap();
    assert_eq!(house.rows()[0], "(1,ada,0,2)");
}

/// In a text with all sources, as anyhow and others print an error.
pub fn the_reason_stands_in_an_error_once<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    conn.run("ALTER TABLE seat RENAME buyer TO owner").unwrap();
    let missing = conn.save(1, 1, "ada").unwrap_err();
    assert!(matches!(missing, Error::Database(_)), "{missing:?}");
    let missing = format!("{:#}", anyhow::Error::from(missing));
    assert_eq!(missing.matches("buyer").count(), 1, "{missing}");

    let mut other = D::open(&house);
    conn.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM seat")
        .unwrap();
    other.save_visits(2, 1, 7).unwrap();
    let changed = conn.save_visits(2, 1, 8).unwrap_err();
    assert!(matches!(changed, Error::Serialization(_)), "{changed:?}");
    let changed = format!("{:#}", anyhow::Error::from(changed));
    assert_eq!(changed.matches("serialize").count(), 1, "{changed}");
}

pub fn a_rolled_back_save_leaves_the_old_version<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    conn.run("BEGIN").unwrap();
    assert_eq!(conn.save(1, 1, "ada").unwrap(), 2);
    conn.run("ROLLBACK").unwrap();
    assert_eq!(house.rows(), FREE);
    assert_eq!(conn.save(1, 1, "ada").unwrap(), 2);
}

/// The row is found by its index, whatever surrounds the filter: once to count, and once to save.
pub fn a_save_reads_no_other_row<D: Driver>() {
    let house = House::new(INT);
    let mut conn = D::open(&house);
    conn.run("SET enable_seqscan = off; BEGIN").unwrap();
    conn.save(1, 1, "ada").unwrap();
    conn.delete(1, 2).unwrap();
    let whole_table = "DO $$ BEGIN ASSERT (SELECT seq_scan = 0 AND idx_scan = 4 \
                       FROM pg_stat_xact_user_tables WHERE relid = 'seat'::regclass); END $$";
    conn.run(whole_table).unwrap();
}
