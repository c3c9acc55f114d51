//! The client process itself is killed: this test program, started once more.

use std::process::{Command, Stdio};

use pglock::driver::Session;
use pglock::{Error, LockBackend, with_lock, with_transaction_lock};

use crate::oracle::{Oracle, Table, unique_name, url};
use crate::section::Form;

/// Tells the child what to do: the driver, the form, two keys and a statement.
const CHILD: &str = "PGLOCK_TEST_CHILD";

const DRIVERS: &[&str] = &[
    #[cfg(feature = "postgres")]
    "postgres",
    #[cfg(feature = "diesel")]
    "diesel",
];

#[test]
fn a_killed_holder_leaves_nothing_behind() {
    let mut oracle = Oracle::new();
    for driver in DRIVERS {
        for form in Form::ALL {
            let (key, ready, table) = (unique_name("key"), unique_name("key"), Table::new());
            let form_name = format!("{form:?}");
            let task = [driver, form_name.as_str(), &key, &ready, &table.insert()].join("|");
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes::child", "--ignored"])
                .env(CHILD, task)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            oracle.wait_for_holder(&ready.into());
            oracle.holder(&key.as_str().into());
            child.kill().unwrap(); // SIGKILL
            child.wait().unwrap();
            oracle.wait_until_free(&key.into());
            let committed = i64::from(form == Form::Session);
            assert_eq!(table.rows(), committed, "{driver}, {form:?}");
        }
    }
}

#[test]
#[ignore = "is what a_killed_holder_leaves_nothing_behind starts"]
fn child() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let task: Vec<_> = task.split('|').collect();
    match task[0] {
        #[cfg(feature = "postgres")]
        "postgres" => hold(
            &mut postgres::Client::connect(&url(), postgres::NoTls).unwrap(),
            &task,
        ),
        #[cfg(feature = "diesel")]
        "diesel" => hold(
            &mut <diesel::PgConnection as diesel::Connection>::establish(&url()).unwrap(),
            &task,
        ),
        driver => panic!("no driver {driver}"),
    }
}

fn hold<B: LockBackend>(backend: &mut B, task: &[&str]) {
    let [_, form, key, ready, insert] = task else {
        panic!("{task:?}")
    };
    let held = if *form == "Session" {
        with_lock(backend, *key, |conn| wait_to_be_killed(conn, ready, insert))
    } else {
        with_transaction_lock(backend, *key, |tx| wait_to_be_killed(tx, ready, insert))
    };
    held.unwrap();
}

/// Waits until the input ends, so that the child of a failed parent ends, too.
fn wait_to_be_killed<S: Session>(conn: &mut S, ready: &str, insert: &str) -> Result<(), Error> {
    conn.send(insert).unwrap();
    with_lock(conn, ready, |_| {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        Ok(())
    })
}
